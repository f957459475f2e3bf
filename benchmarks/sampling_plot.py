"""The picture of benchmarks.sampling: what more steps cost, and what they bring."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.sampling_measures import Denoising, Generation
from benchmarks.sampling_run import Cell

COLOURS = {  # told apart by the colour-blind too
    "ddim": "#0072b2",
    "ddpm": "#d55e00",
    "dpm_solver++": "#009e73",
    "euler": "#cc79a7",
    "heun": "#000000",
}


def plot_sampling(
    generations: Sequence[Generation], denoisings: Sequence[Denoising], default: Cell, path: Path
) -> None:
    """Draw a line a sampler and a dot a number of steps, over seconds a clip; a star is the run's own choice.

    Args:
        denoisings: of the same cells in the same order.

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
    _draw(right, cells, seconds, [denoising.x0_mse for denoising in denoisings], default)
    right.set_ylabel("x0 mean squared error, from noised real clips")
    left.legend()
    figure.savefig(path, dpi=150)


def _draw(
    axes: Axes, cells: Sequence[Cell], seconds: Sequence[float], values: Sequence[float | None], default: Cell
) -> None:
    for sampler, colour in COLOURS.items():
        points = [
            (second, value)
            for cell, second, value in zip(cells, seconds, values, strict=True)
            if cell.sampler == sampler and value is not None
        ]
        axes.plot([x for x, _ in points], [y for _, y in points], color=colour, marker=".", linewidth=1, label=sampler)
    index = cells.index(default)
    star = values[index]
    if star is not None:
        axes.plot([seconds[index]], [star], color=COLOURS[default.sampler], marker="*", markersize=14)
    axes.set_xscale("log")
    axes.set_xlabel("seconds a clip")
    axes.grid(visible=True, which="major", linewidth=0.3)
