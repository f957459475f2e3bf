"""DDIM without added noise (Song et al. 2021, equation 12 with eta 0)."""

from torch import Tensor

from diffusion.samplers.levels import Estimate, NoiseLevel, SamplerTools, TakeStep


def ddim(tools: SamplerTools) -> TakeStep:
    return ddim_step


def ddim_step(noisy: Tensor, estimate: Estimate, current: NoiseLevel, following: NoiseLevel) -> Tensor:
    """Mix the estimated video and noise again, in the proportions of the next level."""
    return following.signal_rate * estimate.video + following.noise_rate * estimate.noise
