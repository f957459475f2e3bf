"""The dashboard's three charts, each a function from numbers to a picture [H, W, 3] uint8."""

import math
from collections.abc import Sequence

import numpy
from PIL import Image

from logging_system.drawing import ACCENT, INK, LINE, Plot, labelled, nice_ticks, short_number

# Dark is low, bright is high, readable without colour vision: a few points along the viridis map
# (van der Walt and Smith 2015), joined by straight lines.
COLOURS = numpy.array(
    [
        (68, 1, 84),
        (72, 40, 120),
        (62, 74, 137),
        (49, 104, 142),
        (38, 130, 142),
        (31, 158, 137),
        (53, 183, 121),
        (109, 205, 89),
        (180, 222, 44),
        (253, 231, 37),
    ],
    dtype=float,
)
NO_DATA = (224, 224, 224)
COLOUR_BAR_WIDTH = 16


def line_chart(
    x_N: numpy.ndarray,
    y_N: numpy.ndarray,
    *,
    title: str,
    x_label: str,
    y_label: str,
    marker: tuple[float, float],
) -> numpy.ndarray:
    """Return a curve from y = 0 up, with a labelled marker. All values must be finite, x increasing."""
    top = max(float(y_N.max()), marker[1]) * 1.08
    plot = Plot(
        title=title, x_label=x_label, y_label=y_label, x_range=(float(x_N[0]), float(x_N[-1])), y_range=(0.0, top)
    )
    plot.y_axis(labelled(nice_ticks(0.0, top, 5)))
    plot.x_axis(labelled(nice_ticks(float(x_N[0]), float(x_N[-1]), 6)))
    points = [(plot.x(x), plot.y(y)) for x, y in zip(x_N.tolist(), y_N.tolist(), strict=True)]
    plot.draw.line(points, fill=LINE, width=3, joint="curve")
    plot.frame()
    column, row = plot.x(marker[0]), plot.y(marker[1])
    plot.draw.line((column, plot.box[1], column, plot.box[3]), fill=ACCENT, width=1)
    plot.draw.ellipse((column - 6, row - 6, column + 6, row + 6), fill=ACCENT, outline=INK)
    is_left = column < (plot.box[0] + plot.box[2]) / 2
    label = f"step {marker[0]:.0f}: {marker[1]:.3g}"
    plot.text((column + (10 if is_left else -10), plot.box[1] + 4), label, anchor="la" if is_left else "ra")
    return plot.pixels()


def bar_chart(names: Sequence[str], values_N: numpy.ndarray, *, title: str, y_label: str) -> numpy.ndarray:
    """Return one bar a name on a logarithmic axis, in the order given.

    A value of 0 stands on the lowest line with no bar; one that is not finite is marked with a cross.
    """
    positive = [value for value in values_N.tolist() if math.isfinite(value) and value > 0]
    low = math.floor(math.log10(min(positive))) if positive else -1
    high = max(math.ceil(math.log10(max(positive))), low + 1) if positive else 0
    plot = Plot(
        title=title,
        x_label="layers, from first to last",
        y_label=y_label,
        x_range=(0.0, float(len(names))),
        y_range=(float(low), float(high)),
        bottom=136,
    )
    spacing = max(1, math.ceil((high - low) / 8))
    plot.y_axis([(float(power), f"1e{power}") for power in range(low, high + 1, spacing)])
    for index, value in enumerate(values_N.tolist()):
        half_width = min(0.4 * (plot.x(1) - plot.x(0)), 20)
        left, right = plot.x(index + 0.5) - half_width, plot.x(index + 0.5) + half_width
        if not math.isfinite(value):
            plot.text(((left + right) / 2, plot.box[3] - 12), "x", size=18, anchor="mm")
        elif value > 0:
            plot.draw.rectangle((left, plot.y(math.log10(value)), max(right, left + 1), plot.box[3]), fill=LINE)
    plot.frame()
    _names_on_end(plot, names)
    return plot.pixels()


def _names_on_end(plot: Plot, names: Sequence[str]) -> None:
    """Write as many names as fit under the bars, standing on end, shortened from their beginning."""
    every = max(1, math.ceil(len(names) * 17 / (plot.box[2] - plot.box[0])))
    for index in range(0, len(names), every):
        name = names[index] if len(names[index]) <= 16 else "..." + names[index][-14:]
        plot.text_on_end((plot.x(index + 0.5), plot.box[3] + 5), name)


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
    plot = Plot(title=title, x_label=x_label, y_label=y_label, x_range=(first, last), y_range=y_range, right=104)
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
    """Return powers of ten between which the colours run."""
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
    plot.draw.rectangle((left, top, left + COLOUR_BAR_WIDTH, bottom), outline=INK)
    plot.text((left + COLOUR_BAR_WIDTH + 6, top - 10), label, anchor="rb")
    for number in range(5):
        power = low + (high - low) * number / 4
        row = bottom - (bottom - top) * number / 4
        plot.text((left + COLOUR_BAR_WIDTH + 6, row), short_number(float(f"{10**power:.2g}")), anchor="lm")
