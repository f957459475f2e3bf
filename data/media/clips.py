"""What decoding is asked for, and what it gives."""

from dataclasses import dataclass
from typing import Literal

import numpy

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
