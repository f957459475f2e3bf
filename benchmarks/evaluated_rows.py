"""Rows of a table, each evaluated by processes of its own: what benchmarks.recipe and benchmarks.spelling share."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import runner
from common.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
ONE_SAMPLE = "--samples-per-word=1"

Figure = tuple[float, float, float]
"""A figure and the two ends of its 95 % interval."""
Figures = dict[str, Any]
"""What came of a row, by name: numbers, words, and a `Figure` for each rate."""


def measure_rows(
    names: Sequence[str],
    measure: Callable[[str], Figures],
    head: Sequence[str],
    cells: Callable[[str, Figures], Sequence[str]],
    intro: str,
    json_path: Path | None,
) -> int:
    """Measure one row after the other, print the table and return the exit code. Ctrl-C ends it with those so far.

    `measure` returns the figures of a row or raises UserError, and `cells` makes them a row of the table.

    Raises:
        UserError: the first row failed, which trains the recogniser that the others find in the cache.
    """
    rows: dict[str, Figures] = {}
    failures: dict[str, str] = {}
    interrupted = False
    try:
        for name in names:
            runner.say(f"{name} ...")
            try:
                rows[name] = measure(name)
            except UserError as error:
                if not rows:
                    raise
                failures[name] = str(error)
    except KeyboardInterrupt:
        interrupted = True
        runner.say("interrupted")
    lines = [cells(name, figures) for name, figures in rows.items()]
    lines += [[name, f"failed: {reason}"] for name, reason in failures.items()]
    content = {"rows": rows, "failures": failures}
    runner.publish(runner.machine_line(), [intro, "", *runner.table(head, lines)], content, json_path)
    if interrupted:
        return runner.INTERRUPTED
    return 1 if failures else 0


def run_process(command: Sequence[str]) -> None:
    """Run one of the project's programs in its folder and wait for it.

    Raises:
        UserError: it failed; with the last line that it said.
    """
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise UserError(said[-1].removeprefix("error: "))


def evaluate_run(run: Path, report: Path, options: Sequence[str]) -> dict[str, Any]:
    """Evaluate a run with `python -m evaluation` and return the report, which is also written."""
    command = ["-m", "evaluation", f"--run={run.resolve()}", f"--output={report.resolve()}", *options]
    run_process(command)
    return dict(json.loads(report.read_text(encoding="utf-8")))


def figure_of(group: Mapping[str, Any], name: str) -> Figure:
    """Return a figure of a report's group with its interval; UserError if it is absent, or null."""
    try:
        low, high = group["intervals"][name]
        return float(group[name]), float(low), float(high)
    except (KeyError, TypeError) as error:
        raise UserError(f"the report lacks {name}") from error


def percent(figure: Figure) -> str:
    """Return a figure and its interval in percent."""
    value, low, high = (f"{100 * part:.1f}" for part in figure)
    return f"{value} % ({low} to {high})"
