"""Do the clips move as real ones do?"""

import torch
from torch import Tensor

FROZEN_THRESHOLD = 2.0 / 255.0
"""Mean absolute change, as a share of the value range 0..1, below which a frame counts as a repeat of the last."""


def motion_energy(video_NCTHW: Tensor) -> Tensor:
    """Return the mean squared change from frame to frame of each clip: [N] float32, for clips in [-1, 1]."""
    return video_NCTHW.float().diff(dim=2).square().flatten(1).mean(1)


def motion_energy_ratio(generated_NCTHW: Tensor, real_MCTHW: Tensor) -> float | None:
    """Return the generated clips' motion energy over the real ones': 1 is right, 0 is frozen, above 1 jitters.

    Returns:
        The ratio of the means, or None where the real clips do not move.
    """
    real = motion_energy(real_MCTHW).mean()
    return None if real == 0 else (motion_energy(generated_NCTHW).mean() / real).item()


def frozen_frame_percent(video_NCTHW: Tensor) -> float:
    """Return the share of frames, in percent, that hardly differ from the frame before (see FROZEN_THRESHOLD).

    Some frozen frames are right: a letter is held so that it can be read. Compare with real clips.
    """
    change = video_NCTHW.float().diff(dim=2).abs().mean(dim=(1, 3, 4)) / 2  # [-1, 1] spans 2
    return 100.0 * (change < FROZEN_THRESHOLD).float().mean().item()


def to_unit_range(video_THWC: Tensor) -> Tensor:
    """Turn uint8 clips [..., T, H, W, 3] into float32 [..., 3, T, H, W] in [-1, 1]."""
    return video_THWC.movedim(-1, -4).to(torch.float32) / 127.5 - 1.0
