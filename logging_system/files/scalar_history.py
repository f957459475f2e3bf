"""Every scalar of a run in memory, compact and bounded: what the run doctor judges."""

import json
import math
import re
import threading
from array import array
from dataclasses import dataclass, field
from pathlib import Path

import numpy
from numpy.typing import NDArray

MAXIMUM_POINTS = 2048  # of one tag: 32 kB, and fine enough for any judgement about a run
NEWEST_POINTS = 512  # that are never thinned, so that the recent past stays as fine as it was logged
OLDER_POINTS = 1024  # what thinning leaves of the rest at most
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def tag_expression(pattern: str) -> re.Pattern[str]:
    """Return the expression of the tags that match a pattern with names in braces. A name never holds a slash."""
    pieces = ["[^/]+" if piece.startswith("{") else re.escape(piece) for piece in re.split(r"(\{\w+\})", pattern)]
    return re.compile("".join(pieces))


def json_number(value: float) -> float | str:
    """Return a number as JSON can hold it: NaN and the infinities, which JSON lacks, become the names above."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


@dataclass(frozen=True)
class ScalarSeries:
    """The points of one tag, steps strictly increasing. Values may be NaN or infinite unless `finite` dropped those."""

    tag: str
    steps: NDArray[numpy.int64]  # [N]
    values: NDArray[numpy.float64]  # [N]

    def __len__(self) -> int:
        return len(self.steps)

    def finite(self) -> "ScalarSeries":
        return self.where(numpy.isfinite(self.values))

    def since(self, step: int) -> "ScalarSeries":
        return self.where(self.steps >= step)

    def newest(self, count: int) -> "ScalarSeries":
        """Return the last `count` points, or all where there are fewer."""
        return self.where(numpy.arange(len(self)) >= len(self) - count)

    def at(self, step: int) -> float | None:
        """Return the value at a step; None where the tag has no point there."""
        found = self.values[self.steps == step]
        return float(found[0]) if len(found) else None

    def where(self, chosen_N: NDArray[numpy.bool_]) -> "ScalarSeries":
        return ScalarSeries(self.tag, self.steps[chosen_N], self.values[chosen_N])


@dataclass
class _Points:
    steps: "array[int]" = field(default_factory=lambda: array("q"))
    values: "array[float]" = field(default_factory=lambda: array("d"))

    def add(self, step: int, value: float) -> None:
        while self.steps and self.steps[-1] >= step:
            self.steps.pop()
            self.values.pop()
        self.steps.append(step)
        self.values.append(value)
        if len(self.steps) > MAXIMUM_POINTS:
            self._thin()

    def _thin(self) -> None:
        """Keep the newest points, and of the older ones some that are evenly spread over their steps."""
        old = len(self.steps) - NEWEST_POINTS
        spacing = (self.steps[old - 1] - self.steps[0]) / OLDER_POINTS
        kept = [0]
        for index in range(1, old):
            if self.steps[index] - self.steps[kept[-1]] >= spacing:
                kept.append(index)
        kept.extend(range(old, len(self.steps)))
        self.steps = array("q", (self.steps[index] for index in kept))
        self.values = array("d", (self.values[index] for index in kept))


class ScalarHistory:
    """Tag to series of (step, value).

    When a tag passes MAXIMUM_POINTS, all but the newest are thinned to an even spread over the steps, however long the
    run is. Safe to use from several threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._points: dict[str, _Points] = {}

    def add(self, tag: str, step: int, value: float) -> None:
        """Add a point. A step that is not above the tag's last one takes the place of what is at or beyond it.

        Raises:
            OverflowError: `step` does not fit into 64 bits; nothing is added then.
        """
        if not -(2**63) <= step < 2**63:
            raise OverflowError(f"step {step} of {tag} does not fit into 64 bits")
        with self._lock:
            self._points.setdefault(tag, _Points()).add(step, value)

    def series(self, tag: str) -> ScalarSeries:
        """Return a copy of a tag's points; empty for a tag that is unknown."""
        with self._lock:
            points = self._points.get(tag, _Points())
            steps = numpy.array(points.steps, dtype=numpy.int64)
            return ScalarSeries(tag, steps, numpy.array(points.values, dtype=numpy.float64))

    def matching(self, pattern: str) -> tuple[ScalarSeries, ...]:
        """Return the series that match a pattern such as "09_Parameter_Stats/{layer}/Mean", the first to come first."""
        expression = tag_expression(pattern)
        with self._lock:
            tags = [tag for tag in self._points if expression.fullmatch(tag)]
        return tuple(self.series(tag) for tag in tags)

    def __len__(self) -> int:
        """Return the number of tags."""
        return len(self._points)


@dataclass(frozen=True)
class HistoryFile:
    """What a ``metrics.jsonl`` holds."""

    history: ScalarHistory
    unreadable_lines: int  # complete lines that are not a point; the torn last line of a live run is not counted


def read_history(path: Path) -> HistoryFile:
    """Read a ``metrics.jsonl``, also while a run writes it: a last line without its line end is left out.

    Raises:
        OSError: the file is missing or cannot be read.
    """
    history = ScalarHistory()
    unreadable = 0
    with open(path, "rb") as file:
        for line in file:
            if line.endswith(b"\n") and not _add_line(history, line):
                unreadable += 1
    return HistoryFile(history, unreadable)


def _add_line(history: ScalarHistory, line: bytes) -> bool:
    """Add a line's point, and say whether it is one."""
    try:
        point = json.loads(line)
        tag, step, value = point["tag"], point["step"], point["value"]
        number = _NOT_FINITE[value] if isinstance(value, str) else float(value)
        if type(tag) is not str or type(step) is not int:
            return False
        history.add(tag, step, number)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):  # torn by a crash, or not ours
        return False
    return True
