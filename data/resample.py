"""From a decoded video to the few small square frames that a model sees."""

from collections.abc import Sequence

import numpy
import torch

from common.vision import v2

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


def square_resize(frame: numpy.ndarray, image_size: int) -> numpy.ndarray:
    """Cut the centre square out of uint8 [H, W, 3] and resize it, antialiased, to [image_size, image_size, 3]."""
    height, width = frame.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = frame[top : top + side, left : left + side]
    image_CHW = torch.from_numpy(square.copy()).permute(2, 0, 1)
    resized_CHW = v2.functional.resize(image_CHW, [image_size, image_size], antialias=True)
    return numpy.ascontiguousarray(resized_CHW.permute(1, 2, 0).numpy())
