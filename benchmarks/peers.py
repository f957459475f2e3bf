"""The U-Net next to other libraries' networks: python -m benchmarks.peers

Times a training step and a prediction of this repository's U-Net, diffusers' UNet3DConditionModel and
video-diffusion-pytorch's Unet3D: same clips, text encoder, optimizer, threads, and nearly the same number of
parameters; float32, eager. Every network runs in a process of its own, in turn with the others. A network that needs
more than 60 s a step (120 s the very first) or 16 GiB is skipped there, and with larger batches. Ctrl-C ends the
comparison with a report of the cells so far. Needs benchmarks/requirements.txt.
"""

import argparse
import dataclasses
import itertools
import sys
from collections.abc import Sequence

import torch

from benchmarks.allocation import ALLOCATION_HELP, ALLOCATIONS
from benchmarks.machine import machine_line
from benchmarks.networks import NETWORK_NAMES, OURS, NetworkName
from benchmarks.option_types import at_least_one, output_file, picture_file
from benchmarks.output import INTERRUPTED, save_figures, save_progress, say
from benchmarks.peer_figures import Cell, CellResult, Skip, compare
from benchmarks.peer_measures import Plan, measure_cell
from benchmarks.peer_report import report
from common.errors import UserError
from compute.memory import keep_freed_memory

FRAMES = 16
IMAGE_SIZES, MILLIONS, BATCH_SIZES = (32, 64), (5, 20), (1, 4, 16)
CELLS = tuple(
    Cell(size, 10**6 * count, batch, FRAMES)
    for size, count, batch in itertools.product(IMAGE_SIZES, MILLIONS, BATCH_SIZES)
)
QUICK_CELL, QUICK_ALTERNATIONS, QUICK_TURN_SECONDS = Cell(16, 300_000, batch_size=1, frames=4), 2, 0.2
ALTERNATIONS, TURN_SECONDS = 5, 2.0
MOST_MILLIONS = 1000
SIDE_STEP = 8
"""Image sizes are multiples of this, which all networks can halve as often as they do."""


def main(arguments: Sequence[str]) -> int:
    """Measure and print; return the exit code."""
    options = _parser().parse_args(arguments)
    cells = sorted(set(options.cells or CELLS))
    plan = Plan(options.alternations or ALTERNATIONS, TURN_SECONDS, options.threads, options.allocation)
    if options.quick:
        cells = [QUICK_CELL]
        alternations = options.alternations or QUICK_ALTERNATIONS
        plan = dataclasses.replace(plan, alternations=alternations, turn_seconds=QUICK_TURN_SECONDS)
    networks = [name for name in NETWORK_NAMES if name in options.networks]
    torch.set_num_threads(options.threads)
    keep_freed_memory()  # for the matrix products, which are compared with the networks
    results: list[CellResult] = []
    interrupted = False
    try:
        machine = machine_line(*(name for name in networks if name != OURS))
        try:
            for cell in cells:
                say(f"{cell} ({len(results) + 1} of {len(cells)})")
                results.append(_measure(cell, results, networks, plan))
                save_progress(options.json, _as_json(machine, plan, results))
        except KeyboardInterrupt:
            interrupted = True
            say("interrupted: the report is of the cells so far")
        print("\n".join([machine, "", *report(results, plan.alternations, plan.allocation)]))
        save_figures(options.json, _as_json(machine, plan, results))
        if options.plot is not None:
            from benchmarks.peer_plot import plot_peers  # matplotlib is needed for this alone

            plot_peers(results, options.plot)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if interrupted:
        return INTERRUPTED
    failed = any(skip.bound is None for result in results for skip in result.skips)
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--alternations", type=at_least_one, metavar="N", help=f"turns of each network (default {ALTERNATIONS})"
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--cells",
        type=cell_of,
        nargs="+",
        metavar="PIXELS:MILLIONS:BATCH",
        help="such as 32:5:4, which is 32 x 32 pixels, about 5 million parameters, 4 clips (default: all twelve)",
    )
    which.add_argument("--quick", action="store_true", help="a small try: 16 px, 4 frames, the smallest networks")
    parser.add_argument("--networks", nargs="+", choices=NETWORK_NAMES, default=list(NETWORK_NAMES))
    parser.add_argument("--allocation", choices=ALLOCATIONS, default="same", help=ALLOCATION_HELP)
    threads = torch.get_num_threads()
    parser.add_argument("--threads", type=at_least_one, default=threads, metavar="N", help=f"(default {threads})")
    parser.add_argument(
        "--json", type=output_file, metavar="PATH", help="also write all figures to this file, after each cell"
    )
    parser.add_argument("--plot", type=picture_file, metavar="PATH", help="also draw bars (png, svg or pdf)")
    return parser


def cell_of(text: str) -> Cell:
    """Read a cell as PIXELS:MILLIONS:BATCH.

    Raises:
        argparse.ArgumentTypeError: it is not one.
    """
    try:
        size_text, millions_text, batch_text = text.split(":")
        size, millions, batch_size = int(size_text), float(millions_text), int(batch_text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text} must be PIXELS:MILLIONS:BATCH, such as 32:5:4") from error
    if size < 2 * SIDE_STEP or size % SIDE_STEP != 0:
        raise argparse.ArgumentTypeError(f"{text}: pixels must be a multiple of {SIDE_STEP}, at least {2 * SIDE_STEP}")
    if not 0 < millions <= MOST_MILLIONS:
        raise argparse.ArgumentTypeError(f"{text}: millions must be above 0 and at most {MOST_MILLIONS}")
    if batch_size < 1:
        raise argparse.ArgumentTypeError(f"{text}: the batch must be at least 1")
    return Cell(size, round(10**6 * millions), batch_size, FRAMES)


def _measure(cell: Cell, before: Sequence[CellResult], networks: Sequence[NetworkName], plan: Plan) -> CellResult:
    """Measure a cell, without the networks that a smaller batch of the same was too much for."""
    known: dict[str, Skip] = {}
    for result in before:
        if dataclasses.replace(result.cell, batch_size=cell.batch_size) != cell:
            continue
        for skip in result.skips:
            reason = f"not tried: batch {result.cell.batch_size} was skipped"
            known.setdefault(skip.network, Skip(skip.network, reason, skip.bound))
    return measure_cell(cell, [name for name in networks if name not in known], list(known.values()), plan)


def _as_json(machine: str, plan: Plan, results: Sequence[CellResult]) -> dict[str, object]:
    cells = []
    for result in results:
        comparisons = {found.network: dataclasses.asdict(compare(result, found)) for found in result.measurements}
        cells.append(dataclasses.asdict(result) | {"comparisons": comparisons})
    return {"machine": machine, "plan": dataclasses.asdict(plan), "cells": cells}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
