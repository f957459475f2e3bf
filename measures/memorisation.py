"""Are generated clips copies of training clips?"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

NEARNESS_OF_REAL = 0.05
"""Share of real held-out clips that may be nearer to a training clip than what counts as a copy."""


COMPARED_SIZE = 16
"""Clips are averaged down to this many pixels a side first: grain must not pass for a distance."""


def small_copies(video_NCTHW: Tensor) -> Tensor:
    """Return the clips in [-1, 1] averaged over space to at most COMPARED_SIZE pixels a side, flat: [N, values]."""
    frames, height, width = video_NCTHW.shape[2:]
    size = (frames, min(height, COMPARED_SIZE), min(width, COMPARED_SIZE))
    return functional.adaptive_avg_pool3d(video_NCTHW.float(), size).flatten(1)


def nearest_distances(clips_NV: Tensor, training_MV: Tensor) -> Tensor:
    """Return how far each clip is from its nearest training clip: [N].

    Args:
        clips_NV: from `small_copies`.
        training_MV: from `small_copies`, at least one clip.

    Returns:
        Root mean square difference of the values; 0 is a copy, 2 the largest possible.
    """
    distance_NM = torch.cdist(clips_NV, training_MV) / training_MV.shape[1] ** 0.5
    return distance_NM.amin(dim=1)


def are_copies(generated_N: Tensor, real_M: Tensor) -> Tensor:
    """Say of each generated clip whether it is nearer to a training clip than all but the nearest 5 % of real ones.

    Of clips that are not copies, about 5 % are. Unlike the mean distance, their share shows when a few clips among many
    are copies.

    Args:
        generated_N: nearest distances of generated clips of words that no training clip shows.
        real_M: the same of real clips of such words.

    Returns:
        [N] bool.
    """
    return generated_N < real_M.quantile(NEARNESS_OF_REAL)


def pick_for_comparison(captions: Sequence[str], wanted: Sequence[str], count: int) -> list[int]:
    """Return which training clips to compare with: those of the wanted captions first, for a copy is likeliest there.

    Args:
        captions: of the training clips.
        wanted: captions that are generated; at most half of `count` goes to them.
        count: clips to pick at most. What is left is spread evenly over all clips.

    Returns:
        Indices into `captions`, increasing, without repeats.
    """
    same = [index for index, caption in enumerate(captions) if caption in set(wanted)]
    chosen = set(_spread(same, count // 2))
    others = [index for index in range(len(captions)) if index not in chosen]
    return sorted(chosen | set(_spread(others, count - len(chosen))))


def _spread(items: Sequence[int], count: int) -> list[int]:
    if len(items) <= count:
        return list(items)
    return [items[index * len(items) // count] for index in range(count)]
