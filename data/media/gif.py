"""The frames of a GIF, as a browser shows them."""

from dataclasses import dataclass

import numpy
from PIL import Image

from data.media.budget import MOST_FRAMES, Budget
from data.media.choosing import Frames
from data.media.files import SourceFile
from data.media.pictures import rgb_pixels

_DEFAULT_SECONDS = 0.1  # browsers show frames without a duration for this long


@dataclass(frozen=True)
class _GifFrame:
    image: Image.Image
    start_time: float
    duration: float
    pixel_aspect: float = 1.0

    def pixels(self) -> numpy.ndarray:
        return rgb_pixels(self.image)


def gif_size(file: SourceFile) -> tuple[int, int]:
    """Return width and height from the header, before anything is decoded."""
    with Image.open(file.name_or_bytes(), formats=["GIF"]) as image:
        return image.size


def gif_frames(file: SourceFile) -> Frames:
    """Yield every frame.

    Raises:
        UnusableClip: it is too large or too long. Pillow's own errors pass through.
    """
    budget = Budget()
    time = 0.0
    with Image.open(file.name_or_bytes(), formats=["GIF"]) as image:
        for number in range(MOST_FRAMES + 1):
            budget.spend(*image.size)
            try:
                image.seek(number)
            except EOFError:
                return
            image.load()
            seconds = float(image.info.get("duration", 0)) / 1000 or _DEFAULT_SECONDS
            yield _GifFrame(image, time, seconds)
            time += seconds
