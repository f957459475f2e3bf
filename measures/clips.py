"""What pixels say about clips: do they move, rest, show colour and detail as real ones do, and are they copies?

A clip is [3, T, H, W] in [-1, 1]; several may have different lengths.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from logging_system.statistics import tensors

FROZEN_THRESHOLD = 2.0 / 255.0
"""Mean absolute change, as a share of the value range 0..1, below which a frame counts as a repeat of the last."""

HOLD_SIZE = 8
"""Frames are averaged down to this many pixels a side before holds are looked for: grain is no motion."""

HOLD_THRESHOLD = 0.06
"""Root mean square change of such frames, range -1 to 1, below which the hand counts as held.

In real finger-spelled clips (16 frames of 32 x 32) held letters change by 0.01 to 0.05, and a change of letters by
0.1 to 0.25; grain with a standard deviation of 0.1 adds 0.04."""

NEARNESS_OF_REAL = 0.05
"""Share of real held-out clips that may be nearer to a training clip than what counts as a copy."""

COMPARED_SIZE = 16
"""Clips are averaged down to this many pixels a side before they are compared: grain must not count as distance."""

COMPARED_FRAMES = 16
"""Clips of any length are compared at this many moments, evenly spread over each."""


def mean_of(measure: Callable[[Tensor], Tensor], clips: Sequence[Tensor]) -> float:
    """Return the mean over clips of a measure from a clip to a number."""
    return torch.stack([measure(clip) for clip in clips]).mean().item()


def ratio_to_real(
    measure: Callable[[Tensor], Tensor], generated: Sequence[Tensor], real: Sequence[Tensor]
) -> float | None:
    """Return the mean of a measure over the generated clips, divided by that over the real ones: 1 is right.

    `measure`: from a clip to a number.

    Returns:
        The ratio, or None where the real clips have nothing of it.
    """
    of_real = mean_of(measure, real)
    return None if of_real == 0 else mean_of(measure, generated) / of_real


def motion_energy(clip_CTHW: Tensor) -> Tensor:
    """Return the mean squared change from frame to frame, a scalar; 0 is frozen."""
    return clip_CTHW.float().diff(dim=1).square().mean()


def frozen_share(clip_CTHW: Tensor) -> Tensor:
    """Return the share of frames that hardly differ from the frame before (see FROZEN_THRESHOLD), a scalar.

    Some frozen frames are right: a letter is held so that it can be read. Compare with real clips.
    """
    change_T = clip_CTHW.float().diff(dim=1).abs().mean(dim=(0, 2, 3)) / 2  # [-1, 1] spans 2
    return (change_T < FROZEN_THRESHOLD).float().mean()


def hold_share(clip_CTHW: Tensor) -> Tensor:
    """Return the share of frame changes in which the hand is held still, a scalar from 0 to 1.

    Letters are read while they are held: a hand that never rests cannot be read, however well it is drawn.
    """
    return (~_hand_moves(clip_CTHW)).float().mean()


def moving_frames(clip_CTHW: Tensor) -> Tensor:
    """Return in which frames the hand comes from elsewhere or goes elsewhere: [T] bool. In the others it is held."""
    moves = functional.pad(_hand_moves(clip_CTHW), (1, 1))
    return moves[:-1] | moves[1:]


def _hand_moves(clip_CTHW: Tensor) -> Tensor:
    """Return at which frame changes the hand is not held: [T - 1] bool."""
    height, width = clip_CTHW.shape[2:]
    small_TCHW = functional.adaptive_avg_pool2d(
        clip_CTHW.float().transpose(0, 1), (min(height, HOLD_SIZE), min(width, HOLD_SIZE))
    )
    return small_TCHW.diff(dim=0).square().mean(dim=(1, 2, 3)).sqrt() >= HOLD_THRESHOLD


def sharpness(clip_CTHW: Tensor) -> Tensor:
    """Return the mean difference in brightness of neighbouring pixels, a scalar.

    Blurred clips have less of it than real ones, grainy clips more.
    """
    return tensors.sharpness(tensors.brightness(clip_CTHW[None]))[0]


def chroma(clip_CTHW: Tensor) -> Tensor:
    """Return the mean chroma, the largest minus the smallest of red, green and blue of a pixel, a scalar.

    Strong guidance raises it above that of real clips (Saharia et al. 2022, section 2.3). Chroma is that of the
    hexcone model (Smith 1978); grey has 0.
    """
    clip = clip_CTHW.float()
    return (clip.amax(dim=0) - clip.amin(dim=0)).mean()


def at_moments(clip_CTHW: Tensor, count: int) -> Tensor:
    """Return the frames at so many moments, evenly spread over a clip: [C, count, H, W]; a short clip's repeat."""
    moments = (2 * torch.arange(count, device=clip_CTHW.device) + 1) * clip_CTHW.shape[1] // (2 * count)
    return clip_CTHW[:, moments]


def at_equal_moments(clips: Sequence[Tensor]) -> Tensor:
    """Return the frames of clips at COMPARED_FRAMES moments: [N, 3, COMPARED_FRAMES, H, W], see `at_moments`."""
    return torch.stack([at_moments(clip, COMPARED_FRAMES) for clip in clips])


def small_copies(clips: Sequence[Tensor]) -> Tensor:
    """Return clips averaged to COMPARED_FRAMES moments and at most COMPARED_SIZE pixels a side, flat: [N, values]."""
    height, width = clips[0].shape[2:]
    size = (COMPARED_FRAMES, min(height, COMPARED_SIZE), min(width, COMPARED_SIZE))
    return torch.stack([functional.adaptive_avg_pool3d(clip.float(), size).flatten() for clip in clips])


def shrunk(grey_THW: Tensor, side: int) -> Tensor:
    """Average frames down to `side` pixels along the longer side; smaller ones stay as they are."""
    height, width = grey_THW.shape[1:]
    shrink = min(1.0, side / max(height, width))
    size = (max(1, round(height * shrink)), max(1, round(width * shrink)))
    return functional.adaptive_avg_pool2d(grey_THW[:, None], size)[:, 0]


def clip_distances(clips_NV: Tensor, training_MV: Tensor) -> Tensor:
    """Return how far each clip is from each training clip: [N, M].

    Args:
        clips_NV: from `small_copies`.
        training_MV: from `small_copies`, at least one clip.

    Returns:
        Root mean square difference of the values; 0 is a copy, 2 the largest possible.
    """
    return torch.cdist(clips_NV, training_MV) / training_MV.shape[1] ** 0.5


def nearest_distances(clips_NV: Tensor, training_MV: Tensor) -> Tensor:
    """Return how far each clip is from its nearest training clip: [N], see `clip_distances`."""
    return clip_distances(clips_NV, training_MV).amin(dim=1)


def share_by_chance(real: int) -> float:
    """Return which share of the clips `are_copies` says are copies on average, where none is one: 0.05 of many.

    `real`: clips that it compares with. The quantile lies between two of them, and a clip like them is as likely to
    fall between any two.
    """
    return (1 + NEARNESS_OF_REAL * (real - 1)) / (real + 1)


def are_copies(generated_N: Tensor, real_M: Tensor) -> Tensor:
    """Return which generated clips are nearer to a training clip than all but the nearest 5 % of real ones.

    About 5 % of clips that are not copies count too (`share_by_chance`). Unlike the mean distance, their share shows a
    few copies among many clips.

    Args:
        generated_N: nearest distances of generated clips of words that no training clip shows.
        real_M: the same of real clips of such words.

    Returns:
        [N] bool.
    """
    return generated_N < real_M.quantile(NEARNESS_OF_REAL)


def pick_for_comparison(captions: Sequence[str], wanted: Sequence[str], count: int) -> list[int]:
    """Return which training clips to compare with: first those of the wanted captions, where copies are likeliest.

    Args:
        captions: of the training clips.
        wanted: captions that are generated; at most half of `count` goes to them. The rest is spread over all clips.
        count: the most clips to pick.

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
