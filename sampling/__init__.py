"""From text to clips: the sampler, opening a trained run, and generating for `generate.py`.

Not here: the sampling methods (`diffusion.samplers`)."""
