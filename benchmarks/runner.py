"""What the benchmarks share: alternating measurements and their spread, options, reports, and the machine's facts."""

import argparse
import importlib.metadata
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import psutil
import torch

from benchmarks.worker_process import GIBIBYTE, WorkerError
from common.errors import UserError
from common.files import named_if_unwritable, write_atomically
from compute.device import ComputeDevice
from compute.environment import describe_environment

INTERRUPTED = 130
"""The exit code of a program that Ctrl-C ended."""
MEMORY_NOTE = "As in a run of main.py, memory that a step frees is kept for the next one."
SMALL_NETWORK = (
    *(
        "--image-size=16",
        "--max-frames=4",
        "--max-word-letters=3",
        "--model-channels=16,32",
        "--spatial-attention-sizes=4",
    ),
    *("--attention-head-channels=16", "--text-channels=16", "--text-layers=1", "--text-heads=1"),
    "--validation-clips=2",
)
"""Options of main.py for a small try."""
_PROCESSORS = Path("/proc/cpuinfo")

WayT = TypeVar("WayT", bound=Hashable)
ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest of repeated measurements."""

    median: float
    smallest: float
    largest: float
    repeats: int

    def text(self, digits: int, unit: str = "", factor: float = 1.0) -> str:
        """Return it for a table, every number times `factor`, such as 1000 to turn seconds into milliseconds."""
        median, smallest, largest = (
            f"{value * factor:.{digits}f}" for value in (self.median, self.smallest, self.largest)
        )
        return f"{median}{unit and ' '}{unit} ({smallest} to {largest})"


def spread_of(values: Sequence[float]) -> Spread:
    """Summarise at least one measurement."""
    return Spread(statistics.median(values), min(values), max(values), len(values))


def ratio_of(above: Sequence[float], below: Sequence[float]) -> Spread:
    """Summarise the ratios of two rows of measurements, pair by pair: those of one alternation belong together."""
    return spread_of([one / other for one, other in zip(above, below, strict=True)])


@dataclass(frozen=True)
class Alternations(Generic[WayT, ResultT]):
    """What each way of doing something gave, one result an alternation, and the ways that failed."""

    results: dict[WayT, list[ResultT]]
    failures: dict[WayT, WorkerError]
    interrupted: bool

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C; 1 where a way failed without going past a limit."""
        if self.interrupted:
            return INTERRUPTED
        return 1 if any(error.bound is None for error in self.failures.values()) else 0

    def complete(self) -> dict[WayT, list[ResultT]]:
        """Return the results, or raise KeyboardInterrupt if Ctrl-C ended them early."""
        if self.interrupted:
            raise KeyboardInterrupt
        return self.results


def alternate(
    ways: Iterable[WayT], alternations: int, measure: Callable[[WayT, int], ResultT]
) -> Alternations[WayT, ResultT]:
    """Measure all ways in turn, `alternations` times, so that what changes on the machine changes for all of them.

    `measure` gets the way and the number of the alternation, from 0. A way for which it raises WorkerError is left out
    from then on, and its earlier results do not count. Ctrl-C ends it with the complete alternations so far.

    Raises:
        KeyboardInterrupt: before the first alternation was complete.
    """
    results: dict[WayT, list[ResultT]] = {way: [] for way in ways}
    failures: dict[WayT, WorkerError] = {}
    interrupted = False
    complete = 0
    try:
        for number in range(alternations):
            say(f"alternation {number + 1} of {alternations}")
            for way in list(results):
                try:
                    results[way].append(measure(way, number))
                except WorkerError as error:
                    failures[way] = error
                    del results[way]
            complete += 1
    except KeyboardInterrupt:
        if not complete:
            raise
        interrupted = True
        say("interrupted: only complete alternations count")
    return Alternations({way: found[:complete] for way, found in results.items()}, failures, interrupted)


def seconds_of(work: Callable[[], object]) -> float:
    """Do something and return how long it took."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def say(text: str) -> None:
    """Show progress, apart from the report on standard output."""
    print(text, file=sys.stderr, flush=True)


def publish(machine: str, report: Iterable[str], figures: Mapping[str, object], path: Path | None) -> None:
    """Print a report below the line about the machine, then write the figures as JSON if a path is given."""
    print("\n".join([machine, "", *report]))
    if path is not None:
        content = {"machine": machine, **figures}
        with named_if_unwritable(f"--json {path}"):
            write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())


def points_of(run: Path) -> dict[str, list[float]]:
    """Return the values that a run logged, by tag."""
    values: dict[str, list[float]] = {}
    for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        point = json.loads(line)
        values.setdefault(point["tag"], []).append(point["value"])
    return values


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return a table in Markdown and an empty line; rows that are too short are filled up with empty cells."""
    filled = ([*row, *[""] * (len(head) - len(row))] for row in rows)
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *filled)]
    return [lines[0], "|" + "---|" * len(head), *lines[1:], ""]


def machine_line(*distributions: str) -> str:
    """Return one line for the head of a report: processor, threads of PyTorch, memory, versions, git commit.

    Raises:
        UserError: one of the `distributions`, whose versions belong to the figures, is not installed.
    """
    try:
        versions = [f"{name} {importlib.metadata.version(name)}" for name in distributions]
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(f"{error.name} is not installed: pip install -r benchmarks/requirements.txt") from error
    facts = describe_environment(ComputeDevice(torch.device("cpu"), autocast_dtype=None), [])
    parts = [
        f"{psutil.cpu_count()} cores of {_processor()}",
        f"{torch.get_num_threads()} threads",
        f"{psutil.virtual_memory().total / GIBIBYTE:.0f} GiB of memory",
        f"{platform.system()} {platform.machine()}",
        f"Python {platform.python_version()}",
        f"PyTorch {torch.__version__}",
        *versions,
        f"commit {facts.get('git_commit', 'unknown')}",
    ]
    if torch.cuda.is_available():
        parts.insert(1, torch.cuda.get_device_name())
    return ", ".join(parts)


def _processor() -> str:
    if _PROCESSORS.exists():
        for line in _PROCESSORS.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "an unnamed processor"


def plain_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser of `python -m benchmarks.NAME` without options."""
    return argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def build_parser(
    name: str, description: str | None, *, alternations: int = 0, quick: str = ""
) -> argparse.ArgumentParser:
    """Return a parser of `python -m benchmarks.NAME`; it has --alternations and --quick where these are described."""
    parser = plain_parser(name, description)
    if alternations:
        text = f"turns of everything that is compared (default {alternations})"
        parser.add_argument("--alternations", type=at_least_one, default=alternations, metavar="N", help=text)
    if quick:
        parser.add_argument("--quick", action="store_true", help=f"a small try: {quick}")
    parser.add_argument("--json", type=output_file, metavar="PATH", help="also write all figures to this file")
    return parser


def at_least(smallest: int, text: str) -> int:
    """Read a whole number of at least `smallest`."""
    number = int(text)
    if number < smallest:
        raise argparse.ArgumentTypeError(f"must be at least {smallest}, not {number}")
    return number


def at_least_one(text: str) -> int:
    """Read a count."""
    return at_least(1, text)


def seed(text: str) -> int:
    """Read a seed."""
    return at_least(0, text)


def output_file(text: str) -> Path:
    """Read the name of a file to write, in a folder that exists."""
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text} must be a file in a folder that exists")
    return path
