"""From a decoded video to the few small square frames that a model sees."""

from collections.abc import Sequence

import numpy
import torch

from common.vision import v2
from data.media.clips import ClipShape

ROUNDING = 1e-6  # seconds: a frame that appears at just this moment counts, however its time was rounded


def uniform_indices(start_times: Sequence[float], duration: float, num_frames: int) -> list[int]:
    """Return which frames are on the screen in the middles of `num_frames` equal parts of the whole duration.

    The clip is always shown from beginning to end: a part of it against its whole caption would teach the wrong thing.
    Short clips repeat frames.

    Args:
        start_times: when each frame appears, in seconds, rising; the first counts as the beginning.
        duration: seconds from the first frame's appearance to the end of the last.
        num_frames: T.
    """
    times = (numpy.arange(num_frames) + 0.5) / num_frames * duration + ROUNDING
    starts = numpy.asarray(start_times) - start_times[0]
    indices = numpy.searchsorted(starts, times, side="right") - 1
    return [int(index) for index in numpy.clip(indices, 0, len(starts) - 1)]


def square_resize(frame: numpy.ndarray, shape: ClipShape, pixel_aspect: float = 1.0) -> numpy.ndarray:
    """Make a frame square without distorting it, and resize it, antialiased.

    Args:
        frame: uint8 [H, W, 3].
        shape: its `fit` says whether the centre square is cut out, or black borders are added.
        pixel_aspect: width of one pixel over its height, as the frame is meant to be shown.

    Returns:
        uint8 [image_size, image_size, 3].
    """
    if shape.fit == "crop":
        return _resize(_centre_square(frame, pixel_aspect), shape.image_size, shape.image_size)
    height, width = frame.shape[0], frame.shape[1] * pixel_aspect
    scale = shape.image_size / max(height, width)
    inner = _resize(frame, max(1, round(height * scale)), max(1, round(width * scale)))
    square = numpy.zeros((shape.image_size, shape.image_size, 3), numpy.uint8)
    top, left = (shape.image_size - inner.shape[0]) // 2, (shape.image_size - inner.shape[1]) // 2
    square[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
    return square


def _centre_square(frame: numpy.ndarray, pixel_aspect: float) -> numpy.ndarray:
    height, width = frame.shape[:2]
    side = min(height, width * pixel_aspect)  # in units of a pixel's height
    rows, columns = max(1, round(side)), max(1, min(width, round(side / pixel_aspect)))
    top, left = (height - rows) // 2, (width - columns) // 2
    return frame[top : top + rows, left : left + columns]


def _resize(frame: numpy.ndarray, height: int, width: int) -> numpy.ndarray:
    image_CHW = torch.from_numpy(frame.copy()).permute(2, 0, 1)
    resized_CHW = v2.functional.resize(image_CHW, [height, width], antialias=True)
    return numpy.ascontiguousarray(resized_CHW.permute(1, 2, 0).numpy())
