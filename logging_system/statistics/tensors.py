"""Figures and histograms of tensors, computed where the data lives: only the results travel to the host."""

import dataclasses
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


MAXIMUM_BINS = 64


@dataclass(frozen=True)
class Histogram:
    """Counts of finite values in equal bins between the smallest and the largest.

    ``bucket_limits[i]`` is the upper end of bin ``i``; the first bin starts at ``minimum``. Without any finite value
    the count is 0 and both lists are empty.
    """

    minimum: float
    maximum: float
    count: float
    sum: float
    sum_of_squares: float
    bucket_limits: list[float]
    bucket_counts: list[float]


def device_histograms(tensors: Sequence[Tensor], bins: int) -> list[Histogram]:
    """Return one histogram for each tensor, after a single transfer to the host.

    Args:
        tensors: on one device, of any shapes and real dtypes; computed in float32. Values that are not finite are left
            out. An empty tensor gives an empty histogram, a constant one a single bin that holds everything.
        bins: 1 to 64. More would not be visible in TensorBoard, which draws 30 at most.

    Raises:
        ValueError: ``bins`` is out of range.
    """
    if not 1 <= bins <= MAXIMUM_BINS:
        raise ValueError(f"bins is {bins}; it must be between 1 and {MAXIMUM_BINS}")
    with torch.no_grad():
        packed = [_count(tensor.detach(), bins) for tensor in tensors if tensor.numel()]
    rows = iter(torch.stack(packed).cpu() if packed else ())
    return [_unpack(next(rows), bins) if tensor.numel() else _empty() for tensor in tensors]


def _count(tensor: Tensor, bins: int) -> Tensor:
    """Return int32 [4 + bins]: the bits of minimum, maximum, sum and sum of squares (float32), then the counts.

    Reinterpreting the bits lets exact counts and float statistics share one transfer.
    """
    values = tensor.reshape(-1).float()
    finite = values.isfinite()
    clean = torch.where(finite, values, 0.0)
    minimum = torch.where(finite, values, math.inf).amin()
    maximum = torch.where(finite, values, -math.inf).amax()
    # Halving first keeps the width finite even between the two largest float32 numbers.
    width = maximum * 0.5 - minimum * 0.5
    position = (clean * 0.5 - minimum * 0.5) / torch.where(width > 0, width, 1.0)
    index = (position * bins).clamp(0, bins - 1)
    index = torch.where(finite, index, float(bins)).to(torch.int64)  # one extra bin takes what is not finite
    counts = torch.zeros(bins + 1, dtype=torch.int32, device=values.device)
    counts.scatter_add_(0, index, torch.ones_like(index, dtype=torch.int32))
    statistics = torch.stack([minimum, maximum, clean.sum(), clean.square().sum()])
    return torch.cat([statistics.view(torch.int32), counts[:bins]])


def _unpack(row: Tensor, bins: int) -> Histogram:
    minimum, maximum, total, squares = row[:4].view(torch.float32).tolist()
    counts = [float(count) for count in row[4:].tolist()]
    count = sum(counts)
    if count == 0:
        return _empty()
    if minimum == maximum:
        return Histogram(minimum, maximum, count, total, squares, [maximum], [count])
    limits = [minimum + (maximum - minimum) * (number + 1) / bins for number in range(bins - 1)]
    return Histogram(minimum, maximum, count, total, squares, [*limits, maximum], counts)


def _empty() -> Histogram:
    return Histogram(0.0, 0.0, 0.0, 0.0, 0.0, [], [])


def layer_histograms(layers: Sequence[Sequence[Tensor]], bins: int) -> list[Histogram]:
    """Return a histogram for each layer, over its tensors taken as one."""
    histograms: list[Histogram] = []
    chunk: list[Tensor] = []
    held = 0
    for tensors in layers:
        size = sum(tensor.numel() for tensor in tensors)
        if chunk and held + size > CHUNK_VALUES:
            histograms.extend(device_histograms(chunk, bins))
            chunk, held = [], 0
        flat = [tensor.detach().reshape(-1).float() for tensor in tensors]
        chunk.append(flat[0] if len(flat) == 1 else torch.cat(flat))
        held += size
    return [*histograms, *device_histograms(chunk, bins)]


def scaled(histogram: Histogram, factor: float) -> Histogram:
    """Return the histogram of the same values times a positive `factor`."""
    return dataclasses.replace(
        histogram,
        minimum=histogram.minimum * factor,
        maximum=histogram.maximum * factor,
        sum=histogram.sum * factor,
        sum_of_squares=histogram.sum_of_squares * factor**2,
        bucket_limits=[limit * factor for limit in histogram.bucket_limits],
    )


LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
GREY_LEVEL = 2 / 255  # one step of an 8-bit picture in the range -1 to 1


def video_quality(video_BCTHW: Tensor) -> dict[str, Tensor]:
    """Return four scalars on the device that expose grey, blurred or frozen data, in units of brightness (-1 to 1).

    Contrast is the standard deviation of a frame's brightness, Sharpness the mean absolute difference of neighbouring
    pixels. Clips of two frames and more also have Motion_Energy, the mean absolute change from frame to frame, and
    Frozen_Frame_Percent, as a share: frame pairs in which no pixel changes by more than one grey level.

    `video_BCTHW`: RGB in [-1, 1], any float dtype. Clips with a non-finite value are the caller's to leave out.
    """
    brightness_BTHW = brightness(video_BCTHW)
    quality = {
        "Contrast": brightness_BTHW.flatten(2).std(dim=2, correction=0).mean(),
        "Sharpness": sharpness(brightness_BTHW).mean(),
    }
    if brightness_BTHW.shape[1] > 1:
        change_BTHW = (brightness_BTHW[:, 1:] - brightness_BTHW[:, :-1]).abs()
        quality["Motion_Energy"] = change_BTHW.mean()
        quality["Frozen_Frame_Percent"] = (change_BTHW.amax(dim=(2, 3)) <= GREY_LEVEL).float().mean()
    return quality


def brightness(video_BCTHW: Tensor) -> Tensor:
    """Return the brightness of every pixel: [B, T, H, W] float32, on the device."""
    weights = torch.tensor(LUMA, device=video_BCTHW.device)
    return torch.einsum("bcthw,c->bthw", video_BCTHW.detach().float(), weights)


def sharpness(brightness_BTHW: Tensor) -> Tensor:
    """Return the mean absolute difference of neighbouring pixels of each clip: [B] float32, on the device."""
    horizontal = (brightness_BTHW[..., 1:] - brightness_BTHW[..., :-1]).abs().flatten(1).mean(dim=1)
    vertical = (brightness_BTHW[..., 1:, :] - brightness_BTHW[..., :-1, :]).abs().flatten(1).mean(dim=1)
    return (horizontal + vertical) / 2
