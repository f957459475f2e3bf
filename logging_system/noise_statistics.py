"""Correlation of predicted and actual noise, pooled over clips without losing precision."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ClipMoments:
    """Moments of one clip's predicted and actual noise over its values (population variances)."""

    predicted_mean: float
    actual_mean: float
    predicted_variance: float
    actual_variance: float
    covariance: float

    @property
    def is_finite(self) -> bool:
        return all(math.isfinite(value) for value in vars(self).values())


def clip_moments(predicted_BX: Tensor, actual_BX: Tensor) -> Tensor:
    """Return float32 [B, 5] in the order of `ClipMoments`, on the device; any shapes that begin with B."""
    predicted = predicted_BX.detach().float().flatten(1)
    actual = actual_BX.detach().float().flatten(1)
    predicted_mean, actual_mean = predicted.mean(1), actual.mean(1)
    predicted_centred = predicted - predicted_mean[:, None]
    actual_centred = actual - actual_mean[:, None]
    return torch.stack(
        [
            predicted_mean,
            actual_mean,
            predicted_centred.square().mean(1),
            actual_centred.square().mean(1),
            (predicted_centred * actual_centred).mean(1),
        ],
        dim=1,
    )


def pooled_correlation(clips: Sequence[ClipMoments]) -> float | None:
    """Return Pearson's correlation over all values of all clips, which are equally long.

    None where it is not defined: no clip whose moments are finite, or one side is constant.
    """
    finite = [clip for clip in clips if clip.is_finite]
    if not finite:
        return None
    number = len(finite)
    predicted_mean = sum(clip.predicted_mean for clip in finite) / number
    actual_mean = sum(clip.actual_mean for clip in finite) / number
    predicted_variance = actual_variance = covariance = 0.0
    for clip in finite:  # within clips plus between clips
        predicted_offset, actual_offset = clip.predicted_mean - predicted_mean, clip.actual_mean - actual_mean
        predicted_variance += (clip.predicted_variance + predicted_offset**2) / number
        actual_variance += (clip.actual_variance + actual_offset**2) / number
        covariance += (clip.covariance + predicted_offset * actual_offset) / number
    if predicted_variance <= 0 or actual_variance <= 0:
        return None
    return covariance / math.sqrt(predicted_variance * actual_variance)
