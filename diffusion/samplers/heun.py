"""Heun's method: Euler, corrected by the slope at its end (Karras et al. 2022, algorithm 1 with no churn)."""

from torch import Tensor

from diffusion.samplers.euler import euler_step, following_video
from diffusion.samplers.levels import Estimate, NoiseLevel, SamplerTools, TakeStep

# The largest noise level of Karras et al. 2022. Steps from above it are so long in sigma that the mean of two
# slopes is worse than the first alone; cosine schedules begin in the thousands.
_LARGEST_CORRECTED_SIGMA = 80.0


def heun(tools: SamplerTools) -> TakeStep:
    """Two calls of the network a step; one where the step leaves (nearly) pure noise or ends at the clean video."""

    def step(noisy: Tensor, estimate: Estimate, current: NoiseLevel, following: NoiseLevel) -> Tensor:
        trial = euler_step(noisy, estimate, current, following)
        if current.sigma > _LARGEST_CORRECTED_SIGMA:
            return trial
        slope = (estimate.noise + tools.estimate(trial, following).noise) / 2
        return following_video(noisy, slope, current, following)

    return step
