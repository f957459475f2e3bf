"""The network: a 3D UNet over video frames, told what to sign by a text encoder.

Not here: the loss (`diffusion`) and the division over several processes (`distributed`).
"""
