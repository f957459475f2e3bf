"""From text to clips: the sampler, and opening a trained run to sample from it.

Not here: the sampling methods (`diffusion.samplers`).
"""
