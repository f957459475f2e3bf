"""What a second process brings: python -m benchmarks.processes

Times the trainer's own step with one and with two processes, each on a core of its own with one thread: DDP over gloo,
as `torchrun --nproc-per-node=2 main.py` trains. Beside it stand one process with the same batch (weak scaling), one
with the same global batch (strong scaling), one with two threads, and two processes that share nothing but the
machine, which is the most that two can do there. All ways in turn, N times over. Of the steps of a way, the half counts
beside which other programs worked least; a way that they disturbed nevertheless is measured again, and alternations
that stay disturbed do not count while there are others. Ctrl-C ends it with a report of what there is so far.
"""

import argparse
import dataclasses
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.limited_process import LimitError
from benchmarks.machine import MEMORY_NOTE, machine_line
from benchmarks.option_types import at_least_one, output_file
from benchmarks.output import INTERRUPTED, save_figures, say
from benchmarks.processes_measure import (
    PROCESSES,
    QUIET_CORES,
    REPLICATED,
    Round,
    Way,
    is_quiet,
    measure_ways,
    undisturbed,
    ways_of,
)
from benchmarks.processes_report import communication_table, efficiency_table, saved_seconds, verdict, ways_table
from common.errors import UserError
from config import Config

ALTERNATIONS, STEPS, TRIES = 5, 20, 3
QUICK_STEPS = 2
QUICK_OPTIONS = (
    *("--image-size=16", "--num-frames=4", "--model-channels=16,32", "--spatial-attention-sizes=4"),
    *("--attention-head-channels=16", "--text-channels=16", "--text-layers=1", "--validation-clips=2"),
)
_SIBLINGS = Path("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list")


@dataclass(frozen=True)
class Figures:
    """All that one run of the benchmark found out."""

    machine: str
    cores: str
    rounds: list[Round]


def main(arguments: Sequence[str]) -> int:
    """Measure and print; return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        _check_machine()
        with tempfile.TemporaryDirectory() as cache:
            ways = _ways(cache, quick=options.quick)
            rounds, interrupted = measure_ways(
                ways, 1 if options.quick else options.alternations, 1 if options.quick else options.tries
            )
        figures = Figures(machine_line(), cores_line(), rounds)
        if rounds:
            print("\n".join(_report(ways, figures)))
        save_figures(options.json, dataclasses.asdict(figures))
    except (UserError, LimitError, OSError) as error:
        say(f"error: {error}")
        return 1
    return INTERRUPTED if interrupted else 0


def _ways(cache: str, *, quick: bool) -> tuple[Way, ...]:
    where = (f"--cache-dir={cache}", "--device=cpu")
    if quick:
        return ways_of((*where, *QUICK_OPTIONS), batch_size=1, steps=QUICK_STEPS)
    return ways_of(where, batch_size=Config().BATCH_SIZE, steps=STEPS)


def _check_machine() -> None:
    if not hasattr(os, "sched_getaffinity"):
        raise UserError("processes cannot be kept to one core each on this system: run this benchmark on Linux")
    if len(os.sched_getaffinity(0)) < PROCESSES:
        raise UserError(f"this benchmark needs {PROCESSES} cores, and there are {len(os.sched_getaffinity(0))}")


def cores_line() -> str:
    """Say whether the cores are cores, as far as the system knows."""
    logical, physical = psutil.cpu_count(), psutil.cpu_count(logical=False)
    siblings = _SIBLINGS.read_text("ascii").strip() if _SIBLINGS.exists() else "unknown"
    told = f"{logical} logical cores, {physical} physical ones (threads of the first core: {siblings})"
    return (
        f"The system reports {told}. In a virtual machine that need not be true: what two independent processes lose "
        "to each other shows what the cores share."
    )


def _report(ways: Sequence[Way], figures: Figures) -> list[str]:
    counted = undisturbed(figures.rounds)
    is_disturbed = not all(is_quiet(work) for works in counted for work in works.values())
    return [
        figures.machine,
        "",
        figures.cores,
        "",
        f"The trainer's own step, {counted[0][REPLICATED].parameters / 1e6:.2f} M parameters. {MEMORY_NOTE} Median "
        f"(smallest to largest) of {len(counted)} of {len(figures.rounds)} alternations"
        + (
            f", none of which was free of other programs (more than {QUIET_CORES:g} cores)."
            if is_disturbed
            else f" beside which other programs took at most {QUIET_CORES:g} cores."
        ),
        "",
        *ways_table(ways, counted),
        *efficiency_table(counted),
        f"A step whose gradients travel once is {1000 * saved_seconds(counted):.0f} ms shorter than one whose "
        "gradients travel after each micro-batch.",
        "",
        *communication_table(counted),
        verdict(counted, is_disturbed=is_disturbed),
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.processes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--alternations", type=at_least_one, metavar="N", default=ALTERNATIONS, help="rounds of all ways (default 5)"
    )
    parser.add_argument(
        "--tries", type=at_least_one, metavar="N", default=TRIES, help="measurements of a way, until one is undisturbed"
    )
    parser.add_argument("--quick", action="store_true", help="a small try: a small network, two steps, once")
    parser.add_argument("--json", type=output_file, metavar="PATH", help="also write all figures to this file")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
