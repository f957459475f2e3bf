"""From a decoded video to the few small square frames that a model sees."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy
import torch
from PIL import Image

from common.vision import v2

Fit = Literal["crop", "pad"]


@dataclass(frozen=True)
class ClipShape:
    """The one shape that every clip of a training has."""

    num_frames: int  # T; a clip is resampled over its whole duration
    image_size: int  # H and W
    fit: Fit = "crop"  # how a picture that is not square becomes square: cut, or with black borders


@dataclass(frozen=True)
class MediaFacts:
    """What a clip was before it was resampled."""

    width: int  # as it is shown: turned upright, with square pixels
    height: int
    frames: int
    seconds: float


@dataclass(frozen=True)
class DecodedClip:
    """A clip as the training sees it."""

    pixels_THWC: numpy.ndarray  # uint8 [num_frames, image_size, image_size, 3], red, green, blue
    facts: MediaFacts


BACKGROUND = (255, 255, 255)  # behind what is transparent: as most pages show it


def rgb_pixels(image: Image.Image) -> numpy.ndarray:
    """Return a picture of any mode as uint8 [H, W, 3]; what is transparent becomes white."""
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        ground = Image.new("RGBA", layer.size, (*BACKGROUND, 255))
        return numpy.asarray(Image.alpha_composite(ground, layer).convert("RGB"))
    if image.mode.startswith("I") or image.mode == "F":  # more than 8 bits a pixel: convert() would cut, not scale
        values = numpy.asarray(image, dtype=numpy.float64)
        grey = (values / max(float(values.max()), 255.0) * 255).round().astype(numpy.uint8)
        return numpy.repeat(grey[:, :, None], 3, axis=2)
    return numpy.asarray(image.convert("RGB"))


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
