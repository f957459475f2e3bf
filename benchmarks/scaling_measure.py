"""Measure every setting of some axes in turn, and fit how seconds and memory grow along each."""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.limited_process import run_limited
from benchmarks.scaling_axes import Axis, Setting
from benchmarks.scaling_fit import fit_power_law, largest_two_exponent
from benchmarks.scaling_worker import Measurement
from benchmarks.spread import Spread, spread_of

MEMORY_LIMIT_GIB = 16.0
TIME_LIMIT_SECONDS = 180.0  # for a process, which makes at least two steps

Measure = Callable[[Setting], Measurement | str]


@dataclass(frozen=True)
class Point:
    """What one setting took over all alternations, or why it was skipped."""

    setting: Setting
    measurements: tuple[Measurement, ...]  # one an alternation; empty where it was skipped
    ratio: Spread | None  # of its seconds to those of the smallest setting, alternation by alternation
    skipped: str | None

    @property
    def seconds(self) -> Spread:
        return spread_of([each.seconds for each in self.measurements])

    @property
    def memory_gib(self) -> Spread:
        return spread_of([each.memory_gib for each in self.measurements])


@dataclass(frozen=True)
class Growth:
    """The fit of a quantity to factor * size ** exponent, alternation by alternation."""

    factor: Spread
    exponent: Spread  # over all sizes
    exponent_of_largest_two: Spread


@dataclass(frozen=True)
class AxisResult:
    """All that was measured along one axis."""

    axis: Axis
    points: tuple[Point, ...]
    seconds: Growth | None  # None where fewer than two settings could be measured
    memory: Growth | None


def measure_in_process(setting: Setting) -> Measurement | str:
    """Measure a setting in a process of its own; return the reason where it took more than it may."""
    command = [sys.executable, "-m", "benchmarks.scaling_worker", *setting.options]
    answer = run_limited(command, memory_gib=MEMORY_LIMIT_GIB, seconds=TIME_LIMIT_SECONDS)
    return answer if isinstance(answer, str) else Measurement(**answer)  # type: ignore[arg-type]


def measure_axes(axes: Sequence[Axis], alternations: int, measure: Measure = measure_in_process) -> list[AxisResult]:
    """Measure all settings of all axes, then all of them again, `alternations` times in all.

    A setting that fails once is skipped from then on, and what it gave before does not count. Larger ones of the same
    axis are not tried any more.
    """
    rounds: dict[Setting, list[Measurement]] = {setting: [] for axis in axes for setting in axis.settings}
    skipped: dict[Setting, str] = {}
    for alternation in range(1, alternations + 1):
        for axis in axes:
            print(f"{axis.name}: alternation {alternation} of {alternations}", file=sys.stderr, flush=True)
            _pass_over(axis, measure, rounds, skipped)
    return [_result(axis, rounds, skipped) for axis in axes]


def _pass_over(
    axis: Axis, measure: Measure, rounds: dict[Setting, list[Measurement]], skipped: dict[Setting, str]
) -> None:
    for index, setting in enumerate(axis.settings):
        if setting in skipped:
            return
        measured = measure(setting)
        if isinstance(measured, str):
            skipped[setting] = measured
            skipped.update(dict.fromkeys(axis.settings[index + 1 :], f"not tried: {setting.label} was skipped"))
            return
        rounds[setting].append(measured)


def _result(axis: Axis, rounds: dict[Setting, list[Measurement]], skipped: dict[Setting, str]) -> AxisResult:
    measured = [setting for setting in axis.settings if setting not in skipped]
    points = []
    for setting in axis.settings:
        if setting in skipped:
            points.append(Point(setting, (), None, skipped[setting]))
            continue
        pairs = zip(rounds[setting], rounds[measured[0]], strict=True)
        ratio = spread_of([own.seconds / smallest.seconds for own, smallest in pairs])
        points.append(Point(setting, tuple(rounds[setting]), ratio, None))
    sizes = [setting.size for setting in measured]
    seconds = [[each.seconds for each in rounds[setting]] for setting in measured]
    memory = [[each.memory_gib for each in rounds[setting]] for setting in measured]
    return AxisResult(axis, tuple(points), growth(sizes, seconds), growth(sizes, memory))


def growth(sizes: Sequence[float], values: Sequence[Sequence[float]]) -> Growth | None:
    """Fit each alternation.

    Args:
        sizes: one a setting.
        values: for each setting one value an alternation.

    Returns:
        None with fewer than two settings.
    """
    if len(sizes) < 2:
        return None
    by_alternation = list(zip(*values, strict=True))
    laws = [fit_power_law(sizes, row) for row in by_alternation]
    return Growth(
        factor=spread_of([law.factor for law in laws]),
        exponent=spread_of([law.exponent for law in laws]),
        exponent_of_largest_two=spread_of([largest_two_exponent(sizes, row) for row in by_alternation]),
    )


def result_as_json(result: AxisResult) -> dict[str, object]:
    """Return an axis with all its measurements and fits as JSON-compatible values."""
    return dataclasses.asdict(result)
