"""Measure every way of training in turn, in processes of their own."""

import dataclasses
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.limited_process import MEMORY_LIMIT_GIB, LimitError, run_limited
from benchmarks.output import say
from benchmarks.processes_plan import Communication, Work, WorkPlan

TIME_LIMIT_SECONDS = 600.0  # for one way, once
QUIET_CORES = 0.1  # of other programs beside a measurement that is not called disturbed
PROCESSES = 2
ACCUMULATED = 4

ONE, ONE_DOUBLE, BOTH_CORES, APART = "one", "one_double", "both_cores", "apart"
REPLICATED, SHARDED = "replicated", "sharded"
SENT_ONCE, SENT_ALWAYS = "sent_once", "sent_always"


@dataclass(frozen=True)
class Way:
    """One way of training, and how a table calls it."""

    name: str
    label: str
    processes: int
    plan: WorkPlan


Measure = Callable[[Way], Work | LimitError]
Round = Mapping[str, Work]
"""What each way took in one alternation, by its name."""


def ways_of(options: Sequence[str], batch_size: int, steps: int) -> tuple[Way, ...]:
    """Return all ways.

    Args:
        options: of main.py, without the batch size.
        batch_size: clips of a process.
        steps: that are measured each time.
    """

    def plan(clips: int, accumulated: int = 1) -> WorkPlan:
        sizes = (f"--batch-size={clips}", f"--gradient-accumulation-steps={accumulated}")
        return WorkPlan(options=(*options, *sizes), steps=steps)

    single, double, parts = plan(batch_size), plan(PROCESSES * batch_size), plan(1, ACCUMULATED)
    both = dataclasses.replace(double, threads=PROCESSES, is_pinned=False)
    together = dataclasses.replace(single, measures_communication=True)
    divided = dataclasses.replace(single, options=(*single.options, "--parallelism=fsdp"))
    always = dataclasses.replace(parts, sends_always=True)
    return (
        Way(ONE, "1 process, 1 core", 1, single),
        Way(ONE_DOUBLE, "1 process, 1 core, the global batch of two", 1, double),
        Way(BOTH_CORES, "1 process, 2 cores (2 threads), that batch", 1, both),
        Way(APART, "2 independent processes at once", PROCESSES, dataclasses.replace(single, is_apart=True)),
        Way(REPLICATED, "2 processes, DDP", PROCESSES, together),
        Way(SHARDED, "2 processes, FSDP", PROCESSES, divided),
        Way(SENT_ONCE, f"2 processes, DDP, {ACCUMULATED} micro-batches of 1, sent once", PROCESSES, parts),
        Way(SENT_ALWAYS, f"2 processes, DDP, {ACCUMULATED} micro-batches of 1, sent each time", PROCESSES, always),
    )


def measure_in_processes(way: Way) -> Work | LimitError:
    """Start the processes, with torchrun where there are several; return the reason where there is no answer."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={way.processes}"]
    command = [
        sys.executable,
        *(torchrun if way.processes > 1 else []),
        "-m",
        "benchmarks.processes_worker",
        json.dumps(dataclasses.asdict(way.plan)),
    ]
    answer = run_limited(command, memory_gib=MEMORY_LIMIT_GIB, seconds=TIME_LIMIT_SECONDS)
    return answer if isinstance(answer, LimitError) else work_from_json(answer)


def work_from_json(answer: Mapping[str, object]) -> Work:
    """Read what a worker printed."""
    parts = dict(answer)
    if isinstance(parts["communication"], dict):
        parts["communication"] = Communication(**parts["communication"])
    return Work(**parts)  # type: ignore[arg-type]


def measure_ways(
    ways: Sequence[Way], alternations: int, tries: int, measure: Measure = measure_in_processes
) -> tuple[list[Round], bool]:
    """Measure all ways, then all of them again, `alternations` times in all, or until Ctrl-C.

    A measurement beside which other programs worked is made again, `tries` times at most, and the least disturbed one
    counts.

    Returns:
        The whole alternations, and whether it was interrupted.

    Raises:
        LimitError: a way took too much, or failed.
    """
    rounds: list[Round] = []
    try:
        for alternation in range(1, alternations + 1):
            works: dict[str, Work] = {}
            for way in ways:
                say(f"alternation {alternation} of {alternations}: {way.label}")
                works[way.name] = _least_disturbed(way, tries, measure)
            rounds.append(works)
    except KeyboardInterrupt:
        say("interrupted: the report is of the whole alternations so far")
        return rounds, True
    return rounds, False


def _least_disturbed(way: Way, tries: int, measure: Measure) -> Work:
    works: list[Work] = []
    while len(works) < tries and not any(is_quiet(work) for work in works):
        work = measure(way)
        if isinstance(work, LimitError):
            raise work
        works.append(work)
        say(f"  {work.step_seconds:.3f} s a step, {work.other_cores:.2f} cores busy with other things")
    return min(works, key=lambda work: work.other_cores)


def is_quiet(work: Work) -> bool:
    """Say whether nothing worth mention ran beside it."""
    return work.other_cores <= QUIET_CORES


def undisturbed(rounds: Sequence[Round]) -> list[Round]:
    """Return the alternations that nothing disturbed; all of them where none is."""
    quiet = [works for works in rounds if all(is_quiet(work) for work in works.values())]
    return quiet or list(rounds)
