"""Mean, spread, norm and counts of many tensors, with one transfer from the device for all of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK_VALUES = 2**24  # values held in temporary copies at a time (64 MB of float32)


@dataclass(frozen=True)
class TensorStatistics:
    """Figures of one tensor, or of several taken as one. All but the counts are over the finite values."""

    count: int  # finite values
    mean: float  # NaN when no value is finite, as are `norm` and `std`
    std: float  # divides by count, not count - 1
    norm: float  # Euclidean
    zeros: int
    non_finite: int


def tensor_statistics(
    tensors: Sequence[Tensor], extra: Sequence[Tensor] = ()
) -> tuple[list[TensorStatistics], list[float]]:
    """Return the statistics of every tensor, and the values of the `extra` scalars, which share the transfer.

    The spread is measured around each tensor's mean: E[x^2] - E[x]^2 in float32 would lose the spread of weights
    that lie close to 1. Only a tensor with a non-finite value costs a second look, and a second transfer.
    """
    flat = [tensor.detach().float() for tensor in tensors]
    means = [tensor.mean() for tensor in flat]
    spreads = _centred_norms(flat, means)
    zero_shares = [1 - torch.count_nonzero(tensor) / tensor.numel() for tensor in flat]
    scalars = [*means, *spreads, *zero_shares, *(value.detach().float().reshape(()) for value in extra)]
    values: list[float] = torch.stack(scalars).tolist() if scalars else []
    number = len(flat)
    statistics = []
    for index, tensor in enumerate(flat):
        mean, spread, zero_share = values[index], values[number + index], values[2 * number + index]
        if math.isfinite(mean) and math.isfinite(spread):
            statistics.append(_from_moments(tensor.numel(), mean, spread, round(zero_share * tensor.numel()), 0))
        else:
            statistics.append(_finite_part(tensor))
    return statistics, values[3 * number :]


def merge_statistics(parts: Sequence[TensorStatistics]) -> TensorStatistics:
    """Return the statistics of the concatenated tensors (Chan, Golub and LeVeque 1979, eq. 2.1)."""
    non_finite = sum(part.non_finite for part in parts)
    zeros = sum(part.zeros for part in parts)
    finite = [part for part in parts if part.count]
    count = sum(part.count for part in finite)
    if not count:
        return TensorStatistics(0, math.nan, math.nan, math.nan, zeros, non_finite)
    mean = sum(part.mean * part.count for part in finite) / count
    squares = sum(part.count * (part.std**2 + (part.mean - mean) ** 2) for part in finite)
    return _from_moments(count, mean, math.sqrt(squares), zeros, non_finite)


def _centred_norms(tensors: Sequence[Tensor], means: Sequence[Tensor]) -> list[Tensor]:
    norms: list[Tensor] = []
    start = 0
    while start < len(tensors):
        stop, held = start + 1, tensors[start].numel()
        while stop < len(tensors) and held + tensors[stop].numel() <= CHUNK_VALUES:
            held += tensors[stop].numel()
            stop += 1
        centred = [tensor - mean for tensor, mean in zip(tensors[start:stop], means[start:stop], strict=True)]
        norms.extend(torch._foreach_norm(centred))
        start = stop
    return norms


def _finite_part(tensor: Tensor) -> TensorStatistics:
    finite = tensor[torch.isfinite(tensor)]
    non_finite = tensor.numel() - finite.numel()
    if not finite.numel():
        return TensorStatistics(0, math.nan, math.nan, math.nan, 0, non_finite)
    # Scaled before it is squared: values beyond 1e19 are finite, and their float32 squares are not.
    largest = finite.abs().max().clamp_min(torch.finfo(torch.float32).tiny)
    scaled = finite / largest
    mean = scaled.mean()
    spread = torch.linalg.vector_norm(scaled - mean)
    zeros = finite.numel() - torch.count_nonzero(finite)
    scale, scaled_mean, scaled_spread, number_of_zeros = torch.stack([largest, mean, spread, zeros.float()]).tolist()
    return _from_moments(finite.numel(), scaled_mean * scale, scaled_spread * scale, round(number_of_zeros), non_finite)


def _from_moments(count: int, mean: float, spread: float, zeros: int, non_finite: int) -> TensorStatistics:
    """`spread` is the Euclidean norm of the values minus their mean."""
    norm = math.hypot(spread, mean * math.sqrt(count))
    return TensorStatistics(count, mean, spread / math.sqrt(count), norm, zeros, non_finite)
