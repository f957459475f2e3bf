"""Fonts to write on pictures with."""

from functools import lru_cache

from PIL import ImageFont

Font = ImageFont.ImageFont | ImageFont.FreeTypeFont

# Pillow's own font has the letters of English only. Captions in other languages take the first of these that is there.
WIDER_FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "Arial Unicode.ttf", "arialuni.ttf", "Arial.ttf", "arial.ttf")


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
