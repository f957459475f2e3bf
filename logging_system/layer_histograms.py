"""One histogram a layer over all of its tensors."""

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from logging_system.histogram import Histogram, device_histograms

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
