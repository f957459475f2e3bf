"""Data-bound, memory growth, logging and disk."""

import math
from collections.abc import Callable

import numpy
import pytest

from logging_system.doctor.finding import Finding, Healthy, Unknown
from logging_system.doctor.rules_machine import data_bound, logging_and_disk, memory_growth, robust_slope, straggler
from logging_system.files.scalar_history import ScalarHistory, ScalarSeries

Build = Callable[..., ScalarHistory]
LOG = range(10, 1201, 10)
WAIT = "05_Performance/Data_Wait_Percent"
OVERHEAD = "05_Performance/Logging_Overhead_Percent"
FAILURES = "05_Performance/Logging_Failures"
DROPPED = "05_Performance/Dropped_Videos"
RSS = "14_System/Process_RSS_GB"
LOADER = "14_System/Loader_RSS_GB"
DISK = "14_System/Disk_Free_GB"
SPREAD = "05_Performance/Rank_Spread_Percent"
SLOWEST = "05_Performance/Slowest_Rank"
LAUNCH = "08_Model_Architecture/Total_Parameters"


@pytest.mark.parametrize(("percent", "expected"), [(9.9, Healthy), (10.1, Finding)])
def test_waiting_for_data(percent: float, expected: type, history_with: Build, config: dict[str, object]) -> None:
    wait = {step: percent if step > 1100 else 40 - percent for step in LOG}
    wait[1150] = 90.0  # one slow batch
    wait[1160] = 0.0
    opinion = data_bound(history_with({WAIT: wait}), config)
    assert isinstance(opinion, expected)
    if isinstance(opinion, Finding):
        assert (opinion.severity, opinion.evidence[0].tag) == ("warning", WAIT)
        assert "NUM_WORKERS" in opinion.remedy


def test_waiting_needs_three_points_of_this_launch(history_with: Build, config: dict[str, object]) -> None:
    wait = dict.fromkeys(LOG, 50.0)
    assert isinstance(data_bound(history_with({WAIT: wait, LAUNCH: {0: 1.0, 1171: 1.0}}), config), Finding)
    assert isinstance(data_bound(history_with({WAIT: wait, LAUNCH: {0: 1.0, 1181: 1.0}}), config), Unknown)
    assert isinstance(data_bound(history_with({WAIT: None}), config), Unknown)


@pytest.mark.parametrize(("busy", "expected"), [(89.0, Finding), (91.0, Healthy)])
def test_waiting_does_not_matter_while_the_gpu_is_busy(
    busy: float, expected: type, history_with: Build, config: dict[str, object]
) -> None:
    tags = {WAIT: dict.fromkeys(LOG, 50.0), "14_System/GPU_Utilization_Percent": dict.fromkeys(LOG, busy)}
    assert isinstance(data_bound(history_with(tags), config), expected)


@pytest.mark.parametrize(
    ("percent", "rank", "expected"),
    [
        (11.0, lambda step: 3.0, Finding),
        (9.0, lambda step: 3.0, Healthy),  # small
        (30.0, lambda step: float(step // 10 % 4), Healthy),  # never the same
        (30.0, lambda step: 3.0 if step % 30 else 1.0, Finding),  # mostly the same
    ],
    ids=["large", "small", "never the same", "mostly the same"],
)
def test_a_process_that_the_others_wait_for(
    percent: float,
    rank: Callable[[int], float],
    expected: type,
    history_with: Build,
    config: dict[str, object],
) -> None:
    tags = {SPREAD: dict.fromkeys(LOG, percent), SLOWEST: {step: rank(step) for step in LOG}}
    opinion = straggler(history_with(tags), config)
    assert isinstance(opinion, expected)
    if isinstance(opinion, Finding):
        assert opinion.evidence[0].tag == SPREAD
        assert "rank 3" in opinion.explanation


def test_one_process_alone_has_no_straggler_and_few_points_say_nothing(
    history_with: Build, config: dict[str, object]
) -> None:
    assert isinstance(straggler(history_with({}), config), Healthy)
    assert isinstance(straggler(history_with({WAIT: None}), config), Unknown)
    few = dict.fromkeys((1170, 1180, 1190, 1200), 50.0)
    assert isinstance(straggler(history_with({SPREAD: few, SLOWEST: few}), config), Unknown)


def _growing(level: float, growth: float) -> dict[int, float]:
    """Memory at `level` in the middle of the second half, which grows by `growth` over it, with wild readings."""
    curve = {step: level + growth * (step - 905) / 590 for step in LOG}
    return {step: 50.0 if step % 70 == 0 else value for step, value in curve.items()}


@pytest.mark.parametrize(
    ("level", "growth", "expected"),
    [
        (2.5, 0.24, Healthy),  # below a tenth
        (2.5, 0.27, Finding),
        (1.0, 0.19, Healthy),  # below 0.2 GB
        (1.0, 0.21, Finding),
        (2.5, -1.0, Healthy),
    ],
)
def test_memory_that_climbs(
    level: float, growth: float, expected: type, history_with: Build, config: dict[str, object]
) -> None:
    opinion = memory_growth(history_with({RSS: _growing(level, growth)}), config)
    assert isinstance(opinion, expected)
    if isinstance(opinion, Finding):
        assert [point.tag for point in opinion.evidence] == [RSS]
        assert f"grew by {growth:.2f} GB from step 610 to 1200" in opinion.explanation


@pytest.mark.parametrize("tag", [LOADER, "14_System/GPU_Memory_Allocated_GB", "14_System/MPS_Driver_Memory_GB"])
def test_every_kind_of_memory_counts(tag: str, history_with: Build, config: dict[str, object]) -> None:
    opinion = memory_growth(history_with({tag: {step: step / 600 for step in LOG}}), config)
    assert isinstance(opinion, Finding)
    assert opinion.evidence[0].tag == tag


def test_a_step_up_in_the_first_half_is_no_growth(history_with: Build, config: dict[str, object]) -> None:
    settled = {step: 1.0 if step < 590 else 3.0 for step in LOG}
    assert isinstance(memory_growth(history_with({RSS: settled}), config), Healthy)


def test_memory_of_an_earlier_launch_is_not_compared(history_with: Build, config: dict[str, object]) -> None:
    two = {step: 1.0 if step <= 700 else 3.0 for step in LOG}
    assert isinstance(memory_growth(history_with({RSS: two, LOADER: None}), config), Healthy)
    growing = {step: 9.0 if step <= 700 else step / 600 for step in LOG}
    relaunched = {RSS: growing, LOADER: None, LAUNCH: {0: 1.0, 701: 1.0}}
    assert isinstance(memory_growth(history_with(relaunched), config), Finding)


@pytest.mark.parametrize(("readings", "expected"), [(38, Unknown), (39, Finding)])
def test_memory_needs_readings(readings: int, expected: type, history_with: Build, config: dict[str, object]) -> None:
    curve = {step: step / 100 for step in range(10, 10 * readings + 1, 10)}
    assert isinstance(memory_growth(history_with({RSS: curve, LOADER: None}), config), expected)


def test_slope_equals_that_of_the_line_under_wild_points() -> None:
    steps = numpy.array([0, 10, 30, 40, 70, 90, 100, 150, 160], dtype=numpy.int64)
    values = 5 + 0.25 * steps
    values[[2, 7]] = (400.0, -90.0)
    assert robust_slope(ScalarSeries("a", steps, values)) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("changes", "severity", "remedy"),
    [
        ({FAILURES: {1200: 2.0}}, "warning", "logging_errors.log"),
        ({DROPPED: {600: 1.0}}, "warning", "SAMPLE_EVERY_STEPS"),
        ({OVERHEAD: {200: 2.1}}, "warning", "LOG_EVERY_STEPS"),
        ({DISK: {1200: 1.9}}, "problem", "KEEP_CHECKPOINTS"),
        ({OVERHEAD: {190: 9.0}}, None, ""),  # the first steps are dominated by what is written once
        ({OVERHEAD: {200: 1.9}}, None, ""),
        ({DISK: {600: 1.0, 1200: 2.1}}, None, ""),
        ({FAILURES: {600: 3.0}, LAUNCH: {0: 1.0, 601: 1.0}}, None, ""),  # of an earlier launch
    ],
)
def test_logging_and_disk(
    changes: dict[str, dict[int, float]],
    severity: str | None,
    remedy: str,
    history_with: Build,
    config: dict[str, object],
) -> None:
    opinion = logging_and_disk(history_with(changes), config)
    assert isinstance(opinion, Healthy if severity is None else Finding)
    if isinstance(opinion, Finding):
        assert opinion.severity == severity
        assert remedy in opinion.remedy
        assert [point.tag for point in opinion.evidence] == list(changes)


def test_the_worst_of_several_signs_decides(history_with: Build, config: dict[str, object]) -> None:
    opinion = logging_and_disk(history_with({FAILURES: {1200: 2.0}, DISK: {1200: 0.5}}), config)
    assert isinstance(opinion, Finding)
    assert opinion.severity == "problem"
    assert {point.tag for point in opinion.evidence} == {FAILURES, DISK}


def test_logging_is_unknown_without_readings(history_with: Build, config: dict[str, object]) -> None:
    assert isinstance(logging_and_disk(history_with({OVERHEAD: None, DISK: {10: math.nan}}), config), Unknown)
