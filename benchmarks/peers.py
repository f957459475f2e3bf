"""The U-Net next to other libraries' networks: python -m benchmarks.peers

Times a training step and a prediction of this repository's U-Net, diffusers' UNet3DConditionModel and
video-diffusion-pytorch's Unet3D: same clips, text encoder, optimizer, threads, and nearly the same number of
parameters; float32, eager. Every network runs in turn with the others, each time in a process of its own. A network
whose process takes more than 480 s or 16 GiB is skipped there, and with larger batches. Ctrl-C ends the comparison with
a report of the cells so far. Needs benchmarks/requirements.txt.
"""

import argparse
import dataclasses
import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from benchmarks import runner
from benchmarks.network_worker import NetworkPlan, Turn
from benchmarks.networks import NETWORK_NAMES, OURS, NetworkName
from benchmarks.worker_process import WorkerError, run_worker, worker_command
from common.console import program
from compute.memory import keep_freed_memory

Allocation = Literal["same", "shipped"]
ALLOCATION_NOTES: dict[Allocation, str] = {
    "same": runner.MEMORY_NOTE,
    "shipped": "text2sign keeps the memory that a step frees, as main.py does; the others leave the allocator alone.",
}
FRAMES = 16
MILLIONS = (5, 20)
TURN_SECONDS = 2.0
TURN_LIMIT_SECONDS = 480.0  # imports, initial weights, two steps and predictions at least, counting operations
MATRIX_SIDE, MATRIX_PRODUCTS = 2048, 5
SIDE_STEP = 8
"""Image sizes are multiples of this, which all networks can halve as often as they do."""
COLUMNS = (
    *("batch", "network", "s a step", "ratio", "s a forward", "ratio", "GFLOP a step", "GFLOP/s", "% of matmul"),
    *("peak GiB", "ratio", "million parameters"),
)
NO_FIGURE = "–"


@dataclass(frozen=True, order=True)
class Cell:
    """What all networks are given."""

    image_size: int
    parameters: int
    batch_size: int
    frames: int = FRAMES


CELLS = [Cell(size, 10**6 * count, batch) for size in (32, 64) for count in MILLIONS for batch in (1, 4, 16)]
QUICK_CELL = Cell(16, 300_000, batch_size=1, frames=4)


@dataclass(frozen=True)
class Measurement:
    """One network in one cell; lists have one number an alternation."""

    parameters: int
    step_flops: int  # of the batch
    step_seconds: list[float]
    forward_seconds: list[float]
    matmul_flops_per_second: list[float]  # of bare matrix products, just before each turn
    peak_gib: float  # resident set, over all training steps


@dataclass(frozen=True)
class CellResult:
    """All networks in one cell: their figures, or why there are none."""

    cell: Cell
    measurements: dict[NetworkName, Measurement]
    skips: dict[NetworkName, WorkerError]


@program
def main(arguments: Sequence[str]) -> int:
    """Measure and print; return the exit code."""
    quick = "16 px, 4 frames, the smallest networks, two alternations"
    parser = runner.build_parser("peers", __doc__, alternations=5, quick=quick)
    parser.add_argument(
        "--cells",
        type=cell_of,
        nargs="+",
        default=CELLS,
        metavar="PIXELS:MILLIONS:BATCH",
        help="such as 32:5:4, which is 32 x 32 pixels, about 5 million parameters, 4 clips (default: all twelve)",
    )
    parser.add_argument("--networks", nargs="+", choices=NETWORK_NAMES, default=list(NETWORK_NAMES))
    text = "who keeps the memory that a step frees: all (same, the default), or text2sign alone (shipped)"
    parser.add_argument("--allocation", choices=get_args(Allocation), default="same", help=text)
    options = parser.parse_args(arguments)
    keep_freed_memory()  # for the matrix products, which are compared with the networks
    return _run(options)


def cell_of(text: str) -> Cell:
    """Read a cell as PIXELS:MILLIONS:BATCH."""
    try:
        size, millions, batch_size = (int(part) for part in text.split(":"))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text} must be PIXELS:MILLIONS:BATCH, such as 32:5:4") from error
    if size < 2 * SIDE_STEP or size % SIDE_STEP or millions not in MILLIONS or batch_size < 1:
        raise argparse.ArgumentTypeError(
            f"{text}: pixels must be a multiple of {SIDE_STEP} and at least {2 * SIDE_STEP}, millions "
            f"{' or '.join(map(str, MILLIONS))}, and the batch at least 1"
        )
    return Cell(size, 10**6 * millions, batch_size)


def _run(options: argparse.Namespace) -> int:
    networks = [name for name in NETWORK_NAMES if name in options.networks]
    machine = runner.machine_line(*(name for name in networks if name != OURS))
    cells = [QUICK_CELL] if options.quick else sorted(set(options.cells))
    alternations = 2 if options.quick else options.alternations
    results: list[CellResult] = []
    interrupted = False
    try:
        for cell in cells:
            runner.say(f"{cell} ({len(results) + 1} of {len(cells)})")
            plans = {
                name: NetworkPlan(
                    network=name,
                    keeps_freed_memory=options.allocation == "same" or name == OURS,
                    turn_seconds=TURN_SECONDS / 10 if options.quick else TURN_SECONDS,
                    **dataclasses.asdict(cell),
                )
                for name in networks
            }
            results.append(measure_cell(cell, plans, results, alternations))
    except KeyboardInterrupt:
        interrupted = True
        runner.say("interrupted: the report is of the cells so far")
    figures = {"allocation": options.allocation, "cells": [_as_json(result) for result in results]}
    runner.publish(machine, report(results, alternations, options.allocation), figures, options.json)
    if interrupted:
        return runner.INTERRUPTED
    return 1 if any(skip.bound is None for result in results for skip in result.skips.values()) else 0


def _as_json(result: CellResult) -> dict[str, object]:
    return {
        "cell": dataclasses.asdict(result.cell),
        "measurements": {name: dataclasses.asdict(found) for name, found in result.measurements.items()},
        "skips": {name: str(skip) for name, skip in result.skips.items()},
    }


def measure_cell(
    cell: Cell, plans: Mapping[NetworkName, NetworkPlan], before: Sequence[CellResult], alternations: int
) -> CellResult:
    """Time every network in turn, each time in a process of its own.

    A network for which a smaller batch was too much in one of the cells `before` is not tried.
    """
    matmul: dict[NetworkName, list[float]] = {name: [] for name in plans}

    def turn(name: NetworkName, number: int) -> Turn:
        for result in before:
            if name in result.skips and dataclasses.replace(result.cell, batch_size=cell.batch_size) == cell:
                raise type(result.skips[name])(f"not tried: batch {result.cell.batch_size} was skipped")
        matmul[name].append(matmul_flops_per_second())
        command = worker_command("benchmarks.network_worker", dataclasses.asdict(plans[name]))
        return Turn(**run_worker(command, seconds=TURN_LIMIT_SECONDS))

    rounds = runner.alternate(plans, alternations, turn)
    measurements = {
        name: Measurement(
            parameters=turns[0].parameters,
            step_flops=turns[0].step_flops,
            step_seconds=[found.step_seconds for found in turns],
            forward_seconds=[found.forward_seconds for found in turns],
            matmul_flops_per_second=matmul[name][: len(turns)],
            peak_gib=max(found.peak_gib for found in turns),
        )
        for name, turns in rounds.results.items()
    }
    return CellResult(cell, measurements, rounds.failures)


def matmul_flops_per_second() -> float:
    """Return the speed of the fastest of a few products of large float32 matrices."""
    left, right = torch.rand(2, MATRIX_SIDE, MATRIX_SIDE).unbind()
    return 2 * MATRIX_SIDE**3 / min(runner.seconds_of(lambda: left @ right) for _ in range(MATRIX_PRODUCTS))


def report(results: Sequence[CellResult], alternations: int, allocation: Allocation) -> list[str]:
    """Return a table for every image size and number of parameters."""
    lines: list[str] = []
    for _, group in itertools.groupby(results, lambda result: (result.cell.image_size, result.cell.parameters)):
        cells = list(group)
        cell = cells[0].cell
        lines += [
            f"Clips of 3 x {cell.frames} x {cell.image_size} x {cell.image_size}, about {cell.parameters / 1e6:g} "
            "million parameters:",
            "",
            *runner.table(COLUMNS, [row for result in cells for row in _rows(result)]),
        ]
    return [
        *lines,
        f"Median (smallest to largest) of {alternations} alternations. Ratios are to text2sign, and matmul is the "
        "speed of products of large float32 matrices, both in the same alternation. A step is noise, forward, mean "
        "squared error, backward, gradient clipping and AdamW; a forward is one without gradients. Operations are "
        "counted, forward and backward. Memory is the resident set of the network's own process, text encoder "
        f"included. {ALLOCATION_NOTES[allocation]}",
    ]


def _rows(result: CellResult) -> list[list[str]]:
    batch, own = str(result.cell.batch_size), result.measurements.get(OURS)
    rows = []
    for name in NETWORK_NAMES:
        if name in result.skips:
            rows.append([batch, name, f"skipped: {result.skips[name]}", *[NO_FIGURE] * (len(COLUMNS) - 3)])
        elif name in result.measurements:
            found = result.measurements[name]
            speeds = [found.step_flops / seconds for seconds in found.step_seconds]
            ratios = [NO_FIGURE] * 3
            if own is not None:
                ratios = [
                    runner.ratio_of(found.step_seconds, own.step_seconds).text(1),
                    runner.ratio_of(found.forward_seconds, own.forward_seconds).text(1),
                    f"{found.peak_gib / own.peak_gib:.1f}",
                ]
            rows.append(
                [
                    *(batch, name, runner.spread_of(found.step_seconds).text(3), ratios[0]),
                    *(runner.spread_of(found.forward_seconds).text(3), ratios[1], f"{found.step_flops / 1e9:.1f}"),
                    runner.spread_of(speeds).text(0, factor=1e-9),
                    runner.ratio_of(speeds, found.matmul_flops_per_second).text(0, factor=100),
                    *(f"{found.peak_gib:.2f}", ratios[2], f"{found.parameters / 1e6:.2f}"),
                ]
            )
    return rows


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
