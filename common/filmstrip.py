"""Clips as rows of evenly spread frames on one picture, and the fonts of their labels."""

import os
import sys
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import cache, lru_cache, partial
from itertools import groupby
from pathlib import Path

import numpy
from PIL import Image, ImageDraw, ImageFont

Font = ImageFont.ImageFont | ImageFont.FreeTypeFont

# Pillow's own font has the letters of English only. Other captions take the first installed font that has most of their
# characters; these are tried first.
WIDER_FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "Arial Unicode.ttf", "arialuni.ttf", "Arial.ttf", "arial.ttf")
FONT_FOLDERS = (
    *("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts"),
    *("/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts", "C:/Windows/Fonts"),
)
FONT_SUFFIXES = (".ttf", ".otf", ".ttc")
OTHER_STYLES = ("bold", "italic", "oblique", "light", "narrow", "condensed", "mono", "math")
FRAMES_SHOWN = 12  # of the longest clip, unless more than LARGEST_STEP frames would pass from one to the next
LARGEST_STEP = 4
TILE_SIDE = 96  # pixels that a frame is at least enlarged to
GAP = 6
FONT_SIZE = 15
LINE_HEIGHT = 19
_MARGIN = 8
_PLAIN = Path()  # stands for the file of Pillow's own font


def filmstrips(rows: Sequence[tuple[str, numpy.ndarray]], label_width: int = 130) -> numpy.ndarray:
    """Draw clips below each other, each with its label on the left, and all with the same time between two frames.

    Args:
        rows: label and clip, uint8 [T, H, W, 3]; at least one, all clips of one H and W.
        label_width: pixels; longer lines are cut.

    Returns:
        uint8 [height, width, 3].
    """
    longest = max(len(clip) for _, clip in rows)
    step = min(-(-longest // FRAMES_SHOWN), LARGEST_STEP)
    strips = [(drawable(label), _filmstrip(clip, step)) for label, clip in rows]
    height, width = strips[0][1].shape[0], max(strip.shape[1] for _, strip in strips)
    sheet = Image.new("RGB", (label_width + width, len(strips) * (height + GAP) - GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (label, strip) in enumerate(strips):
        top = index * (height + GAP)
        lines = label.splitlines()
        for number, line in enumerate(lines):
            shown = cut_to_width(line, partial(text_width, size=FONT_SIZE), label_width - 2 * _MARGIN)
            middle = top + height / 2 + (number - (len(lines) - 1) / 2) * LINE_HEIGHT
            draw_text(draw, (_MARGIN, middle), shown, FONT_SIZE, "black")
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


def text_width(text: str, size: int) -> float:
    """Return how many pixels wide `draw_text` writes one line."""
    return sum(font.getlength(part) for part, font in _parts(text, size))


def draw_text(
    draw: ImageDraw.ImageDraw,
    position: tuple[float, float],
    text: str,
    size: int,
    fill: str | tuple[int, int, int],
    anchor: str = "lm",
) -> None:
    """Write one line, each part of it in a font that has its script; `position` and `anchor` as in Pillow.

    Plain ASCII is in Pillow's own font, so that charts look alike on every machine.
    """
    left = position[0] - {"l": 0.0, "m": 0.5, "r": 1.0}[anchor[0]] * text_width(text, size)
    for part, font in _parts(text, size):
        draw.text((left, position[1]), part, fill=fill, font=font, anchor=f"l{anchor[1]}")
        left += font.getlength(part)


def drawable(text: str) -> str:
    """Return a text with what no font here has as escapes such as ``\\u4f60``.

    Says once on stderr which fonts to install.
    """
    shown = "".join(
        character if character.isascii() or _font_file(character, text) else ascii(character)[1:-1]
        for character in text
    )
    if shown != text:
        _advise_fonts()
    return shown


def _parts(text: str, size: int) -> list[tuple[str, Font]]:
    """Return the parts of a line with their fonts, as few as can be."""
    if text.isascii():
        return [(text, _font(_PLAIN, size))]
    parts = groupby(text, key=lambda character: _font_file(character, text) or _PLAIN)
    return [("".join(characters), _font(file, size)) for file, characters in parts]


def _font_file(character: str, text: str) -> Path | None:
    """Return the font file for a character of a text; None where no font has it."""
    best = _best_font_file(frozenset(text))
    return best if _has(best, character) else _first_font_file(character)


@lru_cache(maxsize=4096)
def _first_font_file(character: str) -> Path | None:
    return next((file for file in (_PLAIN, *_font_files()) if _has(file, character)), None)


@cache
def _advise_fonts() -> None:
    print(
        r"Pictures show what no installed font has as escapes such as \u4f60. To see it, install Noto fonts, on Debian "
        "with apt-get install fonts-noto-core fonts-noto-cjk",
        file=sys.stderr,
    )


@lru_cache(maxsize=1024)
def _best_font_file(characters: frozenset[str]) -> Path:
    """Return the first font file that has most of the characters."""
    best, fewest = _PLAIN, len(characters)
    for file in (*_font_files(), _PLAIN):
        missing = sum(not _has(file, character) for character in characters)
        if missing < fewest:
            best, fewest = file, missing
        if not missing:
            break
    return best


@cache
def _font_files() -> tuple[Path, ...]:
    """Return the installed fonts in upright regular style, those that are likely to do first."""
    folders = [Path(os.path.expanduser(folder)) for folder in FONT_FOLDERS]
    files = [file for folder in folders for file in folder.rglob("*") if file.suffix.lower() in FONT_SUFFIXES]

    def place(file: Path) -> tuple[int, bool, str]:
        known = WIDER_FONTS.index(file.name) if file.name in WIDER_FONTS else len(WIDER_FONTS)
        return known, "sans" not in file.name.lower(), file.name

    return tuple(
        file for file in sorted(files, key=place) if not any(style in file.name.lower() for style in OTHER_STYLES)
    )


@lru_cache(maxsize=512)
def _font(file: Path, size: int, layout: ImageFont.Layout | None = None) -> Font:
    return ImageFont.load_default(size) if file == _PLAIN else ImageFont.truetype(file, size, layout_engine=layout)


@lru_cache(maxsize=100_000)
def _has(file: Path, character: str) -> bool:
    """Return whether a font draws a character as something else than the box for what it does not have."""
    if unicodedata.category(character) in ("Cc", "Cf", "Zs") or "\ufe00" <= character <= "\ufe0f":
        return True  # nothing is to be seen of it
    try:
        font = _font(file, FONT_SIZE, ImageFont.Layout.BASIC)  # the other layout moves marks, and so their boxes
        shown, box = font.getmask(character), font.getmask("\uffff")
    except OSError:  # no font, or one of coloured pictures alone
        return False
    return (shown.size, bytes(shown)) != (box.size, bytes(box))


def _filmstrip(video_THWC: numpy.ndarray, step: int) -> numpy.ndarray:
    """Lay every so many frames side by side, enlarged without smoothing."""
    scale = -(-TILE_SIDE // video_THWC.shape[1])
    strip: numpy.ndarray = numpy.concatenate(list(video_THWC[min(step // 2, len(video_THWC) - 1) :: step]), axis=1)
    return strip.repeat(scale, axis=0).repeat(scale, axis=1)
