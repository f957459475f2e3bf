"""What generated clips have of something, as a share of what real ones have."""

from collections.abc import Callable

from torch import Tensor


def ratio_to_real(measure: Callable[[Tensor], Tensor], generated_NCTHW: Tensor, real_MCTHW: Tensor) -> float | None:
    """Return the mean of a measure over the generated clips, divided by that over the real ones.

    Args:
        measure: from clips to one number each, such as [N, 3, T, H, W] to [N].

    Returns:
        The ratio, or None where the real clips have nothing of it.
    """
    real = measure(real_MCTHW).mean()
    return None if real == 0 else (measure(generated_NCTHW).mean() / real).item()
