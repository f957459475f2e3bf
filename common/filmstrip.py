"""Clips as rows of evenly spread frames on one picture, and the fonts of their labels."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy
from PIL import Image, ImageDraw, ImageFont

Font = ImageFont.ImageFont | ImageFont.FreeTypeFont

# Pillow's own font has the letters of English only. Captions in other languages take the first of these that is there.
WIDER_FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "Arial Unicode.ttf", "arialuni.ttf", "Arial.ttf", "arial.ttf")
FRAMES_SHOWN = 8
TILE_SIDE = 96  # pixels that a frame is at least enlarged to
GAP = 6
FONT_SIZE = 15
_MARGIN = 8


def filmstrips(rows: Sequence[tuple[str, numpy.ndarray]], label_width: int = 130) -> numpy.ndarray:
    """Draw clips below each other, each with its label on the left.

    Args:
        rows: label and clip, uint8 [T, H, W, 3]; at least one, all clips of one shape.
        label_width: pixels; longer lines are cut.

    Returns:
        uint8 [height, width, 3].
    """
    strips = [(label, _filmstrip(clip)) for label, clip in rows]
    height, width = strips[0][1].shape[:2]
    sheet = Image.new("RGB", (label_width + width, len(strips) * (height + GAP) - GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (label, strip) in enumerate(strips):
        top = index * (height + GAP)
        font = font_for(label, FONT_SIZE)
        lines = [cut_to_width(line, font.getlength, label_width - 2 * _MARGIN) for line in label.splitlines()]
        draw.multiline_text((_MARGIN, top + height // 2), "\n".join(lines), fill="black", font=font, anchor="lm")
        sheet.paste(Image.fromarray(strip), (label_width, top))
    return numpy.asarray(sheet)


def cut_to_width(text: str, length_of: Callable[[str], float], width: float) -> str:
    """Return a text, or as much of its beginning as fits into `width` pixels with three dots behind it.

    Args:
        text: of any length.
        length_of: gives the width of a text in pixels.
        width: pixels that there are.
    """
    if len(text) <= width and length_of(text) <= width:  # no letter is narrower than a pixel
        return text
    fitting = range(min(len(text), int(width)) + 1)
    count = bisect_right(fitting, width, key=lambda count: length_of(text[:count] + "...")) - 1
    return text[: max(count, 0)] + "..."


def font_for(text: str, size: int) -> Font:
    """Return the font to write `text` in: Pillow's own for plain ASCII, so that charts look alike on every machine."""
    return _plain_font(size) if text.isascii() else _wider_font(size)


@lru_cache(maxsize=8)
def _plain_font(size: int) -> Font:
    return ImageFont.load_default(size)


@lru_cache(maxsize=8)
def _wider_font(size: int) -> Font:
    for name in WIDER_FONTS:
        try:
            return ImageFont.truetype(name, size)
        except OSError:  # not installed
            continue
    return _plain_font(size)


def _filmstrip(video_THWC: numpy.ndarray) -> numpy.ndarray:
    """Lay evenly spread frames side by side, enlarged without smoothing."""
    shown = min(FRAMES_SHOWN, len(video_THWC))
    picked = [(2 * index + 1) * len(video_THWC) // (2 * shown) for index in range(shown)]
    scale = -(-TILE_SIDE // video_THWC.shape[1])
    strip: numpy.ndarray = numpy.concatenate(list(video_THWC[picked]), axis=1)
    return strip.repeat(scale, axis=0).repeat(scale, axis=1)
