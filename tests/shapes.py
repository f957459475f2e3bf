"""The shape of clips, for tests of what is in their files."""

from common.field_types import both_sides
from data.lengths import ClipLengths
from data.media.resample import ClipShape, Fit


def stretched(frames: int, size: int | tuple[int, int], fit: Fit = "crop") -> ClipShape:
    """Return the shape of clips that all have as many frames."""
    return ClipShape(ClipLengths(12.0, 4, frames, is_natural=False), both_sides(size), fit)


def natural(most_frames: int, size: int | tuple[int, int], rate: float = 12.0) -> ClipShape:
    """Return the shape of clips that keep their duration."""
    return ClipShape(ClipLengths(rate, 4, most_frames, is_natural=True), both_sides(size))
