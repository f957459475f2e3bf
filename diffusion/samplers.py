"""From noise to a clean video, one small module a sampler."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from diffusion.guidance import Denoise
from diffusion.prediction import PredictionType, check_prediction_type, predicted_video
from diffusion.schedule import NoiseSchedule


@dataclass(frozen=True)
class NoiseLevel:
    """One timestep of the schedule. Host numbers in float64: coefficients stay exact and no device is waited for."""

    timestep: int
    alphas_cumprod: float  # in [0, 1); 0 at the last timestep of a schedule with zero terminal SNR

    @property
    def signal_rate(self) -> float:
        """The factor of the clean video, sqrt(alphas_cumprod)."""
        return math.sqrt(self.alphas_cumprod)

    @property
    def noise_rate(self) -> float:
        """The factor of the noise, sqrt(1 - alphas_cumprod); never 0."""
        return math.sqrt(1 - self.alphas_cumprod)

    @property
    def is_pure_noise(self) -> bool:
        return self.alphas_cumprod == 0

    @property
    def sigma(self) -> float:
        """Noise per unit of signal (Karras et al. 2022); infinite for pure noise."""
        return math.inf if self.is_pure_noise else self.noise_rate / self.signal_rate

    @property
    def half_log_snr(self) -> float:
        """Lambda of Lu et al. 2022, log(signal rate / noise rate); minus infinity for pure noise."""
        return -math.inf if self.is_pure_noise else math.log(self.signal_rate / self.noise_rate)


@dataclass(frozen=True)
class Estimate:
    """The network's opinion of a noisy video; the two always mix to exactly that noisy video."""

    video: Tensor  # the clean video, clipped if sampling clips
    noise: Tensor


@dataclass(frozen=True)
class SamplerTools:
    """What a sampler may ask for beside the estimate it is given."""

    estimate: Callable[[Tensor, NoiseLevel], Estimate]  # one more call of the network
    draw_noise: Callable[[Tensor], Tensor]  # standard normal, the shape and device of its argument


# (noisy video, its estimate, its level, the next level) -> the video at the next level.
# The step to the clean video is no sampler's business: it is the last estimate itself.
TakeStep = Callable[[Tensor, Estimate, NoiseLevel, NoiseLevel], Tensor]


def ddim(tools: SamplerTools) -> TakeStep:
    return ddim_step


def ddim_step(noisy: Tensor, estimate: Estimate, current: NoiseLevel, following: NoiseLevel) -> Tensor:
    """Mix the estimated video and noise again, in the proportions of the next level."""
    return following.signal_rate * estimate.video + following.noise_rate * estimate.noise


def ddpm(tools: SamplerTools) -> TakeStep:
    def step(noisy: Tensor, estimate: Estimate, current: NoiseLevel, following: NoiseLevel) -> Tensor:
        """Draw from the posterior of Ho et al. 2020, equations 6 and 7, with beta taken over the whole stride."""
        alpha = current.alphas_cumprod / following.alphas_cumprod
        beta = 1 - alpha
        noise_power = 1 - current.alphas_cumprod
        noise_power_following = 1 - following.alphas_cumprod
        mean = (following.signal_rate * beta / noise_power) * estimate.video + (
            math.sqrt(alpha) * noise_power_following / noise_power
        ) * noisy
        deviation = math.sqrt(noise_power_following / noise_power * beta)
        return mean + deviation * tools.draw_noise(noisy)

    return step


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
