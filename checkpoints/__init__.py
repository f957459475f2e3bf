"""What a run resumes from: the checkpoint format, saving during training, retention, the run folder and its lock.

Not here: what a resumed run does with a checkpoint (`training.resume`).
"""
