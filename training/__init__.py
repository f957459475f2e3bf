"""From a config to a trained model: building the parts, the loop, one step, validation, resuming and replaying.

Not here: the checkpoint format (`checkpoints`), the device (`compute`) and the processes (`distributed`).
"""
