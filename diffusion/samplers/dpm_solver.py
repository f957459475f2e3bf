"""DPM-Solver++ of second order with two steps of history (Lu et al. 2022b, algorithm 2, "2M")."""

import math

from torch import Tensor

from diffusion.samplers.levels import Estimate, NoiseLevel, SamplerTools, TakeStep


def dpm_solver_plus_plus(tools: SamplerTools) -> TakeStep:
    history: list[tuple[Estimate, NoiseLevel]] = []

    def step(noisy: Tensor, estimate: Estimate, current: NoiseLevel, following: NoiseLevel) -> Tensor:
        video = estimate.video
        if history:
            video = _extrapolated(estimate, current, following, *history[-1])
        history[:] = [(estimate, current)]
        # exp(-h), with h the step in lambda, written as a ratio: it is 0 for a step that leaves pure noise, which
        # makes that step DDIM's.
        decay = current.signal_rate * following.noise_rate / (current.noise_rate * following.signal_rate)
        kept = following.noise_rate / current.noise_rate
        return kept * noisy + following.signal_rate * (1 - decay) * video

    return step


def _extrapolated(
    estimate: Estimate, current: NoiseLevel, following: NoiseLevel, earlier: Estimate, earlier_level: NoiseLevel
) -> Tensor:
    """Continue the trend of the last two estimates to the middle of the step.

    After a first step from pure noise the previous step is infinitely long in lambda, so its trend counts nothing.
    """
    earlier_step = current.half_log_snr - earlier_level.half_log_snr
    if math.isinf(earlier_step):
        return estimate.video
    weight = (following.half_log_snr - current.half_log_snr) / (2 * earlier_step)
    return (1 + weight) * estimate.video - weight * earlier.video
