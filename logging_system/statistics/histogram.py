"""Histograms that are counted where the data lives: only the counts travel to the host."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

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
    """Return one histogram for each tensor, after a single transfer to the host for each device involved.

    Args:
        tensors: any shapes and real dtypes; computed in float32. Values that are not finite are left out. An empty
            tensor gives an empty histogram, a constant one a single bin that holds everything.
        bins: 1 to 64. More would not be visible in TensorBoard, which draws 30 at most.

    Raises:
        ValueError: ``bins`` is out of range.
    """
    if not 1 <= bins <= MAXIMUM_BINS:
        raise ValueError(f"bins is {bins}; it must be between 1 and {MAXIMUM_BINS}")
    with torch.no_grad():
        packed = [_count(tensor.detach(), bins) if tensor.numel() else None for tensor in tensors]
        rows = _to_host([row for row in packed if row is not None])
    remaining = iter(rows)
    return [_empty() if row is None else _unpack(next(remaining), bins) for row in packed]


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


def _to_host(rows: list[Tensor]) -> list[Tensor]:
    """Copy equally long rows to the host, one transfer for each device, in the order given."""
    by_device: dict[torch.device, list[int]] = {}
    for number, row in enumerate(rows):
        by_device.setdefault(row.device, []).append(number)
    result: list[Tensor] = list(rows)
    for numbers in by_device.values():
        stacked = torch.stack([rows[number] for number in numbers]).cpu()
        for number, row in zip(numbers, stacked, strict=True):
            result[number] = row
    return result


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


CHUNK_VALUES = 2**24  # values in joined copies at a time (64 MB of float32); each chunk is one transfer


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
