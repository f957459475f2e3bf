"""How much noise each timestep has, and which timesteps a batch is noised to."""

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Literal

import torch
from torch import Tensor

NoiseScheduleName = Literal["linear", "cosine", "sigmoid", "quadratic"]

# Ho et al. 2020, section 4, chose these for 1000 timesteps.
_LINEAR_FIRST_BETA = 1e-4
_LINEAR_LAST_BETA = 0.02
_LINEAR_TIMESTEPS = 1000
_COSINE_OFFSET = 0.008  # Nichol & Dhariwal 2021, section 3.2
_SIGMOID_START, _SIGMOID_END = -3.0, 3.0  # Jabri et al. 2022, temperature 1
_LARGEST_BETA = 0.999  # Nichol & Dhariwal 2021, section 3.2


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """The tables of one schedule of N timesteps. Build it with :func:`build_noise_schedule`.

    The square roots are taken in float64 before rounding: ``1 - alphas_cumprod`` in float32 would lose most of its
    digits at the first timesteps. `alphas_cumprod` holds the unrounded values on the host, so that samplers work out
    their coefficients in float64 on every device and without waiting for one.
    """

    alphas_cumprod: tuple[float, ...]  # N float64 values, strictly decreasing, in [0, 1)
    has_zero_terminal_snr: bool  # alphas_cumprod is exactly 0 at timestep N - 1, and nowhere else
    betas_N: Tensor  # float32, 1 - alphas_cumprod[t] / alphas_cumprod[t - 1], in (0, 1]
    alphas_cumprod_N: Tensor  # float32, the share of signal power
    sqrt_alphas_cumprod_N: Tensor  # float32, the factor of the clean video
    sqrt_one_minus_alphas_cumprod_N: Tensor  # float32, the factor of the noise, never 0

    @property
    def num_timesteps(self) -> int:
        return len(self.alphas_cumprod)

    def rates(self, timestep_B: Tensor) -> tuple[Tensor, Tensor]:
        """Return the factors of the clean video and of the noise for each clip of a batch: two times [B]."""
        return (
            self.sqrt_alphas_cumprod_N.index_select(0, timestep_B),
            self.sqrt_one_minus_alphas_cumprod_N.index_select(0, timestep_B),
        )

    def to(self, device: torch.device | str) -> "NoiseSchedule":
        """Return the same schedule with its tensors on `device`."""
        return replace(
            self,
            betas_N=self.betas_N.to(device),
            alphas_cumprod_N=self.alphas_cumprod_N.to(device),
            sqrt_alphas_cumprod_N=self.sqrt_alphas_cumprod_N.to(device),
            sqrt_one_minus_alphas_cumprod_N=self.sqrt_one_minus_alphas_cumprod_N.to(device),
        )


def build_noise_schedule(
    name: NoiseScheduleName, *, num_timesteps: int, zero_terminal_snr: bool, shift: float = 1.0
) -> NoiseSchedule:
    """Build a schedule, with its tensors on the CPU.

    Args:
        name: ``linear``: betas evenly spaced from 1e-4 to 0.02 (Ho et al. 2020). ``quadratic``: the square roots of
            those betas evenly spaced (Song et al. 2021, DDIM, appendix D). Both are multiplied by 1000 / N, so that
            the last timestep is about as noisy for every N. ``cosine``: Nichol & Dhariwal 2021, equation 17.
            ``sigmoid``: Jabri et al. 2022, from -3 to 3. No beta exceeds 0.999.
        num_timesteps: N, at least 2.
        zero_terminal_snr: shift and scale the square roots so that nothing of the clean video is left at the last
            timestep (Lin et al. 2023, algorithm 1). Sampling starts from pure noise, so training should see it too.
        shift: the signal-to-noise ratio of every timestep is divided by shift ** 2, so that above 1 more timesteps are
            noisy ones (Hoogeboom et al. 2023, simple diffusion, arXiv 2301.11093, section 2.1). The frames of a clip
            repeat each other, as the pixels of a large image do: at a given noise level they hide less than one frame.

    Raises:
        ValueError: an unknown name, fewer than 2 timesteps, or a shift that is not above 0.
    """
    if num_timesteps < 2:
        raise ValueError(f"num_timesteps must be at least 2, not {num_timesteps}")
    if not 0 < shift < math.inf:
        raise ValueError(f"shift must be a finite number above 0, not {shift}")
    if name not in _BETAS:
        raise ValueError(f"unknown noise schedule {name!r}; choose from {', '.join(_BETAS)}")
    alphas_cumprod = list(accumulate((1 - beta for beta in _BETAS[name](num_timesteps)), operator.mul))
    if zero_terminal_snr:
        alphas_cumprod = _rescale_to_zero_terminal_snr(alphas_cumprod)
    alphas_cumprod = [value / (value + shift**2 * (1 - value)) for value in alphas_cumprod]
    return NoiseSchedule(
        alphas_cumprod=tuple(alphas_cumprod),
        has_zero_terminal_snr=zero_terminal_snr,
        betas_N=_table([1 - after / before for before, after in pairwise([1.0, *alphas_cumprod])]),
        alphas_cumprod_N=_table(alphas_cumprod),
        sqrt_alphas_cumprod_N=_table([math.sqrt(value) for value in alphas_cumprod]),
        sqrt_one_minus_alphas_cumprod_N=_table([math.sqrt(1 - value) for value in alphas_cumprod]),
    )


def stratified_timesteps(count: int, num_timesteps: int, generator: torch.Generator) -> Tensor:
    """Draw training timesteps: int64 [count] on the CPU, in 0 to num_timesteps - 1.

    The range is cut into `count` equal strata and each gives one draw, in random order (Kingma et al. 2021,
    appendix I.1, describe such low-discrepancy draws). Every timestep has the same probability, and the loss varies
    less from step to step than with independent draws. Draw once for all clips of a step: the random order
    gives each micro-batch a mixture.

    `generator`: a CPU generator.

    Raises:
        ValueError: `count` or `num_timesteps` is below 1.
    """
    _check_counts(count, num_timesteps)
    stratum = torch.randperm(count, generator=generator)
    offset = torch.rand(count, generator=generator, dtype=torch.float64)
    timestep = ((stratum + offset) / count * num_timesteps).long()
    return timestep.clamp(max=num_timesteps - 1)  # the product may round up to num_timesteps


def evenly_spaced_timesteps(count: int, num_timesteps: int) -> Tensor:
    """Return the centres of `count` equal bins, ascending: int64 [count] on the CPU, the same at every call.

    With more bins than timesteps, neighbouring bins share a centre.

    Raises:
        ValueError: `count` or `num_timesteps` is below 1.
    """
    _check_counts(count, num_timesteps)
    return torch.tensor([(2 * index + 1) * num_timesteps // (2 * count) for index in range(count)], dtype=torch.int64)


def _check_counts(count: int, num_timesteps: int) -> None:
    if count < 1 or num_timesteps < 1:
        raise ValueError(f"count ({count}) and num_timesteps ({num_timesteps}) must both be at least 1")


def _linear_betas(num_timesteps: int) -> list[float]:
    scale = _LINEAR_TIMESTEPS / num_timesteps
    spaced = _evenly_spaced(_LINEAR_FIRST_BETA, _LINEAR_LAST_BETA, num_timesteps)
    return [min(scale * beta, _LARGEST_BETA) for beta in spaced]


def _quadratic_betas(num_timesteps: int) -> list[float]:
    scale = _LINEAR_TIMESTEPS / num_timesteps
    spaced = _evenly_spaced(math.sqrt(_LINEAR_FIRST_BETA), math.sqrt(_LINEAR_LAST_BETA), num_timesteps)
    return [min(scale * root**2, _LARGEST_BETA) for root in spaced]


def _cosine_betas(num_timesteps: int) -> list[float]:
    def signal_power(time: float) -> float:
        return math.cos((time + _COSINE_OFFSET) / (1 + _COSINE_OFFSET) * math.pi / 2) ** 2

    return _betas_from_signal_power(signal_power, num_timesteps)


def _sigmoid_betas(num_timesteps: int) -> list[float]:
    def signal_power(time: float) -> float:
        return _sigmoid(_SIGMOID_END) - _sigmoid(_SIGMOID_START + time * (_SIGMOID_END - _SIGMOID_START))

    return _betas_from_signal_power(signal_power, num_timesteps)


def _betas_from_signal_power(signal_power: Callable[[float], float], num_timesteps: int) -> list[float]:
    """Read betas off a curve over time 0..1; its scale cancels (Nichol & Dhariwal 2021, section 3.2)."""
    powers = [signal_power(step / num_timesteps) for step in range(num_timesteps + 1)]
    return [min(1 - after / before, _LARGEST_BETA) for before, after in pairwise(powers)]


def _rescale_to_zero_terminal_snr(alphas_cumprod: list[float]) -> list[float]:
    """Lin et al. 2023, algorithm 1: the last root becomes 0 and the first stays as it is."""
    roots = [math.sqrt(value) for value in alphas_cumprod]
    scale = roots[0] / (roots[0] - roots[-1])
    return [((root - roots[-1]) * scale) ** 2 for root in roots]


def _evenly_spaced(first: float, last: float, count: int) -> list[float]:
    return [first + (last - first) * index / (count - 1) for index in range(count)]


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def _table(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


_BETAS: dict[NoiseScheduleName, Callable[[int], list[float]]] = {
    "linear": _linear_betas,
    "quadratic": _quadratic_betas,
    "cosine": _cosine_betas,
    "sigmoid": _sigmoid_betas,
}
