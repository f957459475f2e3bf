"""What pixels say about clips: do they move, rest, show colour and detail as real ones do, and are they copies?"""

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


def to_unit_range(video_THWC: Tensor) -> Tensor:
    """Turn uint8 clips [..., T, H, W, 3] into float32 [..., 3, T, H, W] in [-1, 1]."""
    return video_THWC.movedim(-1, -4).to(torch.float32) / 127.5 - 1.0


def ratio_to_real(measure: Callable[[Tensor], Tensor], generated_NCTHW: Tensor, real_MCTHW: Tensor) -> float | None:
    """Return the mean of a measure over the generated clips, divided by that over the real ones: 1 is right.

    `measure`: from clips in [-1, 1] to one number each, [N, 3, T, H, W] to [N].

    Returns:
        The ratio, or None where the real clips have nothing of it.
    """
    real = measure(real_MCTHW).mean()
    return None if real == 0 else (measure(generated_NCTHW).mean() / real).item()


def motion_energy(video_NCTHW: Tensor) -> Tensor:
    """Return the mean squared change from frame to frame of each clip in [-1, 1]: [N] float32; 0 is frozen."""
    return video_NCTHW.float().diff(dim=2).square().flatten(1).mean(1)


def frozen_frame_percent(video_NCTHW: Tensor) -> float:
    """Return the share of frames, in percent, that hardly differ from the frame before (see FROZEN_THRESHOLD).

    Some frozen frames are right: a letter is held so that it can be read. Compare with real clips.
    """
    change = video_NCTHW.float().diff(dim=2).abs().mean(dim=(1, 3, 4)) / 2  # [-1, 1] spans 2
    return 100.0 * (change < FROZEN_THRESHOLD).float().mean().item()


def hold_share(video_NCTHW: Tensor) -> Tensor:
    """Return the share of frame changes in which the hand is held still, of each clip in [-1, 1]: [N] float32, 0 to 1.

    Letters are read while they are held: a hand that never rests cannot be read, however well it is drawn.
    """
    count, _, frames, height, width = video_NCTHW.shape
    frames_MCHW = video_NCTHW.float().transpose(1, 2).flatten(0, 1)
    small_MCHW = functional.adaptive_avg_pool2d(frames_MCHW, (min(height, HOLD_SIZE), min(width, HOLD_SIZE)))
    change = small_MCHW.unflatten(0, (count, frames)).diff(dim=1).square().mean(dim=(2, 3, 4)).sqrt()
    return (change < HOLD_THRESHOLD).float().mean(dim=1)


def sharpness(video_NCTHW: Tensor) -> Tensor:
    """Return the mean difference in brightness of neighbouring pixels, of each clip in [-1, 1]: [N] float32.

    Blurred clips have less of it than real ones, grainy clips more.
    """
    return tensors.sharpness(tensors.brightness(video_NCTHW))


def chroma(video_NCTHW: Tensor) -> Tensor:
    """Return each clip's mean chroma, the largest minus the smallest of red, green and blue of a pixel: [N] float32.

    Strong guidance raises it above that of real clips (Saharia et al. 2022, section 2.3). Chroma is that of the
    hexcone model (Smith 1978); grey has 0.

    `video_NCTHW`: RGB in [-1, 1].
    """
    video = video_NCTHW.float()
    return (video.amax(dim=1) - video.amin(dim=1)).flatten(1).mean(dim=1)


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
    """Return which generated clips are nearer to a training clip than all but the nearest 5 % of real ones.

    About 5 % of clips that are not copies count too. Unlike the mean distance, their share shows a few copies among
    many clips.

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
