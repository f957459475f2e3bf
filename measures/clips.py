"""Do the clips move as real ones do?"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from logging_system.statistics import tensors


def chroma(video_NCTHW: Tensor) -> Tensor:
    """Return each clip's mean chroma, the largest minus the smallest of red, green and blue of a pixel: [N] float32.

    Strong guidance raises it above that of real clips (Saharia et al. 2022, section 2.3). Chroma is that of the
    hexcone model (Smith 1978); grey has 0.

    Args:
        video_NCTHW: RGB in [-1, 1].
    """
    video = video_NCTHW.float()
    return (video.amax(dim=1) - video.amin(dim=1)).flatten(1).mean(dim=1)


def ratio_to_real(measure: Callable[[Tensor], Tensor], generated_NCTHW: Tensor, real_MCTHW: Tensor) -> float | None:
    """Return the mean of a measure over the generated clips, divided by that over the real ones.

    Args:
        measure: from clips to one number each, such as [N, 3, T, H, W] to [N].

    Returns:
        The ratio, or None where the real clips have nothing of it.
    """
    real = measure(real_MCTHW).mean()
    return None if real == 0 else (measure(generated_NCTHW).mean() / real).item()


FROZEN_THRESHOLD = 2.0 / 255.0
"""Mean absolute change, as a share of the value range 0..1, below which a frame counts as a repeat of the last."""


HOLD_SIZE = 8
"""Frames are averaged down to this many pixels a side before holds are looked for: grain is no motion."""


HOLD_THRESHOLD = 0.06
"""Root mean square change of such frames, range -1 to 1, below which the hand counts as held.

In real finger-spelled clips (16 frames of 32 x 32) held letters change by 0.01 to 0.05, and a change of letters by
0.1 to 0.25; grain with a standard deviation of 0.1 adds 0.04."""


def motion_energy(video_NCTHW: Tensor) -> Tensor:
    """Return the mean squared change from frame to frame of each clip: [N] float32, for clips in [-1, 1]."""
    return video_NCTHW.float().diff(dim=2).square().flatten(1).mean(1)


def motion_energy_ratio(generated_NCTHW: Tensor, real_MCTHW: Tensor) -> float | None:
    """Return the generated clips' motion energy over the real ones': 1 is right, 0 is frozen, above 1 jitters.

    Returns:
        The ratio of the means, or None where the real clips do not move.
    """
    return ratio_to_real(motion_energy, generated_NCTHW, real_MCTHW)


def frozen_frame_percent(video_NCTHW: Tensor) -> float:
    """Return the share of frames, in percent, that hardly differ from the frame before (see FROZEN_THRESHOLD).

    Some frozen frames are right: a letter is held so that it can be read. Compare with real clips.
    """
    change = video_NCTHW.float().diff(dim=2).abs().mean(dim=(1, 3, 4)) / 2  # [-1, 1] spans 2
    return 100.0 * (change < FROZEN_THRESHOLD).float().mean().item()


def hold_share(video_NCTHW: Tensor) -> Tensor:
    """Return the share of each clip's changes of frame in which the hand is held still: [N] float32, 0 to 1.

    Letters are read while they are held: a hand that never rests cannot be read, however well it is drawn.

    Args:
        video_NCTHW: in [-1, 1].
    """
    count, _, frames, height, width = video_NCTHW.shape
    frames_MCHW = video_NCTHW.float().transpose(1, 2).flatten(0, 1)
    small_MCHW = functional.adaptive_avg_pool2d(frames_MCHW, (min(height, HOLD_SIZE), min(width, HOLD_SIZE)))
    change = small_MCHW.unflatten(0, (count, frames)).diff(dim=1).square().mean(dim=(2, 3, 4)).sqrt()
    return (change < HOLD_THRESHOLD).float().mean(dim=1)


def hold_ratio(generated_NCTHW: Tensor, real_MCTHW: Tensor) -> float | None:
    """Return the generated clips' share of holds over the real ones': 1 is right, 0 is a hand that never rests.

    Returns:
        The ratio, or None where the real clips hold nothing.
    """
    return ratio_to_real(hold_share, generated_NCTHW, real_MCTHW)


def to_unit_range(video_THWC: Tensor) -> Tensor:
    """Turn uint8 clips [..., T, H, W, 3] into float32 [..., 3, T, H, W] in [-1, 1]."""
    return video_THWC.movedim(-1, -4).to(torch.float32) / 127.5 - 1.0


def sharpness(video_NCTHW: Tensor) -> Tensor:
    """Return how much the brightness of neighbouring pixels differs in each clip, as a mean: [N], for [-1, 1]."""
    return tensors.sharpness(tensors.brightness(video_NCTHW))


def sharpness_ratio(generated_NCTHW: Tensor, real_MCTHW: Tensor) -> float | None:
    """Return the generated clips' sharpness over the real ones': 1 is right, below it blurred, above it grainy.

    Returns:
        The ratio of the means, or None where the real clips are flat.
    """
    return ratio_to_real(sharpness, generated_NCTHW, real_MCTHW)
