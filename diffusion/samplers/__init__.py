"""From noise to a clean video, one small module a sampler."""

from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from diffusion.guidance import Denoise
from diffusion.prediction import PredictionType, check_prediction_type, predicted_video
from diffusion.samplers.ddim import ddim
from diffusion.samplers.ddpm import ddpm
from diffusion.samplers.dpm_solver import dpm_solver_plus_plus
from diffusion.samplers.euler import euler
from diffusion.samplers.heun import heun
from diffusion.samplers.levels import Estimate, NoiseLevel, SamplerTools, TakeStep
from diffusion.schedule import NoiseSchedule

SamplerName = Literal["ddim", "ddpm", "dpm_solver++", "euler", "heun"]
OnStep = Callable[[int, Tensor], None]

_SAMPLERS: dict[SamplerName, Callable[[SamplerTools], TakeStep]] = {
    "ddim": ddim,
    "ddpm": ddpm,
    "dpm_solver++": dpm_solver_plus_plus,
    "euler": euler,
    "heun": heun,
}


def sampling_timesteps(num_timesteps: int, num_steps: int) -> list[int]:
    """Return the timesteps to visit, strictly decreasing from num_timesteps - 1.

    The spacing is Lin et al. 2023's "trailing": sampling must start where training saw the most noise.

    Raises:
        ValueError: `num_steps` is below 1 or above `num_timesteps`.
    """
    if not 1 <= num_steps <= num_timesteps:
        raise ValueError(f"num_steps must be between 1 and num_timesteps ({num_timesteps}), not {num_steps}")
    return [round(num_timesteps * (num_steps - index) / num_steps) - 1 for index in range(num_steps)]


@torch.no_grad()
def sample(
    denoise: Denoise,
    *,
    schedule: NoiseSchedule,
    prediction_type: PredictionType,
    sampler: SamplerName,
    num_steps: int,
    initial_noise_BCTHW: Tensor,
    noise_generator: torch.Generator | None,
    clip_video: bool = True,
    on_step: OnStep | None = None,
) -> Tensor:
    """Turn noise into clean videos.

    Args:
        denoise: the network's prediction for a noisy batch and its timesteps, int64 [B], all equal.
        sampler: ``ddim``, ``euler``, ``dpm_solver++`` and ``heun`` add no noise; ``heun`` calls the network twice a
            step; ``ddpm`` draws fresh noise and needs many steps.
        num_steps: 1 to N.
        initial_noise_BCTHW: standard normal, float32, on the device to sample on.
        noise_generator: a CPU generator, so that the same seed gives the same video on every device. Needed by
            ``ddpm``, unused by the others.
        clip_video: clip each estimate of the clean video to [-1, 1] and derive the noise from the clipped estimate.
        on_step: told the step, from 0, and the estimate of the clean video that the step started with.

    Returns:
        Clean videos, float32, the shape of the noise; in [-1, 1] if `clip_video`. The last step lands exactly on the
        last estimate.

    Raises:
        ValueError: an unknown sampler, a step count out of range, ``ddpm`` without a generator, or a prediction type
            that does not go with the schedule.
    """
    if sampler not in _SAMPLERS:
        raise ValueError(f"unknown sampler {sampler!r}; choose from {', '.join(_SAMPLERS)}")
    if sampler == "ddpm" and noise_generator is None:
        raise ValueError("sampler 'ddpm' draws noise at every step and needs a noise_generator")
    check_prediction_type(schedule, prediction_type)
    schedule = schedule.to(initial_noise_BCTHW.device)

    def estimate(noisy: Tensor, level: NoiseLevel) -> Estimate:
        return _estimate(denoise, schedule, prediction_type, noisy, level, clip_video)

    def draw_noise(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=noise_generator, device="cpu").to(like.device)

    take_step = _SAMPLERS[sampler](SamplerTools(estimate=estimate, draw_noise=draw_noise))
    timesteps = sampling_timesteps(schedule.num_timesteps, num_steps)
    levels = [NoiseLevel(timestep, schedule.alphas_cumprod[timestep]) for timestep in timesteps]
    noisy = initial_noise_BCTHW.float()
    for index, (current, following) in enumerate(pairwise(levels)):
        current_estimate = estimate(noisy, current)
        if on_step is not None:
            on_step(index, current_estimate.video)
        noisy = take_step(noisy, current_estimate, current, following)
    clean = estimate(noisy, levels[-1]).video
    if on_step is not None:
        on_step(len(levels) - 1, clean)
    return clean


def _estimate(
    denoise: Denoise,
    schedule: NoiseSchedule,
    prediction_type: PredictionType,
    noisy: Tensor,
    level: NoiseLevel,
    clip_video: bool,
) -> Estimate:
    timestep_B = torch.full((noisy.shape[0],), level.timestep, dtype=torch.int64, device=noisy.device)
    video = predicted_video(schedule, prediction_type, denoise(noisy, timestep_B), noisy, timestep_B)
    if clip_video:
        video = video.clamp(-1, 1)
    # The noise follows from the clipped video; an estimate that does not mix to `noisy` would drift off the path.
    return Estimate(video=video, noise=(noisy - level.signal_rate * video) / level.noise_rate)
