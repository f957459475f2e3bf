"""`python -m evaluation` as a process of its own, and the figures of its report."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent

Figure = tuple[float, float, float]
"""A figure and the two ends of its 95 % interval."""


@dataclass(frozen=True)
class Failure:
    """A process that failed, with the last line it said."""

    reason: str


def threads_of_each(jobs: int) -> int:
    """Return how many threads each of some processes gets, so that together they fill the cores."""
    return max(1, (psutil.cpu_count(logical=False) or 1) // jobs)


def run_process(command: Sequence[str], threads: int) -> Failure | None:
    """Run one of the project's programs in its folder and wait for it; return what went wrong, if anything."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode == 0:
        return None
    said = done.stderr.strip().splitlines()
    return Failure(said[-1] if said else f"exit code {done.returncode}")


def evaluate_run(run: Path, report: Path, options: Sequence[str], threads: int) -> Mapping[str, object] | Failure:
    """Evaluate a run and return the report, which is also written.

    Args:
        options: more options of `python -m evaluation`.
        threads: of the process.
    """
    command = ["-m", "evaluation", f"--run={run.resolve()}", f"--output={report.resolve()}", *options]
    failure = run_process(command, threads)
    if failure is not None:
        return failure
    content: dict[str, object] = json.loads(report.read_text(encoding="utf-8"))
    return content


def figure_of(group: Mapping[str, object], name: str) -> Figure:
    """Return a figure of a report, or of one of its groups, with its interval.

    Raises:
        KeyError, TypeError: it is absent, or null.
    """
    low, high = group["intervals"][name]  # type: ignore[index]
    return float(group[name]), float(low), float(high)  # type: ignore[arg-type]


def percent(figure: Figure) -> str:
    """Return a figure and its interval in percent."""
    value, low, high = (f"{100 * part:.1f}" for part in figure)
    return f"{value} % ({low} to {high})"
