"""Where and when a clip moves, as a signer does, told from a few small grey copies of its frames."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
from PIL import Image

WATCHED_FRAMES = 16
"""Frames, evenly spread over a clip, that are compared: of a sign of one or two seconds, eight or more a second."""

GREY_SIDE = 96
"""Cells along the longer side of a copy, at least (fewer pixels stay as they are). Averaging takes most noise away."""

NOISE_QUANTILE, NOISE_FACTOR = 0.1, 3.0
"""The calmest tenth of a picture hardly ever shows a signer. Of noise alone, hardly a cell deviates three times as much
as the least of the others do."""

LEAST_DEVIATION, MOST_NOISE = 4.0, 16.0
"""Grey levels, of 255: what changes less is compression or light, and what changes more is no noise, even if a signer
fills the whole picture. Hands before a body deviate by 20 to 60."""

LEAST_MOVING = 0.005
"""Share of the cells that have to move: fewer flicker."""

TAIL = 0.01
"""Share of all motion that may lie beyond each side of the box, and before and after the time."""

MARGIN = 0.15
"""Of the box, added on each side: for fingers that move too little to be told from noise."""

HEAD_ROOM = 0.5
"""Of the box, added above it instead: the face is above most signs, and may hold still."""

LEAST_SIDE = 1 / 2
"""Of the picture, that the region has at least along each side. Where a sign is made, relative to face and body, is
part of the sign; and smaller regions are enlarged to a blur."""


@dataclass(frozen=True)
class Region:
    """A part of a picture, as shares of its height and width."""

    top: float
    left: float
    bottom: float
    right: float

    @property
    def share(self) -> float:
        """Its share of the picture's area."""
        return (self.bottom - self.top) * (self.right - self.left)


def grey_copy(frame: numpy.ndarray) -> numpy.ndarray:
    """Return the brightness of a frame, uint8 [H, W, 3], averaged over cells: float32 [H / n, W / n], 0 to 255.

    Of a large frame, so many pixels are looked at that each cell averages about 16: more would only take longer.
    """
    step = max(1, max(frame.shape) // (4 * GREY_SIDE))
    image = Image.fromarray(numpy.ascontiguousarray(frame[::step, ::step]))
    return numpy.asarray(image.reduce(max(1, max(image.size) // GREY_SIDE)).convert("L"), dtype=numpy.float32)


def moving_region(copies: Sequence[numpy.ndarray]) -> Region | None:
    """Return the region in which nearly all of a clip's motion lies, with a margin; None if the clip does not move.

    `copies`: of `grey_copy`, at WATCHED_FRAMES moments. Pictures whose size changes have no region.
    """
    if len({copy.shape for copy in copies}) != 1:
        return None
    values_THW = numpy.stack(copies)
    deviation_HW = _without_light(values_THW - values_THW.mean(0)).std(0)
    motion_HW = numpy.maximum(deviation_HW - _noise(deviation_HW), 0)
    if not _moves(motion_HW):
        return None
    top, bottom = _extent(motion_HW.sum(1), HEAD_ROOM)
    left, right = _extent(motion_HW.sum(0))
    return Region(top, left, bottom, right)


def moving_frames(copies: Sequence[numpy.ndarray]) -> tuple[int, int] | None:
    """Return the first of the frames in which nearly all of a clip's motion lies, and the one after the last of them.

    None if the clip does not move. `copies`: of `grey_copy`, of every frame, all of one size.
    """
    if len(copies) < 2:
        return None
    changes_THW = numpy.abs(_without_light(numpy.diff(numpy.stack(copies), axis=0)))
    motion_THW = numpy.maximum(changes_THW - _noise(changes_THW.mean(0)), 0)
    if not _moves(motion_THW.max(0)):
        return None
    first, last = _ends(motion_THW.sum((1, 2)))
    return first, last + 2  # a change has a frame on either side


def _without_light(differences_THW: numpy.ndarray) -> numpy.ndarray:
    """Take away what the whole picture does, which is light."""
    return differences_THW - numpy.median(differences_THW, axis=(1, 2), keepdims=True)


def _noise(deviation_HW: numpy.ndarray) -> float:
    """Return the grey levels up to which a cell may deviate without moving."""
    noise = NOISE_FACTOR * float(numpy.quantile(deviation_HW, NOISE_QUANTILE))
    return min(max(noise, LEAST_DEVIATION), MOST_NOISE)


def _moves(motion_HW: numpy.ndarray) -> bool:
    return bool(numpy.count_nonzero(motion_HW) >= max(1, LEAST_MOVING * motion_HW.size))


def _ends(motion: numpy.ndarray) -> tuple[int, int]:
    """Return the first and the last place of those that have nearly all of the motion."""
    so_far = numpy.cumsum(motion, dtype=numpy.float64) / motion.sum(dtype=numpy.float64)
    return int(numpy.searchsorted(so_far, TAIL, side="right")), int(numpy.searchsorted(so_far, 1 - TAIL, side="left"))


def _extent(motion: numpy.ndarray, before: float = MARGIN) -> tuple[float, float]:
    """Return where the motion begins and ends along a side, as shares of it, with what is added before and after it."""
    first, last = _ends(motion)
    begin, end = first / len(motion), (last + 1) / len(motion)
    begin, end = begin - before * (end - begin), end + MARGIN * (end - begin)
    side = max(end - begin, LEAST_SIDE)
    begin = min(max((begin + end - side) / 2, 0.0), max(1 - side, 0.0))
    return begin, min(begin + side, 1.0)
