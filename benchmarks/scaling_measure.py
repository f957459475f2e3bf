"""Measure every setting of some axes in turn, and fit how seconds and memory grow along each."""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.limited_process import MEMORY_LIMIT_GIB, LimitError, run_limited
from benchmarks.output import say
from benchmarks.scaling_axes import Axis, Setting
from benchmarks.scaling_fit import fit_power_law, largest_two_exponent
from benchmarks.scaling_worker import Measurement
from benchmarks.spread import Spread, ratio_of, spread_of

TIME_LIMIT_SECONDS = 180.0  # for a process, which makes at least two steps

Measure = Callable[[Setting], Measurement | LimitError]


@dataclass(frozen=True)
class Point:
    """What one setting took over all alternations, or why it was skipped."""

    setting: Setting
    measurements: tuple[Measurement, ...]  # one a whole alternation; empty where it was skipped
    ratio: Spread | None  # of its seconds to those of the smallest setting, alternation by alternation
    skipped: str | None
    is_crash: bool  # it was skipped, and for no limit

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

    @property
    def alternations(self) -> int:
        return max(len(point.measurements) for point in self.points)


@dataclass(frozen=True)
class _Skip:
    """Why a setting was given up."""

    reason: str
    is_crash: bool = False


def measure_in_process(setting: Setting) -> Measurement | LimitError:
    """Measure a setting in a process of its own; return the reason where it took more than it may, or failed."""
    command = [sys.executable, "-m", "benchmarks.scaling_worker", *setting.options]
    answer = run_limited(command, memory_gib=MEMORY_LIMIT_GIB, seconds=TIME_LIMIT_SECONDS)
    return answer if isinstance(answer, LimitError) else Measurement(**answer)  # type: ignore[arg-type]


def measure_axes(
    axes: Sequence[Axis], alternations: int, measure: Measure = measure_in_process
) -> tuple[list[AxisResult], bool]:
    """Measure all settings of all axes, then all of them again, `alternations` times in all, or until Ctrl-C.

    A setting that fails once is skipped from then on, and what it gave before does not count. Larger ones of the same
    axis are not tried any more.

    Returns:
        What there is of whole alternations, of each axis on its own, and whether it was interrupted.
    """
    rounds: dict[Setting, list[Measurement]] = {setting: [] for axis in axes for setting in axis.settings}
    skipped: dict[Setting, _Skip] = {}
    interrupted = False
    try:
        for alternation in range(1, alternations + 1):
            for axis in axes:
                say(f"{axis.name}: alternation {alternation} of {alternations}")
                _pass_over(axis, measure, rounds, skipped)
    except KeyboardInterrupt:
        interrupted = True
        say("interrupted: the report is of the whole alternations so far")
        for setting, measured in rounds.items():
            if not measured:
                skipped.setdefault(setting, _Skip("interrupted"))
    return [_result(axis, rounds, skipped) for axis in axes], interrupted


def _pass_over(
    axis: Axis, measure: Measure, rounds: dict[Setting, list[Measurement]], skipped: dict[Setting, _Skip]
) -> None:
    for index, setting in enumerate(axis.settings):
        if setting in skipped:
            return
        measured = measure(setting)
        if isinstance(measured, LimitError):
            skipped[setting] = _Skip(str(measured), measured.is_crash)
            larger = _Skip(f"not tried: {setting.label} was skipped")
            skipped.update(dict.fromkeys(axis.settings[index + 1 :], larger))
            return
        rounds[setting].append(measured)


def _result(axis: Axis, rounds: dict[Setting, list[Measurement]], skipped: dict[Setting, _Skip]) -> AxisResult:
    measured = [setting for setting in axis.settings if setting not in skipped]
    whole = min((len(rounds[setting]) for setting in measured), default=0)
    seconds = [[each.seconds for each in rounds[setting][:whole]] for setting in measured]
    memory = [[each.memory_gib for each in rounds[setting][:whole]] for setting in measured]
    points = []
    for setting in axis.settings:
        skip = skipped.get(setting)
        if skip is not None:
            points.append(Point(setting, (), None, skip.reason, skip.is_crash))
            continue
        ratio = ratio_of(seconds[measured.index(setting)], seconds[0])
        points.append(Point(setting, tuple(rounds[setting][:whole]), ratio, None, is_crash=False))
    sizes = [setting.size for setting in measured]
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
