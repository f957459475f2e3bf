"""Are the clips as sharp as real ones?"""

from torch import Tensor

from evaluation.ratio import ratio_to_real
from logging_system import video_quality


def sharpness(video_NCTHW: Tensor) -> Tensor:
    """Return how much the brightness of neighbouring pixels differs in each clip, as a mean: [N], for [-1, 1]."""
    return video_quality.sharpness(video_quality.brightness(video_NCTHW))


def sharpness_ratio(generated_NCTHW: Tensor, real_MCTHW: Tensor) -> float | None:
    """Return the generated clips' sharpness over the real ones': 1 is right, below it blurred, above it grainy.

    Returns:
        The ratio of the means, or None where the real clips are flat.
    """
    return ratio_to_real(sharpness, generated_NCTHW, real_MCTHW)
