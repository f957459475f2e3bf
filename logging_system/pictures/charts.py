"""The dashboard's charts, each a function from numbers to a picture [H, W, 3] uint8, drawn with Pillow.

A plotting library would be slow to import, keep global state and not be safe next to other threads.

TensorBoard shows a picture 350 pixels wide (Images) or 215 high (Time Series), and shrinks it by leaving pixels out,
which makes small print unreadable. So charts are drawn at exactly twice that size with large print, and softened by
half a pixel: every second pixel then holds its share of the ones that are left out, and dense screens show them all.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy
from PIL import Image, ImageDraw, ImageFilter

from common.filmstrip import draw_text, drawable, text_width

WIDTH, HEIGHT = 700, 430
LEFT, TOP, BOTTOM, RIGHT = 92, 76, 70, 24
TITLE_SIZE, LABEL_SIZE = 27, 22
INK = (24, 24, 24)
FAINT = (216, 216, 216)
SHADE = (236, 239, 244)
PAPER = (255, 255, 255)
LINE = (31, 90, 160)
ACCENT = (214, 90, 30)


def text_length(text: str) -> float:
    """Return the width of a label in pixels."""
    return text_width(text, LABEL_SIZE)


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
        draw_text(self.draw, position, drawable(text), size, fill, anchor)

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
    return [(tick, short_number(tick)) for tick in ticks]


def _widened(limits: tuple[float, float]) -> tuple[float, float]:
    low, high = limits
    if high > low:
        return low, high
    margin = abs(low) / 2 or 0.5
    return low - margin, low + margin


LARGEST_SHARE = 0.5  # of all names; a larger group is split at the next dot, unless only numbers follow


@dataclass(frozen=True)
class NameGroup:
    """Neighbouring names with the same beginning: names[start:stop]."""

    label: str  # the last part of what they share
    start: int
    stop: int


def group_names(names: Sequence[str]) -> list[NameGroup]:
    """Return groups that cover all names in order: by their first part, and by further parts where one is too large."""

    def part(index: int, depth: int) -> str:
        parts = names[index].split(".")
        return parts[depth] if depth < len(parts) else ""

    def split(start: int, stop: int, depth: int) -> list[NameGroup]:
        groups: list[NameGroup] = []
        for label, run in groupby(range(start, stop), key=lambda index: part(index, depth)):
            members = list(run)
            next_parts = [part(index, depth + 1) for index in members]
            can_be_split = any(name and not name.isdigit() for name in next_parts)
            if len(members) > LARGEST_SHARE * len(names) and can_be_split:
                groups += split(members[0], members[-1] + 1, depth + 1)
            else:
                groups.append(NameGroup(label, members[0], members[-1] + 1))
        return groups

    return split(0, len(names), depth=0)


# Dark is low, bright is high, readable without colour vision: a few points along the viridis map
# (van der Walt and Smith 2015), joined by straight lines.
VIRIDIS = "440154 482878 3e4a89 31688e 26828e 1f9e89 35b779 6dcd59 b4de2c fde725"
COLOURS = numpy.frombuffer(bytes.fromhex(VIRIDIS), dtype=numpy.uint8).reshape(-1, 3).astype(float)
NO_DATA = (150, 150, 150)  # no hue: it is not among the colours of the map, and is less conspicuous than white
COLOUR_BAR_WIDTH = 20


def line_chart(
    x_N: numpy.ndarray, y_N: numpy.ndarray, *, title: str, x_label: str, y_label: str, marker: tuple[float, float]
) -> numpy.ndarray:
    """Return a curve from y = 0 up, with a labelled marker. All values must be finite, x increasing."""
    top = max(float(y_N.max()), marker[1]) * 1.08
    plot = Plot(
        title=title, x_label=x_label, y_label=y_label, x_range=(float(x_N[0]), float(x_N[-1])), y_range=(0.0, top)
    )
    plot.y_axis(labelled(nice_ticks(0.0, top, 5)))
    plot.x_axis(labelled(nice_ticks(float(x_N[0]), float(x_N[-1]), 6)))
    points = [(plot.x(x), plot.y(y)) for x, y in zip(x_N.tolist(), y_N.tolist(), strict=True)]
    plot.draw.line(points, fill=LINE, width=5, joint="curve")
    plot.frame()
    column, row = plot.x(marker[0]), plot.y(marker[1])
    plot.draw.line((column, plot.box[1], column, plot.box[3]), fill=ACCENT, width=3)
    plot.draw.ellipse((column - 9, row - 9, column + 9, row + 9), fill=ACCENT, outline=INK, width=2)
    is_left = column < (plot.box[0] + plot.box[2]) / 2
    label = f"step {marker[0]:.0f}: {marker[1]:.3g}"
    # The label is next to the marker's line: at its top, or at its bottom if the marker itself is near the top.
    is_high = row < plot.box[1] + 60
    place = (column + (14 if is_left else -14), plot.box[3] - 8 if is_high else plot.box[1] + 6)
    plot.text(place, label, anchor=("l" if is_left else "r") + ("d" if is_high else "a"))
    return plot.pixels()


def comparison_chart(
    x_N: numpy.ndarray, y_N: numpy.ndarray, *, title: str, x_label: str, y_label: str
) -> numpy.ndarray:
    """Return points around the line on which y is x. All values must be finite and not negative."""
    top = max(float(x_N.max()), float(y_N.max())) * 1.08
    plot = Plot(title=title, x_label=x_label, y_label=y_label, x_range=(0.0, top), y_range=(0.0, top))
    ticks = labelled(nice_ticks(0.0, top, 5))
    plot.y_axis(ticks)
    plot.x_axis(ticks)
    plot.draw.line((plot.x(0.0), plot.y(0.0), plot.x(top), plot.y(top)), fill=ACCENT, width=3)
    for x, y in zip(x_N.tolist(), y_N.tolist(), strict=True):
        column, row = plot.x(x), plot.y(y)
        plot.draw.ellipse((column - 7, row - 7, column + 7, row + 7), fill=LINE, outline=PAPER, width=2)
    plot.frame()
    return plot.pixels()


def bar_chart(names: Sequence[str], values_N: numpy.ndarray, *, title: str, y_label: str) -> numpy.ndarray:
    """Return one bar a layer on a logarithmic axis, in the order given, with the smallest and the largest named.

    A value of 0 has no bar; one that is not finite is marked with a cross. The parts of the network are named below
    their bars, as far as there is room.
    """
    values = values_N.tolist()
    positive = sorted(value for value in values if math.isfinite(value) and value > 0) or [0.1, 1.0]
    low = math.floor(math.log10(positive[0]))
    high = max(math.ceil(math.log10(positive[-1])), low + 1)
    plot = Plot(
        title=title,
        x_label="",
        y_label=y_label,
        x_range=(0.0, float(max(len(names), 1))),
        y_range=(float(low), float(high)),
        bottom=96,
    )
    spacing = max(1, math.ceil((high - low) / 6))
    _shade_groups(plot, names)
    plot.y_axis([(float(power), f"1e{power}") for power in range(low, high + 1, spacing)])
    for index, value in enumerate(values):
        half_width = min(0.4 * (plot.x(1) - plot.x(0)), 20)
        left, right = plot.x(index + 0.5) - half_width, plot.x(index + 0.5) + half_width
        if not math.isfinite(value):
            plot.text(((left + right) / 2, plot.box[3] - 14), "x", anchor="mm", fill=ACCENT)
        elif value > 0:
            plot.draw.rectangle((left, plot.y(math.log10(value)), max(right, left + 1), plot.box[3]), fill=LINE)
    plot.frame()
    for line, text in enumerate(_extremes(names, values)):
        plot.text((10, HEIGHT - 58 + 27 * line), text)
    return plot.pixels()


def _shade_groups(plot: Plot, names: Sequence[str]) -> None:
    for number, group in enumerate(group_names(names)):
        left, right = plot.x(group.start), plot.x(group.stop)
        if number % 2:
            plot.draw.rectangle((left, plot.box[1], right, plot.box[3]), fill=SHADE)
        if text_length(group.label) <= right - left:
            plot.text(((left + right) / 2, plot.box[3] + 8), group.label, anchor="ma")


def _extremes(names: Sequence[str], values: Sequence[float]) -> list[str]:
    positive = [(value, name) for value, name in zip(values, names, strict=True) if math.isfinite(value) and value > 0]
    if not positive:
        return ["no value is above 0"]
    zeros = sum(value == 0 for value in values)
    smallest = f"smallest above 0 ({zeros} are 0):" if zeros else "smallest:"
    lines = []
    for label, (value, name) in ((smallest, min(positive)), ("largest:", max(positive))):
        line, shortened = f"{label} {value:.2g}, {name}", name
        while shortened and text_length(line) > WIDTH - 20:  # what fits below a chart
            shortened = shortened[1:]
            line = f"{label} {value:.2g}, ...{shortened}"
        lines.append(line)
    return lines


def heat_map(
    values_YX: numpy.ndarray,
    *,
    column_edges: numpy.ndarray,
    y_range: tuple[float, float],
    title: str,
    x_label: str,
    y_label: str,
    value_label: str,
) -> numpy.ndarray:
    """Return a map of positive values with a logarithmic colour bar.

    Args:
        values_YX: row 0 is drawn at the bottom; NaN is drawn grey. Values of 0 and below get the darkest colour.
        column_edges: [columns + 1], increasing; columns are as wide as their range.
    """
    first, last = float(column_edges[0]), float(column_edges[-1])
    plot = Plot(title=title, x_label=x_label, y_label=y_label, x_range=(first, last), y_range=y_range, right=128)
    low, high = _colour_range(values_YX)
    left, top, right, bottom = plot.box
    # One lookup for each pixel: which column and which row of the table does it belong to?
    steps = first + (numpy.arange(right - left) + 0.5) / (right - left) * (last - first)
    column_of_pixel = numpy.clip(numpy.searchsorted(column_edges, steps) - 1, 0, values_YX.shape[1] - 1)
    heights = 1 - (numpy.arange(bottom - top) + 0.5) / (bottom - top)
    row_of_pixel = (heights * values_YX.shape[0]).astype(int)
    pixels = _colour(values_YX, low, high)[row_of_pixel][:, column_of_pixel]
    plot.image.paste(Image.fromarray(pixels), (left, top))
    plot.x_axis(labelled(nice_ticks(first, last, 6)))
    plot.y_axis(labelled(nice_ticks(*y_range, 5)), grid=False)
    plot.frame()
    _colour_bar(plot, low, high, value_label)
    return plot.pixels()


def _colour_range(values_YX: numpy.ndarray) -> tuple[float, float]:
    usable = values_YX[numpy.isfinite(values_YX) & (values_YX > 0)]
    if not usable.size:
        return -1.0, 0.0
    low, high = math.log10(usable.min()), math.log10(usable.max())
    return (low, high) if high - low > 0.05 else (low - 0.05, high + 0.05)


def _colour(values_YX: numpy.ndarray, low: float, high: float) -> numpy.ndarray:
    is_known = ~numpy.isnan(values_YX)
    positive = numpy.where(is_known & (values_YX > 0), values_YX, 10.0**low)
    share = numpy.clip((numpy.log10(positive) - low) / (high - low), 0, 1) * (len(COLOURS) - 1)
    index = numpy.arange(len(COLOURS))
    channels = [numpy.interp(share, index, COLOURS[:, channel]) for channel in range(3)]
    colours = numpy.stack(channels, axis=-1).round().astype(numpy.uint8)
    return numpy.where(is_known[..., None], colours, numpy.array(NO_DATA, dtype=numpy.uint8))


def _colour_bar(plot: Plot, low: float, high: float, label: str) -> None:
    _, top, right, bottom = plot.box
    left = right + 18
    powers = numpy.linspace(high, low, bottom - top)
    strip = _colour(numpy.repeat(10.0 ** powers[:, None], COLOUR_BAR_WIDTH, axis=1), low, high)
    plot.image.paste(Image.fromarray(strip), (left, top))
    plot.draw.rectangle((left, top, left + COLOUR_BAR_WIDTH, bottom), outline=INK, width=2)
    plot.text((WIDTH - 10, top - 14), label, anchor="rb")
    for tick in log_ticks(low, high):
        row = bottom - (bottom - top) * (math.log10(tick) - low) / (high - low)
        plot.text((left + COLOUR_BAR_WIDTH + 8, row), short_number(float(f"{tick:.2g}")), anchor="lm")
