"""What a second process brings: python -m benchmarks.processes

Times the trainer's own step with one and with two processes, each with one thread on a core of its own: DDP over gloo,
as `torchrun --nproc-per-node=2 main.py` trains. It is compared with one process with the same batch (weak scaling), one
with the same global batch (strong scaling), one with two threads, and two processes that share only the machine. Only
the half of a way's steps counts during which other programs worked least. Ctrl-C reports the complete alternations.
"""

import argparse
import dataclasses
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks import runner
from benchmarks.step_worker import Work, WorkPlan
from benchmarks.worker_process import WorkerError, run_worker, worker_command
from common.console import program
from common.errors import UserError
from config import Config

STEPS, QUICK_STEPS = 20, 2
TIME_LIMIT_SECONDS = 600.0  # for one way, once
PROCESSES = 2

ONE, ONE_DOUBLE, BOTH_CORES, APART = "one", "one_double", "both_cores", "apart"
REPLICATED, SHARDED = "replicated", "sharded"

Works = Mapping[str, Sequence[Work]]
"""What each way took, by its name, in every alternation."""


@dataclass(frozen=True)
class Way:
    """One way of training, and how a table calls it."""

    label: str
    processes: int
    plan: WorkPlan


def ways_of(options: Sequence[str], batch_size: int, steps: int) -> dict[str, Way]:
    """Return all ways by name, each with main.py's `options` and as many measured `steps`.

    `batch_size` clips are a process's own; ways that it is compared with have as many in all.
    """

    def plan(clips: int) -> WorkPlan:
        return WorkPlan(options=(*options, f"--batch-size={clips}"), steps=steps)

    single, double = plan(batch_size), plan(PROCESSES * batch_size)
    both = replace(double, threads=PROCESSES, is_pinned=False)
    divided = replace(single, options=(*single.options, "--parallelism=fsdp"))
    return {
        ONE: Way("1 process, 1 core", 1, single),
        ONE_DOUBLE: Way("1 process, 1 core, the global batch of two", 1, double),
        BOTH_CORES: Way("1 process, 2 cores (2 threads), that batch", 1, both),
        APART: Way("2 independent processes at once", PROCESSES, replace(single, is_apart=True)),
        REPLICATED: Way("2 processes, DDP", PROCESSES, single),
        SHARDED: Way("2 processes, FSDP", PROCESSES, divided),
    }


@program
def main(arguments: Sequence[str]) -> int:
    """Measure and print; return the exit code."""
    parser = runner.build_parser("processes", __doc__, alternations=5, quick="a small network, two steps, once")
    options = parser.parse_args(arguments)
    return _run(options)


def _run(options: argparse.Namespace) -> int:
    if not hasattr(os, "sched_getaffinity"):
        raise UserError("processes cannot be kept to one core each on this system: run this benchmark on Linux")
    if len(os.sched_getaffinity(0)) < PROCESSES:
        raise UserError(f"this benchmark needs {PROCESSES} cores, and there are {len(os.sched_getaffinity(0))}")
    with tempfile.TemporaryDirectory() as cache:
        where = (f"--cache-dir={cache}", "--device=cpu")
        if options.quick:
            ways = ways_of((*where, *runner.SMALL_NETWORK), batch_size=1, steps=QUICK_STEPS)
        else:
            ways = ways_of(where, batch_size=Config().BATCH_SIZE, steps=STEPS)
        alternations = 1 if options.quick else options.alternations
        rounds = runner.alternate(ways, alternations, lambda name, number: measure_in_processes(ways[name]))
    figures = {name: [dataclasses.asdict(work) for work in works] for name, works in rounds.results.items()}
    runner.publish(runner.machine_line(), report(ways, rounds.results), {"works": figures}, options.json)
    return rounds.exit_code


def measure_in_processes(way: Way) -> Work:
    """Start the processes, with torchrun if there are several; UserError if they took too much, or failed."""
    runner.say(f"  {way.label}")
    torchrun = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={way.processes}")
    plan = dataclasses.asdict(way.plan)
    command = worker_command("benchmarks.step_worker", plan, torchrun if way.processes > 1 else ())
    try:
        return Work(**run_worker(command, seconds=TIME_LIMIT_SECONDS))
    except WorkerError as error:  # there is nothing to compare without one of the ways
        raise UserError(f"{way.label}: {error}") from error


def report(ways: Mapping[str, Way], works: Works) -> list[str]:
    """Return the tables, in Markdown."""
    return [
        f"The trainer's own step, {works[REPLICATED][0].parameters / 1e6:.2f} M parameters. {runner.MEMORY_NOTE} "
        f"Median (smallest to largest) of {len(works[REPLICATED])} alternations.",
        "",
        *_ways_table(ways, works),
        *efficiency_table(works),
        "In a virtual machine cores may be shared: what two independent processes lose to each other shows it.",
    ]


def throughput_ratio(works: Works, name: str, baseline: str, processes: int = 1) -> runner.Spread:
    """Return the clips a second of one way by `processes` times those of another, in the same alternation."""
    return runner.ratio_of(
        [work.clips_per_second for work in works[name]],
        [processes * work.clips_per_second for work in works[baseline]],
    )


def _ways_table(ways: Mapping[str, Way], works: Works) -> list[str]:
    rows = [
        [
            way.label,
            runner.spread_of([work.step_seconds for work in works[name]]).text(3, "s"),
            runner.spread_of([work.clips_per_second for work in works[name]]).text(2),
            throughput_ratio(works, name, ONE, PROCESSES).text(2),
            runner.spread_of([work.memory_gib for work in works[name]]).text(2, "GiB"),
            f"{max(work.other_cores for work in works[name]):.2f}",
        ]
        for name, way in ways.items()
    ]
    share = "share of 2 x one process"
    return runner.table(["way", "step", "clips a second", share, "peak memory of a process", "others, cores"], rows)


def efficiency_table(works: Works) -> list[str]:
    """Return what two processes gain, against what the machine lets two programs gain."""
    ratios = {
        "the machine: two independent processes / (2 x one)": (APART, ONE, PROCESSES),
        "**weak scaling: DDP / (2 x one), same batch a process**": (REPLICATED, ONE, PROCESSES),
        "**strong scaling: DDP / (2 x one), same global batch**": (REPLICATED, ONE_DOUBLE, PROCESSES),
        "DDP / two independent processes": (REPLICATED, APART, 1),
        "FSDP / (2 x one), same batch a process": (SHARDED, ONE, PROCESSES),
        "FSDP / DDP": (SHARDED, REPLICATED, 1),
    }
    rows = [[label, throughput_ratio(works, *compared).text(3)] for label, compared in ratios.items()]
    return runner.table(["clips a second, ratio", ""], rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
