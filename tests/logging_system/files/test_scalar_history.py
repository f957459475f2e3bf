"""The scalars of a run in memory: order, bounds, and reading metrics.jsonl in whatever state it is."""

import json
import math
from pathlib import Path

import numpy
import pytest

from logging_system.files.scalar_history import MAXIMUM_POINTS, ScalarHistory, read_history
from logging_system.files.writer import Writer


def _points(history: ScalarHistory, tag: str) -> list[tuple[int, float]]:
    series = history.series(tag)
    return list(zip(series.steps.tolist(), series.values.tolist(), strict=True))


def _line(tag: str, step: int, value: object) -> str:
    return json.dumps({"step": step, "tag": tag, "value": value}) + "\n"


def test_points_come_back_in_order_and_an_unknown_tag_is_empty() -> None:
    history = ScalarHistory()
    for step, value in ((1, 0.5), (3, 0.25), (7, 1e-300)):
        history.add("a", step, value)
    history.add("b", 2, math.nan)
    assert _points(history, "a") == [(1, 0.5), (3, 0.25), (7, 1e-300)]
    assert history.series("a").steps.dtype == numpy.int64
    assert history.series("a").values.dtype == numpy.float64
    assert math.isnan(history.series("b").values[0])
    assert (len(history.series("c")), len(history)) == (0, 2)


@pytest.mark.parametrize(
    ("step", "expected"),
    [(5, [(1, 1.0), (3, 3.0), (5, 9.0)]), (3, [(1, 1.0), (3, 9.0)]), (2, [(1, 1.0), (2, 9.0)]), (0, [(0, 9.0)])],
)
def test_an_earlier_step_takes_the_place_of_what_is_at_or_beyond_it(step: int, expected: list[object]) -> None:
    history = ScalarHistory()
    for earlier in (1, 3, 5):
        history.add("a", earlier, float(earlier))
    history.add("a", step, 9.0)
    assert _points(history, "a") == expected


def test_a_long_series_is_bounded_and_its_recent_part_stays_fine() -> None:
    history = ScalarHistory()
    for step in range(1, 20_001):
        history.add("a", step, step / 2)
        assert len(history.series("a")) <= MAXIMUM_POINTS or step > 3000  # looked at closely while it is first thinned
    series = history.series("a")
    assert MAXIMUM_POINTS // 2 <= len(series) <= MAXIMUM_POINTS
    assert series.steps[0] == 1
    assert series.steps[-1] == 20_000
    assert (numpy.diff(series.steps) > 0).all()
    assert (series.values == series.steps / 2).all()
    assert series.steps[-500:].tolist() == list(range(19_501, 20_001))


@pytest.mark.parametrize(("points", "every"), [(2_100, 1), (8_000, 50), (100_000, 10)])
def test_a_long_run_is_remembered_evenly(points: int, every: int) -> None:
    history = ScalarHistory()
    for number in range(points):
        history.add("a", number * every, 0.0)
    steps = history.series("a").steps
    assert (steps[0], steps[-1]) == (0, (points - 1) * every)
    assert numpy.diff(steps).max() <= max(2 * every, points * every / 300)
    assert len(steps) > 600


def test_parts_of_a_series() -> None:
    history = ScalarHistory()
    for step, value in ((1, 1.0), (2, math.nan), (4, math.inf), (5, 5.0)):
        history.add("a", step, value)
    series = history.series("a")
    assert series.finite().steps.tolist() == [1, 5]
    assert series.since(2).steps.tolist() == [2, 4, 5]
    assert series.newest(2).steps.tolist() == [4, 5]
    assert series.newest(9).steps.tolist() == [1, 2, 4, 5]
    assert (series.at(5), series.at(3)) == (5.0, None)
    series.values[0] = 99.0
    assert history.series("a").values[0] == 1.0


def test_matching_takes_whole_tags() -> None:
    history = ScalarHistory()
    for tag in ("09/x/Mean", "09/y/Mean", "09/x/Mean_Other", "a/09/x/Mean"):
        history.add(tag, 1, 0.0)
    assert [series.tag for series in history.matching("09/{layer}/Mean")] == ["09/x/Mean", "09/y/Mean"]


def test_a_file_is_read_whatever_state_it_is_in(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    odd = [
        "not json\n",
        '{"step": 3, "tag": "a"}\n',
        "[1, 2]\n",
        "[" * 100_000 + "\n",
        _line("a", 3, "Unlimited"),
        _line("a", 3, None),
        _line("a", 10**30, 1.0),
        '{"step": 3.5, "tag": "a", "value": 1}\n',
        '{"step": true, "tag": "a", "value": 1}\n',
        '{"step": 3, "tag": ["a"], "value": 1}\n',
        '{"step": 3, "tag": "a", "value": 1' + "0" * 400 + "}\n",
        "\n",
    ]
    good = [_line("a", 1, 0.1), _line("a", 2, "NaN"), _line("b", 1, "Infinity"), _line("c", 1, "-Infinity")]
    content = "".join([*good, *odd, _line("a", 4, 7)]).encode() + b"\xff\n" + b'{"step": 5, "tag": "a", "value": 8}'
    path.write_bytes(content)
    file = read_history(path)
    assert file.unreadable_lines == len(odd) + 1
    series = file.history.series("a")
    assert series.steps.tolist() == [1, 2, 4]
    assert (series.values[0], series.values[2]) == (0.1, 7.0)
    assert math.isnan(series.values[1])
    assert _points(file.history, "b") == [(1, math.inf)]
    assert _points(file.history, "c") == [(1, -math.inf)]
    assert len(file.history) == 3


def test_a_torn_last_line_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(_line("a", 1, 0.5) + '{"step": 2, "ta')
    file = read_history(path)
    assert (file.unreadable_lines, _points(file.history, "a")) == (0, [(1, 0.5)])


def test_a_missing_file_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_history(tmp_path / "metrics.jsonl")


def test_writer_keeps_the_history_that_its_file_holds(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    for step in range(1, 3000):
        writer.scalar("a", 1 / step, step)
    writer.scalar("b", math.nan, 4)
    writer.close()
    first = writer.history
    resumed = Writer(tmp_path, first_new_step=3000)
    resumed.scalar("a", 0.25, 3000)
    resumed.close()
    from_file = read_history(tmp_path / "metrics.jsonl").history
    assert _points(resumed.history, "a") == _points(from_file, "a")
    assert _points(resumed.history, "a")[-2:] == [(2999, 1 / 2999), (3000, 0.25)]
    assert _points(first, "a")[-1] == (2999, 1 / 2999)
    assert math.isnan(resumed.history.series("b").values[0])


def test_writer_does_without_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").mkdir()
    messages: list[str] = []
    writer = Writer(tmp_path, report=messages.append)
    writer.scalar("a", 2.0, 1)
    assert _points(writer.history, "a") == [(1, 2.0)]
    assert writer.failures["metrics_file"] == 1
    assert "metrics.jsonl could not be read" in messages[0]
