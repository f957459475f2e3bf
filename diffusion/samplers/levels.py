"""What every sampler works with: noise levels, estimates of the clean video, and the form of a step."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


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
