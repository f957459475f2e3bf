"""The picture of benchmarks.time_to_loss: validation loss against training seconds."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.loss_curves import FailedRun, Lead, LossCurve
from benchmarks.plot_colours import NETWORK_COLOURS


def plot_loss_curves(runs: Sequence[LossCurve | FailedRun], leads: Sequence[Lead], path: Path) -> None:
    """Draw a thin line a run, on logarithmic seconds, and a dotted one at each loss that the comparison is made at.

    Validations before the first step have no place on such an axis and are left out.

    Raises:
        OSError: the file cannot be written.
        ValueError: the file's suffix names no kind of picture.
    """
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    named: set[str] = set()
    for run in runs:
        if isinstance(run, FailedRun):
            continue
        points = [point for point in run.points if point.step > 0]
        label = "_nolegend_" if run.network in named else run.network
        named.add(run.network)
        axes.plot(
            [point.seconds for point in points],
            [point.loss for point in points],
            color=NETWORK_COLOURS[run.network],
            linewidth=1,
            marker=".",
            label=label,
        )
    for lead in leads:
        axes.axhline(lead.loss, color=NETWORK_COLOURS[lead.peer], linewidth=0.6, linestyle=":")
    axes.set_xscale("log")
    axes.set_xlabel("training seconds (validation left out)")
    axes.set_ylabel("validation loss")
    axes.grid(visible=True, which="major", linewidth=0.3)
    if named:
        axes.legend()
    figure.savefig(path, dpi=150)
