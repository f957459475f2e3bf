"""The picture of benchmarks.sampling: what more steps cost, and what they bring."""

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator

from benchmarks.plot_colours import PALETTE
from benchmarks.sampling_measures import Denoising, Generation
from benchmarks.sampling_run import Cell
from diffusion.samplers import SamplerName

SAMPLER_COLOURS = dict(zip(get_args(SamplerName), PALETTE, strict=True))


def plot_sampling(
    generations: Sequence[Generation], denoisings: Sequence[Denoising], default: Cell, scale: float, path: Path
) -> None:
    """Draw a line a sampler and a dot a number of steps, over seconds a clip; a star is the run's own choice.

    Args:
        denoisings: of the same cells in the same order.
        scale: of the guidance that times and errors are with.

    Raises:
        OSError: the file cannot be written.
    """
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    cells = [generation.cell for generation in generations]
    seconds = [generation.seconds_spread.median for generation in generations]
    sharpness = [generation.sharpness_ratio for generation in generations]
    _draw(left, cells, seconds, sharpness, default)
    left.axhline(1.0, color="grey", linewidth=0.8)
    left.set_ylabel("sharpness / real, from pure noise")
    _draw(right, cells, seconds, [denoising.x0_mse_guided for denoising in denoisings], default)
    right.set_ylabel("x0 mean squared error, from noised real clips")
    for axes in (left, right):
        axes.set_xlabel(f"seconds a clip with guidance {scale:g}")
    left.legend()
    figure.savefig(path, dpi=150)


def _draw(
    axes: Axes, cells: Sequence[Cell], seconds: Sequence[float], values: Sequence[float | None], default: Cell
) -> None:
    for sampler, colour in SAMPLER_COLOURS.items():
        points = [
            (second, value)
            for cell, second, value in zip(cells, seconds, values, strict=True)
            if cell.sampler == sampler and value is not None
        ]
        axes.plot([x for x, _ in points], [y for _, y in points], color=colour, marker=".", linewidth=1, label=sampler)
    index = cells.index(default)
    star = values[index]
    if star is not None:
        axes.plot([seconds[index]], [star], color=SAMPLER_COLOURS[default.sampler], marker="*", markersize=14)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(visible=True, which="major", linewidth=0.3)
