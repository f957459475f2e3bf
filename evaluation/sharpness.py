"""Are the clips as sharp as real ones?"""

import torch
from torch import Tensor

from logging_system.video_quality import video_quality


def sharpness(video_NCTHW: Tensor) -> Tensor:
    """Return how much the brightness of neighbouring pixels differs in each clip, as a mean: [N], for [-1, 1]."""
    return torch.stack([video_quality(clip_CTHW[None])["sharpness"] for clip_CTHW in video_NCTHW])


def sharpness_ratio(generated_NCTHW: Tensor, real_MCTHW: Tensor) -> float | None:
    """Return the generated clips' sharpness over the real ones': 1 is right, below it blurred, above it grainy.

    Returns:
        The ratio of the means, or None where the real clips are flat.
    """
    real = sharpness(real_MCTHW).mean()
    return None if real == 0 else (sharpness(generated_NCTHW).mean() / real).item()
