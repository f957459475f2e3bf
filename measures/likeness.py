"""How like real clips are generated ones: in what moves, and where, and as a distribution.

A hand is a small part of a picture of a person. Figures of whole frames hardly change when it dissolves, so these look
at where the real clip moves. A clip is [3, T, H, W] in [-1, 1].
"""

import math
from collections.abc import Sequence

import numpy
import torch
from torch import Tensor
from torch.nn import functional

from common.randomness import numpy_generator
from logging_system.statistics import tensors
from measures.bootstrap import CONFIDENCE, RESAMPLES, Interval
from measures.clips import at_equal_moments, shrunk

MAP_SIDE = 16
"""Cells along the longer side of a motion map: about a hand each, in a picture of a person."""

DETAIL_SIDE = 64
"""Pixels along the longer side that frames are averaged down to before detail is measured, so that figures compare from
one IMAGE_SIZE to the next."""

NEIGHBOURS = 5
"""Of the ball round each real clip in `density_coverage`, as its authors advise."""


def motion_map(clip_CTHW: Tensor) -> Tensor:
    """Return how much each part of the picture changes over time: [h, w] float32, MAP_SIDE cells along its longer side.

    The standard deviation over time of the brightness of each cell, in units of brightness (-1 to 1).
    """
    return shrunk(tensors.brightness(clip_CTHW[None])[0], MAP_SIDE).std(dim=0, correction=0)


def map_agreement(map_hw: Tensor, other_hw: Tensor) -> Tensor:
    """Return the correlation of two motion maps of one shape, a scalar: 1 is the same places, 0 unrelated ones.

    A map that is the same everywhere, such as that of a still clip, agrees with nothing: 0.
    """
    first, second = (values.flatten() - values.mean() for values in (map_hw.float(), other_hw.float()))
    norm = first.norm() * second.norm()
    return torch.where(norm > 0, first @ second / norm.clamp_min(torch.finfo(torch.float32).tiny), torch.zeros(()))


def moving_sharpness(clip_CTHW: Tensor, map_hw: Tensor) -> Tensor:
    """Return how sharp what moves is, a scalar: the detail of what differs from the clip's mean over time.

    The root mean square difference of neighbouring pixels of each frame's deviation from the mean frame, where the map
    says. What is still cancels out, and squares tell a sharp edge from the same edge spread over several frames, whose
    mean is the same. Divide by that of a real clip.

    Of clips of an avatar at 64 x 64 pixels whose hands were blurred by 1 or 2 pixels it is 0.51 or 0.28, of clips whose
    frames were averaged with one, two or three neighbours on each side 0.78, 0.68 or 0.60, each with grain so that
    whole frames were as sharp as before, and of real clips in another look 0.92.

    `map_hw`: the weights, from `motion_map` of the same clip (hands may be elsewhere than in the real one).
    """
    grey_THW = shrunk(tensors.brightness(clip_CTHW[None])[0], DETAIL_SIDE)
    moving_THW = grey_THW - grey_THW.mean(dim=0)
    down_THW = functional.pad(moving_THW.diff(dim=1).square(), (0, 0, 0, 1))
    right_THW = functional.pad(moving_THW.diff(dim=2).square(), (0, 1, 0, 0))
    return _weighted_mean(((down_THW + right_THW) / 2).mean(dim=0), map_hw).sqrt()


def moving_error(clip_CTHW: Tensor, real_CTHW: Tensor, map_hw: Tensor) -> Tensor:
    """Return the root mean square difference from a real clip where that one moves, at equal moments: a scalar.

    `map_hw`: the weights, from `motion_map(real_CTHW)`.
    """
    first, second = (at_equal_moments([clip.float()])[0] for clip in (clip_CTHW, real_CTHW))
    return _weighted_mean((first - second).square().mean(dim=(0, 1)), map_hw).sqrt()


def _weighted_mean(values_HW: Tensor, map_hw: Tensor) -> Tensor:
    """Return the mean weighted by a map; a map of a still clip weighs all the same."""
    weight_HW = functional.interpolate(map_hw[None, None].float(), values_HW.shape, mode="bilinear")[0, 0]
    total = weight_HW.sum()
    return values_HW.mean() if total == 0 else (values_HW * weight_HW).sum() / total


def clip_statistics(features: Sequence[Tensor]) -> Tensor:
    """Return one vector a clip for the figures below: mean and deviation over time of its features: [N, 2 F].

    `features`: [T', F] each, from `measures.retrieval.clip_features`.
    """
    return torch.stack([torch.cat([clip.mean(dim=0), clip.std(dim=0, correction=0)]) for clip in features])


def kernel_distance(
    features_NF: Tensor,
    features_MF: Tensor,
    seed: int,
    captions: tuple[Sequence[str], Sequence[str]] | None = None,
) -> Interval:
    """Return how far two sets of clips are apart as distributions: the kernel distance of Binkowski et al. (2018).

    The unbiased estimate of the squared maximum mean discrepancy with the kernel (x . y / F + 1)^3. It is 0 on average
    for two sets from one distribution, and may then be negative. Unlike a Frechet distance it needs no more clips than
    features.

    Args:
        features_NF: of the generated clips, at least two.
        features_MF: of the real clips, at least two.
        seed: of the resampling, for the 95 % interval; none of two captions.
        captions: of both sets, where captions occur more than once. Clips of one caption are no independent draws, so
            they are drawn together and not paired with each other: two sets of the same captions would seem nearer
            than two sets of one distribution. None: all clips have captions of their own.
    """
    sets = [features.cpu().numpy().astype(numpy.float64) for features in (features_NF, features_MF)]
    names = list(range(sum(map(len, sets)))) if captions is None else [*captions[0], *captions[1]]
    different, name_X = numpy.unique(names, return_inverse=True)
    count = len(different)
    names_of = (name_X[: len(sets[0])], name_X[len(sets[0]) :])
    parts = []
    for one, other, weight in ((0, 0, 1), (1, 1, 1), (0, 1, -2)):
        kernel = (sets[one] @ sets[other].T / sets[one].shape[1] + 1) ** 3
        kernel_CC = _summed(_summed(kernel, names_of[one], count).T, names_of[other], count)
        pairs_CC = numpy.multiply.outer(*(numpy.bincount(names_of[each], minlength=count) for each in (other, one)))
        for matrix in (kernel_CC, pairs_CC):
            numpy.fill_diagonal(matrix, 0)
        parts.append((kernel_CC, pairs_CC.astype(numpy.float64), weight))

    def discrepancy(drawn_C: numpy.ndarray) -> float:
        total = 0.0
        for kernel_CC, pairs_CC, weight in parts:
            mass = drawn_C @ pairs_CC @ drawn_C
            if mass == 0:
                return math.nan
            total += weight * float(drawn_C @ kernel_CC @ drawn_C / mass)
        return total

    if count < 3:  # a single pair
        return Interval(discrepancy(numpy.ones(count)), None, None)
    generator = numpy_generator(seed, "kernel_distance")
    drawn = (numpy.bincount(generator.integers(0, count, count), minlength=count) for _ in range(RESAMPLES))
    resampled = [discrepancy(drawn_C.astype(numpy.float64)) for drawn_C in drawn]
    tail = (1 - CONFIDENCE) / 2
    low, high = numpy.nanquantile(resampled, (tail, 1 - tail)).tolist()
    return Interval(discrepancy(numpy.ones(count)), low, high)


def _summed(values_NX: numpy.ndarray, name_N: numpy.ndarray, count: int) -> numpy.ndarray:
    """Return the sums of the rows of each of `count` names: [count, X]."""
    order = numpy.argsort(name_N, kind="stable")
    found, starts = numpy.unique(name_N[order], return_index=True)
    sums = numpy.zeros((count, values_NX.shape[1]))
    sums[found] = numpy.add.reduceat(values_NX[order], starts, axis=0)
    return sums


def frechet_distance(generated_NF: Tensor, real_MF: Tensor) -> float:
    """Return the Fréchet distance of two Gaussians with the means and covariances of some features; 0 is the same.

    Dowson and Landau 1982, as Heusel et al. 2017 (equation 6) use it for pictures. The trace of the root of the product
    of two covariances is the sum of the singular values of the product of the centred features, so that no root of a
    matrix is taken, which few clips would make inexact.

    Args:
        generated_NF: [N, F] float, N at least 2.
        real_MF: [M, F], M at least 2.

    Raises:
        ValueError: one of the sets has fewer than two clips.
    """
    if min(len(generated_NF), len(real_MF)) < 2:
        raise ValueError("a Fréchet distance takes two clips of each kind at least")
    means, centred = [], []
    for features in (generated_NF.cpu().numpy(), real_MF.cpu().numpy()):
        means.append(features.mean(axis=0, dtype=numpy.float64))
        centred.append((features - means[-1]) / (len(features) - 1) ** 0.5)
    variances = sum(numpy.square(each).sum() for each in centred)
    shared = numpy.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum()
    return float(numpy.square(means[0] - means[1]).sum() + variances - 2 * shared)


def density_coverage(generated_NF: Tensor, real_MF: Tensor) -> tuple[float, float]:
    """Return density and coverage (Naeem et al. 2020) with the balls round real clips that reach NEIGHBOURS others.

    Density is the mean number of balls that a generated clip lies in, divided by NEIGHBOURS: about 1 where clips are
    as real ones, lower where they are not, larger where they crowd in the middle. Coverage is the share of the balls
    with a generated clip in them: lower where kinds of clips are missing.

    Raises:
        ValueError: fewer real clips than a ball has.
    """
    if len(real_MF) <= NEIGHBOURS:
        raise ValueError(f"there are {len(real_MF)} real clips; density and coverage need more than {NEIGHBOURS}")
    radius_M = torch.cdist(real_MF, real_MF).kthvalue(NEIGHBOURS + 1, dim=1).values  # the first is the clip itself
    inside_NM = torch.cdist(generated_NF, real_MF) < radius_M
    return inside_NM.float().sum(dim=1).mean().item() / NEIGHBOURS, inside_NM.any(dim=0).float().mean().item()
