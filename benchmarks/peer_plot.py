"""The picture of benchmarks.peers: seconds a step and peak memory of every network in every cell."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from benchmarks.limited_process import MEMORY_LIMIT_GIB
from benchmarks.networks import NETWORK_NAMES, NetworkName
from benchmarks.peer_figures import Bound, Cell, CellResult, Skip
from benchmarks.peer_measures import STEP_LIMIT_SECONDS
from benchmarks.plot_colours import NETWORK_COLOURS
from benchmarks.spread import spread_of

LIMITS: dict[Bound, float] = {"seconds": STEP_LIMIT_SECONDS, "memory": MEMORY_LIMIT_GIB}
BAR_WIDTH = 0.27
INCHES_A_CELL = 1.1


def plot_peers(results: Sequence[CellResult], path: Path) -> None:
    """Draw bars on logarithmic axes. A hatched bar up to a bound stands for a network that went past it.

    Raises:
        OSError: the file cannot be written.
        ValueError: the file's suffix names no kind of picture.
    """
    figure = Figure(figsize=(max(6.0, 1.5 + INCHES_A_CELL * len(results)), 8), layout="constrained")
    seconds, memory = figure.subplots(2, 1, sharex=True)
    for number, name in enumerate(NETWORK_NAMES):
        places = [place + (number - 1) * BAR_WIDTH for place in range(len(results))]
        _draw(seconds, "seconds", name, results, places)
        _draw(memory, "memory", name, results, places)
    seconds.set_ylabel("seconds a training step")
    memory.set_ylabel("peak memory, GiB")
    memory.set_xticks(range(len(results)), [_label(result.cell) for result in results])
    for axes in (seconds, memory):
        axes.set_yscale("log")
        axes.grid(visible=True, axis="y", linewidth=0.3)
        axes.set_axisbelow(True)
    colours = [Patch(color=NETWORK_COLOURS[name], label=name) for name in NETWORK_NAMES]
    hatched = Patch(facecolor="white", edgecolor="black", hatch="///", label="past the bound, not measured")
    figure.legend(handles=[*colours, hatched], loc="outside upper center", ncols=2)
    figure.savefig(path, dpi=150)


def _draw(axes: Axes, bound: Bound, name: NetworkName, results: Sequence[CellResult], places: Sequence[float]) -> None:
    """Draw one network's bars, and words where it has no figure."""
    for result, place in zip(results, places, strict=True):
        found = result.find(name)
        if isinstance(found, Skip):
            _draw_skip(axes, bound, found, place)
        elif found is not None and bound == "seconds":
            spread = spread_of(found.step_seconds)
            axes.bar(place, spread.median, BAR_WIDTH, color=NETWORK_COLOURS[name])
            reach = [[spread.median - spread.smallest], [spread.largest - spread.median]]
            axes.errorbar(place, spread.median, reach, color="black", linewidth=0.8)
        elif found is not None:
            axes.bar(place, found.peak_gib, BAR_WIDTH, color=NETWORK_COLOURS[name])


def _draw_skip(axes: Axes, bound: Bound, skip: Skip, place: float) -> None:
    if skip.bound == bound:
        axes.bar(
            place, LIMITS[bound], BAR_WIDTH, facecolor="white", edgecolor=NETWORK_COLOURS[skip.network], hatch="///"
        )
    axes.text(
        place,
        0.02,
        skip.reason,
        transform=axes.get_xaxis_transform(),  # across in the axis's units, up in shares of the height
        rotation="vertical",
        horizontalalignment="center",
        verticalalignment="bottom",
        fontsize=7,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
    )


def _label(cell: Cell) -> str:
    return f"{cell.image_size} px\n{cell.parameters / 10**6:g} M\nbatch {cell.batch_size}"
