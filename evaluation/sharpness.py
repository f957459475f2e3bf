"""Are the clips as sharp as real ones?"""

from torch import Tensor

from logging_system.video_quality import video_quality


def sharpness_ratio(generated_NCTHW: Tensor, real_MCTHW: Tensor) -> float | None:
    """Return the generated clips' sharpness over the real ones': 1 is right, below it blurred, above it grainy.

    Sharpness is the mean absolute difference of neighbouring pixels' brightness, for clips in [-1, 1].

    Returns:
        The ratio, or None where the real clips are flat.
    """
    real = video_quality(real_MCTHW)["sharpness"]
    return None if real == 0 else (video_quality(generated_NCTHW)["sharpness"] / real).item()
