"""Euler on the probability-flow ODE in terms of sigma (Karras et al. 2022, algorithm 1 without the correction)."""

from torch import Tensor

from diffusion.samplers.ddim import ddim_step
from diffusion.samplers.levels import Estimate, NoiseLevel, SamplerTools, TakeStep


def euler(tools: SamplerTools) -> TakeStep:
    return euler_step


def euler_step(noisy: Tensor, estimate: Estimate, current: NoiseLevel, following: NoiseLevel) -> Tensor:
    """Follow the slope at the current level.

    The ODE is that of ``scaled = noisy / signal_rate``, and its slope d scaled / d sigma is the estimated noise.
    Without noise in between, this is DDIM in other coordinates, and the two agree to rounding. Pure noise has an
    infinite sigma, so the step that leaves it is taken in DDIM's coordinates, where everything is finite.
    """
    if current.is_pure_noise:
        return ddim_step(noisy, estimate, current, following)
    return following_video(noisy, estimate.noise, current, following)


def following_video(noisy: Tensor, slope: Tensor, current: NoiseLevel, following: NoiseLevel) -> Tensor:
    """Follow a given slope from one finite sigma to the next."""
    scaled = noisy / current.signal_rate + (following.sigma - current.sigma) * slope
    return scaled * following.signal_rate
