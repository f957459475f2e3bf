"""Axes, labels and text with Pillow.

Charts are drawn by hand: a plotting library is slow to import, keeps global state and is not safe beside other
threads, and what is needed here is three kinds of chart at one size.

TensorBoard shows a picture 350 pixels wide (Images) or 215 high (Time Series), and shrinks it by leaving pixels out,
which makes small print unreadable. So charts are drawn at exactly twice that size with large print, and softened by
half a pixel: every second pixel then holds its share of the ones that are left out, and dense screens show them all.
"""

import math
from collections.abc import Sequence

import numpy
from PIL import Image, ImageDraw, ImageFilter

from common.filmstrip import font_for

WIDTH, HEIGHT = 700, 430


LEFT, TOP, BOTTOM, RIGHT = 92, 76, 70, 24


TITLE_SIZE, LABEL_SIZE = 27, 22


INK = (24, 24, 24)


FAINT = (216, 216, 216)


SHADE = (236, 239, 244)


PAPER = (255, 255, 255)


LINE = (31, 90, 160)


ACCENT = (214, 90, 30)


def text_length(text: str, size: int = LABEL_SIZE) -> float:
    """Return the width of a text in pixels."""
    return font_for(text, size).getlength(text)


def nice_ticks(low: float, high: float, about: int) -> list[float]:
    """Return round numbers within [low, high], 1, 2 or 5 times a power of ten apart, about as many as asked."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    spacing = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / spacing - 1e-9)
    last = math.floor(high / spacing + 1e-9)
    return [number * spacing for number in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return 2 to 6 round numbers within [10**low, 10**high]; the two ends where there are not 2 round ones."""
    powers = range(math.floor(low), math.ceil(high) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        ticks = [factor * 10.0**power for power in powers for factor in factors]
        inside = [tick for tick in ticks if low - 1e-9 <= math.log10(tick) <= high + 1e-9]
        if len(inside) < 2:
            return [10.0**low, 10.0**high]
        if len(inside) <= 6:
            return inside
    return inside[:: math.ceil(len(inside) / 6)]


def short_number(value: float) -> str:
    """Return a number as a person would write it on an axis: 0.25, 1200, 3e-05."""
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e6:
        return f"{value:.4f}".rstrip("0").rstrip(".") if abs(value) < 1000 else f"{value:.0f}"
    return f"{value:.2g}"


class Plot:
    """A picture with one pair of axes. Values are mapped to pixels by :meth:`x` and :meth:`y`."""

    def __init__(
        self,
        *,
        title: str,
        x_label: str,
        y_label: str,
        x_range: tuple[float, float],
        y_range: tuple[float, float],
        right: int = RIGHT,
        bottom: int = BOTTOM,
    ) -> None:
        self.image = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
        self.draw = ImageDraw.Draw(self.image)
        self.box = (LEFT, TOP, WIDTH - right, HEIGHT - bottom)
        self._x_range, self._y_range = _widened(x_range), _widened(y_range)
        self.text((10, 4), title, size=TITLE_SIZE)
        self.text((10, 38), y_label)
        self.text(((self.box[0] + self.box[2]) / 2, HEIGHT - 5), x_label, anchor="md")

    def x(self, value: float) -> float:
        """Return the pixel column of a value."""
        low, high = self._x_range
        return self.box[0] + (value - low) / (high - low) * (self.box[2] - self.box[0])

    def y(self, value: float) -> float:
        """Return the pixel row of a value; larger values are higher."""
        low, high = self._y_range
        return self.box[3] - (value - low) / (high - low) * (self.box[3] - self.box[1])

    def text(
        self,
        position: tuple[float, float],
        text: str,
        *,
        size: int = LABEL_SIZE,
        anchor: str = "la",
        fill: tuple[int, int, int] = INK,
    ) -> None:
        self.draw.text(position, text, fill=fill, font=font_for(text, size), anchor=anchor)

    def y_axis(self, ticks: Sequence[tuple[float, str]], *, grid: bool = True) -> None:
        for value, label in ticks:
            row = self.y(value)
            if grid:
                self.draw.line((self.box[0], row, self.box[2], row), fill=FAINT, width=2)
            self.draw.line((self.box[0] - 6, row, self.box[0], row), fill=INK, width=2)
            self.text((self.box[0] - 10, row), label, anchor="rm")

    def x_axis(self, ticks: Sequence[tuple[float, str]]) -> None:
        for value, label in ticks:
            column = self.x(value)
            self.draw.line((column, self.box[3], column, self.box[3] + 6), fill=INK, width=2)
            self.text((column, self.box[3] + 10), label, anchor="ma")

    def frame(self) -> None:
        self.draw.rectangle(self.box, outline=INK, width=2)

    def pixels(self) -> numpy.ndarray:
        """Return the picture, uint8 [HEIGHT, WIDTH, 3]."""
        return numpy.asarray(self.image.filter(ImageFilter.BoxBlur(0.5)))


def labelled(ticks: Sequence[float]) -> list[tuple[float, str]]:
    """Return ticks with their numbers as labels."""
    return [(tick, short_number(tick)) for tick in ticks]


def _widened(limits: tuple[float, float]) -> tuple[float, float]:
    """Return a range that is not empty."""
    low, high = limits
    if high > low:
        return low, high
    margin = abs(low) / 2 or 0.5
    return low - margin, low + margin
