"""The picture of benchmarks.scaling: seconds and memory along each axis, both on logarithmic scales."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator

from benchmarks.plot_colours import PALETTE
from benchmarks.scaling_measure import AxisResult
from benchmarks.spread import Spread

SECONDS_COLOUR, MEMORY_COLOUR = PALETTE[:2]


def plot_scaling(results: Sequence[AxisResult], path: Path) -> None:
    """Draw one column an axis: seconds above, memory below, with bars from smallest to largest.

    A dotted line through the smallest setting shows proportional growth. Skipped settings have no dot.

    Raises:
        OSError: the file cannot be written.
    """
    figure = Figure(figsize=(3.2 * len(results), 6), layout="constrained")
    grid = figure.subplots(2, len(results), squeeze=False)
    for column, result in enumerate(results):
        points = [point for point in result.points if point.skipped is None]
        sizes = [point.setting.size for point in points]
        _draw(grid[0][column], sizes, [point.seconds for point in points], SECONDS_COLOUR)
        _draw(grid[1][column], sizes, [point.memory_gib for point in points], MEMORY_COLOUR)
        for axes in grid[:, column]:
            axes.set_xticks(sizes, [point.setting.label for point in points])
        grid[1][column].set_xlabel(result.axis.quantity)
    grid[0][0].set_ylabel("seconds a training step")
    grid[1][0].set_ylabel("GiB above the start of the process")
    figure.savefig(path, dpi=150)


def _draw(axes: Axes, sizes: Sequence[float], spreads: Sequence[Spread], colour: str) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(visible=True, which="major", linewidth=0.3)
    if not sizes:
        return
    medians = [spread.median for spread in spreads]
    below = [spread.median - spread.smallest for spread in spreads]
    above = [spread.largest - spread.median for spread in spreads]
    axes.errorbar(sizes, medians, yerr=(below, above), color=colour, marker=".", linewidth=1, capsize=3)
    axes.plot(sizes, [medians[0] * size / sizes[0] for size in sizes], color="grey", linewidth=0.8, linestyle=":")
