"""From noise to a clean video: every sampler is a function that takes one step."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from diffusion.guidance import Denoise
from diffusion.prediction import PredictionType, check_prediction_type, predicted_video
from diffusion.schedule import NoiseSchedule

SamplerName = Literal["ddim", "ddpm", "dpm_solver++", "euler", "heun"]

# The largest noise level of Karras et al. 2022. Steps from above it are so long in sigma that the mean of two
# slopes is worse than the first alone; cosine schedules begin in the thousands.
_LARGEST_CORRECTED_SIGMA = 80.0


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
    """What the network makes of a noisy video; `video` and `noise` always mix to exactly that noisy video."""

    level: NoiseLevel
    video: Tensor  # the clean video, clipped if sampling clips
    noise: Tensor


@dataclass(frozen=True)
class Step:
    """What a sampler is given to take a noisy video to the next level.

    The step to the clean video is no sampler's business: it is the last estimate itself.
    """

    noisy: Tensor
    estimate: Estimate  # of `noisy`
    previous: Estimate | None  # of the step before; None for the first step
    following: NoiseLevel
    estimate_at: Callable[[Tensor, NoiseLevel], Estimate]  # one more call of the network
    draw_noise: Callable[[], Tensor]  # standard normal, the shape and device of `noisy`

    @property
    def current(self) -> NoiseLevel:
        """The level of `noisy`."""
        return self.estimate.level


def ddim(step: Step) -> Tensor:
    """Mix the estimated video and noise again, in the proportions of the next level (Song et al. 2021)."""
    return step.following.signal_rate * step.estimate.video + step.following.noise_rate * step.estimate.noise


def ddpm(step: Step) -> Tensor:
    """Draw from the posterior of Ho et al. 2020, equations 6 and 7, with beta taken over all of the stride."""
    alpha = step.current.alphas_cumprod / step.following.alphas_cumprod
    beta = 1 - alpha
    noise_power, noise_power_following = 1 - step.current.alphas_cumprod, 1 - step.following.alphas_cumprod
    video_factor = step.following.signal_rate * beta / noise_power
    noisy_factor = math.sqrt(alpha) * noise_power_following / noise_power
    deviation = math.sqrt(noise_power_following / noise_power * beta)
    return video_factor * step.estimate.video + noisy_factor * step.noisy + deviation * step.draw_noise()


def dpm_solver_plus_plus(step: Step) -> Tensor:
    """DPM-Solver++(2M) of Lu et al. 2022: continue the trend of the last two estimates to the middle of the step.

    After a first step from pure noise the previous step is infinitely long in lambda, so its trend counts nothing.
    """
    current, following, video = step.current, step.following, step.estimate.video
    if step.previous is not None and not step.previous.level.is_pure_noise:
        previous_length = current.half_log_snr - step.previous.level.half_log_snr
        weight = (following.half_log_snr - current.half_log_snr) / (2 * previous_length)
        video = (1 + weight) * video - weight * step.previous.video
    # exp(-h), with h the step in lambda, written as a ratio: it is 0 for a step that leaves pure noise, which
    # makes that step DDIM's.
    decay = current.signal_rate * following.noise_rate / (current.noise_rate * following.signal_rate)
    return following.noise_rate / current.noise_rate * step.noisy + following.signal_rate * (1 - decay) * video


def euler(step: Step) -> Tensor:
    """Follow the slope at the current level.

    The ODE is that of ``scaled = noisy / signal_rate``, and its slope d scaled / d sigma is the estimated noise.
    Without noise in between, this is DDIM in other coordinates, and the two agree to rounding. Pure noise has an
    infinite sigma, so the step that leaves it is taken in DDIM's coordinates, where everything is finite.
    """
    return ddim(step) if step.current.is_pure_noise else _follow(step, step.estimate.noise)


def heun(step: Step) -> Tensor:
    """Follow the mean of the slopes at both ends: two calls of the network, one where the step leaves pure noise."""
    trial = euler(step)
    if step.current.sigma > _LARGEST_CORRECTED_SIGMA:
        return trial
    return _follow(step, (step.estimate.noise + step.estimate_at(trial, step.following).noise) / 2)


def _follow(step: Step, slope: Tensor) -> Tensor:
    """Follow a slope from one finite sigma to the next."""
    scaled = step.noisy / step.current.signal_rate + (step.following.sigma - step.current.sigma) * slope
    return scaled * step.following.signal_rate


_SAMPLERS: dict[SamplerName, Callable[[Step], Tensor]] = {
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
    on_step: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Turn noise into clean videos.

    Args:
        denoise: the network's prediction for a noisy batch, all of it at one timestep.
        sampler: ``ddim``, ``euler``, ``dpm_solver++`` and ``heun`` add no noise; ``heun`` calls the network twice a
            step; ``ddpm`` draws fresh noise and needs many steps.
        num_steps: 1 to N.
        initial_noise_BCTHW: standard normal, float32, on the device to sample on.
        noise_generator: a CPU generator, so that the same seed gives the same video on every device. Needed by
            ``ddpm``, unused by the others.
        clip_video: clip each estimate of the clean video to [-1, 1] and derive the noise from the clipped estimate.
        on_step: receives the step, from 0, and the estimate of the clean video that the step started with.

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
    noisy = initial_noise_BCTHW.float()

    def estimate_at(noisy: Tensor, level: NoiseLevel) -> Estimate:
        timestep_B = torch.full((noisy.shape[0],), level.timestep, dtype=torch.int64, device=noisy.device)
        video = predicted_video(schedule, prediction_type, denoise(noisy, level.timestep), noisy, timestep_B)
        if clip_video:
            video = video.clamp(-1, 1)
        # The noise follows from the clipped video; an estimate that does not mix to `noisy` would drift off the path.
        return Estimate(level, video, (noisy - level.signal_rate * video) / level.noise_rate)

    def draw_noise() -> Tensor:
        return torch.randn(noisy.shape, generator=noise_generator, device="cpu").to(noisy.device)

    timesteps = sampling_timesteps(schedule.num_timesteps, num_steps)
    levels = [NoiseLevel(timestep, schedule.alphas_cumprod[timestep]) for timestep in timesteps]
    previous: Estimate | None = None
    for index, level in enumerate(levels):
        estimate = estimate_at(noisy, level)
        if on_step is not None:
            on_step(index, estimate.video)
        if index + 1 < len(levels):
            noisy = _SAMPLERS[sampler](Step(noisy, estimate, previous, levels[index + 1], estimate_at, draw_noise))
            previous = estimate
    return estimate.video
