"""The tables of benchmarks.peers, as Markdown."""

import itertools
from collections.abc import Iterable, Sequence

from benchmarks.allocation import Allocation, allocation_note
from benchmarks.networks import NETWORK_NAMES
from benchmarks.peer_figures import CellResult, Measurement, Skip, compare
from benchmarks.spread import Spread, spread_of

MILLION, BILLION = 1e6, 1e9
COLUMNS = (
    "batch",
    "network",
    "s a step",
    "ratio",
    "s a forward",
    "ratio",
    "GFLOP a step",
    "GFLOP/s",
    "% of matmul",
    "peak GiB",
    "ratio",
    "GiB of it imports",
    "million parameters",
)
NO_FIGURE = "–"


def report(results: Sequence[CellResult], alternations: int, allocation: Allocation) -> list[str]:
    """Return a table for every image size and number of parameters."""
    lines: list[str] = []
    for _, group in itertools.groupby(results, lambda result: (result.cell.image_size, result.cell.parameters)):
        lines += [*_table(list(group)), ""]
    return [
        *lines,
        f"Median (smallest to largest) of {alternations} alternations. Ratios are to text2sign, and matmul is the "
        "speed of products of large float32 matrices, both in the same alternation. A step is noise, forward, mean "
        "squared error, backward, gradient clipping and AdamW; a forward is one without gradients. Operations are "
        "counted, forward and backward. Memory is the resident set of the network's own process, text encoder "
        f"included. {allocation_note(allocation)}",
    ]


def _table(group: Sequence[CellResult]) -> list[str]:
    cell = group[0].cell
    speed = spread_of([speed for result in group for speed in result.matmul_flops_per_second])
    return [
        f"Clips of 3 x {cell.frames} x {cell.image_size} x {cell.image_size}, about {cell.parameters / MILLION:g} "
        f"million parameters; matmul {speed.text(0, 'GFLOP/s', 1 / BILLION)}:",
        "",
        _row(COLUMNS),
        "|---" * len(COLUMNS) + "|",
        *(
            _row(_cells(result, found))
            for result in group
            for found in map(result.find, NETWORK_NAMES)
            if found is not None
        ),
    ]


def _cells(result: CellResult, found: Measurement | Skip) -> list[str]:
    batch = str(result.cell.batch_size)
    if isinstance(found, Skip):
        return [batch, found.network, f"skipped: {found.reason}", *[NO_FIGURE] * (len(COLUMNS) - 3)]
    comparison = compare(result, found)
    return [
        batch,
        found.network,
        comparison.step_seconds.text(3),
        _ratio(comparison.step_ratio),
        comparison.forward_seconds.text(3),
        _ratio(comparison.forward_ratio),
        f"{found.step_flops / BILLION:.1f}",
        comparison.step_flops_per_second.text(0, factor=1 / BILLION),
        comparison.share_of_matmul.text(0, factor=100),
        f"{found.peak_gib:.2f}",
        NO_FIGURE if comparison.memory_ratio is None else f"{comparison.memory_ratio:.1f}",
        f"{found.imported_gib:.2f}",
        f"{found.parameters / MILLION:.2f}",
    ]


def _ratio(spread: Spread | None) -> str:
    return NO_FIGURE if spread is None else spread.text(1)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
