"""The tables of benchmarks.processes, in Markdown."""

import statistics
from collections.abc import Sequence

from benchmarks.processes_measure import (
    APART,
    ONE,
    ONE_DOUBLE,
    PROCESSES,
    REPLICATED,
    SENT_ALWAYS,
    SENT_ONCE,
    SHARDED,
    Round,
    Way,
)
from benchmarks.processes_plan import Communication
from benchmarks.spread import Spread, ratio_of, spread_of

KEPT_SHARE = 0.9  # of what two independent processes do that DDP has to keep


def throughput_ratio(rounds: Sequence[Round], name: str, baseline: str, processes: int = 1) -> Spread:
    """Return the clips a second of one way by `processes` times those of another, in the same alternation."""
    return ratio_of(
        [works[name].clips_per_second for works in rounds],
        [processes * works[baseline].clips_per_second for works in rounds],
    )


def ways_table(ways: Sequence[Way], rounds: Sequence[Round]) -> list[str]:
    """Return one row a way, its efficiency by the baseline that has the same batch a process."""
    return [
        "| way | step | clips a second | share of 2 x one process | peak memory of a process | others, cores |",
        "|---|---|---|---|---|---|",
        *(_row(way, rounds) for way in ways),
        "",
    ]


def _row(way: Way, rounds: Sequence[Round]) -> str:
    works = [each[way.name] for each in rounds]
    step = spread_of([work.step_seconds for work in works]).text(3, "s")
    clips = spread_of([work.clips_per_second for work in works]).text(2)
    share = throughput_ratio(rounds, way.name, ONE, PROCESSES).text(2)
    memory = spread_of([work.memory_gib for work in works]).text(2, "GiB")
    others = max(work.other_cores for work in works)
    return f"| {way.label} | {step} | {clips} | {share} | {memory} | {others:.2f} |"


def efficiency_table(rounds: Sequence[Round]) -> list[str]:
    """Return what two processes gain, against what the machine lets two programs gain."""
    rows = [
        ("the machine: two independent processes / (2 x one)", throughput_ratio(rounds, APART, ONE, PROCESSES)),
        (
            "**weak scaling: DDP / (2 x one), same batch a process**",
            throughput_ratio(rounds, REPLICATED, ONE, PROCESSES),
        ),
        (
            "**strong scaling: DDP / (2 x one), same global batch**",
            throughput_ratio(rounds, REPLICATED, ONE_DOUBLE, PROCESSES),
        ),
        ("DDP / two independent processes", throughput_ratio(rounds, REPLICATED, APART)),
        ("FSDP / (2 x one), same batch a process", throughput_ratio(rounds, SHARDED, ONE, PROCESSES)),
        ("FSDP / DDP", throughput_ratio(rounds, SHARDED, REPLICATED)),
        ("sending once a step / after each micro-batch", throughput_ratio(rounds, SENT_ONCE, SENT_ALWAYS)),
    ]
    return ["| clips a second, ratio | |", "|---|---|", *(f"| {name} | {ratio.text(3)} |" for name, ratio in rows), ""]


def communication_table(rounds: Sequence[Round]) -> list[str]:
    """Return what sending takes by itself, beside a step of DDP."""
    sent = [works[REPLICATED].communication for works in rounds]
    steps = [works[REPLICATED].step_seconds for works in rounds]
    found = [each for each in sent if each is not None]
    if len(found) < len(steps):
        return []
    rows = [
        (
            f"all-reduce of {found[0].gradient_bytes / 1e6:.1f} MB of gradients",
            [each.gradients_seconds for each in found],
        ),
        ("gathering the step's statistics", [each.statistics_seconds for each in found]),
        *((f"all-reduce of {int(size):,} bytes", _of_bytes(found, size)) for size in found[0].seconds_of_bytes),
    ]
    return [
        "| by itself | ms | % of a step of DDP |",
        "|---|---|---|",
        *(
            f"| {name} | {spread_of(seconds).text(2, factor=1000)} | {ratio_of(seconds, steps).text(2, factor=100)} |"
            for name, seconds in rows
        ),
        "",
    ]


def _of_bytes(found: Sequence[Communication], size: str) -> list[float]:
    return [each.seconds_of_bytes[size] for each in found]


def verdict(rounds: Sequence[Round], *, is_disturbed: bool) -> str:
    """Say whether two processes keep what the machine lets two independent programs do."""
    kept = throughput_ratio(rounds, REPLICATED, APART)
    weak = throughput_ratio(rounds, REPLICATED, ONE, PROCESSES)
    claim = f"Two processes train at {100 * KEPT_SHARE:.0f} % or more of the speed of two that share nothing"
    figures = f"{100 * kept.median:.1f} %, {kept.text(3)}; efficiency {weak.text(3)}"
    if is_disturbed:
        return f"{claim}: not known, because other programs disturbed every alternation ({figures})."
    return f"{claim}: {'kept' if round(kept.median, 3) >= KEPT_SHARE else 'missed'} ({figures})."


def saved_seconds(rounds: Sequence[Round]) -> float:
    """Return how much shorter a step is whose gradients travel once, in seconds, median of the alternations."""
    return statistics.median(works[SENT_ALWAYS].step_seconds - works[SENT_ONCE].step_seconds for works in rounds)
