"""What a second process brings: python -m benchmarks.processes

Times the trainer's own step with one and with two processes, each on a core of its own with one thread: DDP over gloo,
as `torchrun --nproc-per-node=2 main.py` trains. It is compared with one process with the same batch (weak scaling), one
with the same global batch (strong scaling), one with two threads, and two processes that share nothing but the
machine, which is the most that two can do there. All ways in turn, N times over. Of the steps of a way, the half counts
beside which other programs worked least. Ctrl-C ends it with a report of the complete alternations.
"""

import argparse
import dataclasses
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from benchmarks.common import (
    MEMORY_NOTE,
    SMALL_NETWORK,
    Spread,
    alternate,
    build_parser,
    machine_line,
    publish,
    ratio_of,
    run_command,
    say,
    spread_of,
    table,
)
from benchmarks.processes_worker import Communication, Work, WorkPlan
from benchmarks.worker_process import WorkerError, run_worker, worker_command
from common.errors import UserError
from config import Config

STEPS, QUICK_STEPS = 20, 2
TIME_LIMIT_SECONDS = 600.0  # for one way, once
PROCESSES = 2
ACCUMULATED = 4
KEPT_SHARE = 0.9  # of what two independent processes do that DDP has to keep
QUIET_CORES = 0.1  # of other programs beside a measurement that is not called disturbed
_SIBLINGS = Path("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list")

ONE, ONE_DOUBLE, BOTH_CORES, APART = "one", "one_double", "both_cores", "apart"
REPLICATED, SHARDED = "replicated", "sharded"
SENT_ONCE, SENT_ALWAYS = "sent_once", "sent_always"

Works = Mapping[str, Sequence[Work]]
"""What each way took, by its name, in every alternation."""


@dataclass(frozen=True)
class Way:
    """One way of training, and how a table calls it."""

    label: str
    processes: int
    plan: WorkPlan


def ways_of(options: Sequence[str], batch_size: int, steps: int) -> dict[str, Way]:
    """Return all ways by name.

    Args:
        options: of main.py, without the batch size.
        batch_size: clips of a process.
        steps: that are measured each time.
    """

    def plan(clips: int, accumulated: int = 1) -> WorkPlan:
        sizes = (f"--batch-size={clips}", f"--gradient-accumulation-steps={accumulated}")
        return WorkPlan(options=(*options, *sizes), steps=steps)

    single, double, parts = plan(batch_size), plan(PROCESSES * batch_size), plan(1, ACCUMULATED)
    both = replace(double, threads=PROCESSES, is_pinned=False)
    divided = replace(single, options=(*single.options, "--parallelism=fsdp"))
    micro = f"2 processes, DDP, {ACCUMULATED} micro-batches of 1"
    return {
        ONE: Way("1 process, 1 core", 1, single),
        ONE_DOUBLE: Way("1 process, 1 core, the global batch of two", 1, double),
        BOTH_CORES: Way("1 process, 2 cores (2 threads), that batch", 1, both),
        APART: Way("2 independent processes at once", PROCESSES, replace(single, is_apart=True)),
        REPLICATED: Way("2 processes, DDP", PROCESSES, replace(single, measures_communication=True)),
        SHARDED: Way("2 processes, FSDP", PROCESSES, divided),
        SENT_ONCE: Way(f"{micro}, sent once", PROCESSES, parts),
        SENT_ALWAYS: Way(f"{micro}, sent each time", PROCESSES, replace(parts, sends_always=True)),
    }


def main(arguments: Sequence[str]) -> int:
    """Measure and print; return the exit code."""
    parser = build_parser("processes", __doc__, alternations=5, quick="a small network, two steps, once")
    options = parser.parse_args(arguments)
    return run_command(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    _check_machine()
    with tempfile.TemporaryDirectory() as cache:
        where = (f"--cache-dir={cache}", "--device=cpu")
        if options.quick:
            ways = ways_of((*where, *SMALL_NETWORK), batch_size=1, steps=QUICK_STEPS)
        else:
            ways = ways_of(where, batch_size=Config().BATCH_SIZE, steps=STEPS)
        alternations = 1 if options.quick else options.alternations
        rounds = alternate(ways, alternations, lambda name, number: measure_in_processes(ways[name]))
    figures = {name: [dataclasses.asdict(work) for work in works] for name, works in rounds.results.items()}
    publish(machine_line(), report(ways, rounds.results), {"works": figures}, options.json)
    return rounds.exit_code


def _check_machine() -> None:
    if not hasattr(os, "sched_getaffinity"):
        raise UserError("processes cannot be kept to one core each on this system: run this benchmark on Linux")
    if len(os.sched_getaffinity(0)) < PROCESSES:
        raise UserError(f"this benchmark needs {PROCESSES} cores, and there are {len(os.sched_getaffinity(0))}")


def measure_in_processes(way: Way) -> Work:
    """Start the processes, with torchrun where there are several.

    Raises:
        UserError: they took too much, or failed.
    """
    say(f"  {way.label}")
    torchrun = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={way.processes}")
    plan = dataclasses.asdict(way.plan)
    command = worker_command("benchmarks.processes_worker", plan, torchrun if way.processes > 1 else ())
    try:
        answer = run_worker(command, seconds=TIME_LIMIT_SECONDS)
    except WorkerError as error:  # there is nothing to compare without one of the ways
        raise UserError(f"{way.label}: {error}") from error
    communication = answer.pop("communication")
    return Work(**answer, communication=None if communication is None else Communication(**communication))


def report(ways: Mapping[str, Way], works: Works) -> list[str]:
    """Return the tables, in Markdown."""
    return [
        _cores_line(),
        "",
        f"The trainer's own step, {works[REPLICATED][0].parameters / 1e6:.2f} M parameters. {MEMORY_NOTE} Median "
        f"(smallest to largest) of {len(works[REPLICATED])} alternations.",
        "",
        *_ways_table(ways, works),
        *efficiency_table(works),
        *communication_table(works),
        verdict(works),
    ]


def _cores_line() -> str:
    """Say whether the cores are cores, as far as the system knows."""
    logical, physical = psutil.cpu_count(), psutil.cpu_count(logical=False)
    siblings = _SIBLINGS.read_text("ascii").strip() if _SIBLINGS.exists() else "unknown"
    return (
        f"The system reports {logical} logical cores, {physical} physical ones (threads of the first: {siblings}). "
        "In a virtual machine that need not be true: what two independent processes lose to each other shows what the "
        "cores share."
    )


def throughput_ratio(works: Works, name: str, baseline: str, processes: int = 1) -> Spread:
    """Return the clips a second of one way by `processes` times those of another, in the same alternation."""
    return ratio_of(
        [work.clips_per_second for work in works[name]],
        [processes * work.clips_per_second for work in works[baseline]],
    )


def _ways_table(ways: Mapping[str, Way], works: Works) -> list[str]:
    rows = [
        [
            way.label,
            spread_of([work.step_seconds for work in works[name]]).text(3, "s"),
            spread_of([work.clips_per_second for work in works[name]]).text(2),
            throughput_ratio(works, name, ONE, PROCESSES).text(2),
            spread_of([work.memory_gib for work in works[name]]).text(2, "GiB"),
            f"{max(work.other_cores for work in works[name]):.2f}",
        ]
        for name, way in ways.items()
    ]
    share = "share of 2 x one process"
    return table(["way", "step", "clips a second", share, "peak memory of a process", "others, cores"], rows)


def efficiency_table(works: Works) -> list[str]:
    """Return what two processes gain, against what the machine lets two programs gain."""
    ratios = {
        "the machine: two independent processes / (2 x one)": (APART, ONE, PROCESSES),
        "**weak scaling: DDP / (2 x one), same batch a process**": (REPLICATED, ONE, PROCESSES),
        "**strong scaling: DDP / (2 x one), same global batch**": (REPLICATED, ONE_DOUBLE, PROCESSES),
        "DDP / two independent processes": (REPLICATED, APART, 1),
        "FSDP / (2 x one), same batch a process": (SHARDED, ONE, PROCESSES),
        "FSDP / DDP": (SHARDED, REPLICATED, 1),
        "sending once a step / after each micro-batch": (SENT_ONCE, SENT_ALWAYS, 1),
    }
    rows = [[label, throughput_ratio(works, *compared).text(3)] for label, compared in ratios.items()]
    return table(["clips a second, ratio", ""], rows)


def communication_table(works: Works) -> list[str]:
    """Return what sending takes by itself, next to a step of DDP."""
    sent = [work.communication for work in works[REPLICATED] if work.communication is not None]
    steps = [work.step_seconds for work in works[REPLICATED]]
    kinds = {
        f"all-reduce of {sent[0].gradient_bytes / 1e6:.1f} MB of gradients": [each.gradients_seconds for each in sent],
        "gathering the step's statistics": [each.statistics_seconds for each in sent],
    }
    rows = [
        [name, spread_of(seconds).text(2, factor=1000), ratio_of(seconds, steps).text(2, factor=100)]
        for name, seconds in kinds.items()
    ]
    return table(["by itself", "ms", "% of a step of DDP"], rows)


def verdict(works: Works) -> str:
    """Say whether two processes keep what the machine lets two independent programs do."""
    kept = throughput_ratio(works, REPLICATED, APART)
    claim = f"Two processes train at {100 * KEPT_SHARE:.0f} % or more of the speed of two that share nothing"
    figures = f"{100 * kept.median:.1f} %, {kept.text(3)}"
    if max(work.other_cores for found in works.values() for work in found) > QUIET_CORES:
        return f"{claim}: not known, because other programs worked beside it ({figures})."
    return f"{claim}: {'kept' if round(kept.median, 3) >= KEPT_SHARE else 'missed'} ({figures})."


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
