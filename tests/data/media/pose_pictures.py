"""Drawing signs in tests, and finding things in the pictures."""

import numpy

from data.media.decode import decode_pose
from data.media.files import PlainFile
from data.rows import WHOLE
from tests.shapes import stretched

RED, YELLOW, GREEN, BLUE, VIOLET = (1.0, 0.2, 0.2), (1.0, 0.85, 0.2), (0.25, 1, 0.4), (0.2, 0.75, 1), (0.9, 0.4, 1.0)


def drawer(folder):
    """Return a function that draws a sign, or the bytes of a file, as uint8 [T, H, W, 3]."""

    def draw(sign, frames=5, size=64, span=WHOLE):
        path = folder / "sign.pose"
        path.write_bytes(sign if isinstance(sign, bytes) else sign.content())
        return decode_pose(PlainFile(path), stretched(frames, size), span).pixels_THWC

    return draw


def where(image, colour):
    """Return [N, 2], rows and columns of pixels near a colour's hue."""
    pixels = image.astype(float)
    distance = numpy.abs(pixels / pixels.max(-1, keepdims=True) - numpy.array(colour)).max(-1)
    return numpy.argwhere((distance < 0.25) & (pixels.max(-1) > 110))


def fingers(image):
    """Return [N, 2], rows and columns of pixels of any finger: nothing else is so colourful."""
    pixels = image.astype(int)
    return numpy.argwhere(pixels.max(-1) - pixels.min(-1) > 110)


def eyes(image):
    """Return [N, 2], rows and columns of pixels that are nearly white."""
    return numpy.argwhere(image.min(-1) > 165)
