"""Alternating measurements, their summaries, and the options and reports of all benchmarks."""

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.runner import (
    alternate,
    build_parser,
    machine_line,
    publish,
    ratio_of,
    spread_of,
    table,
)
from benchmarks.worker_process import TimeLimitError, WorkerError
from common.errors import UserError


def test_a_spread_names_median_and_extremes() -> None:
    spread = spread_of([0.003, 0.001, 0.002, 0.010])
    assert (spread.median, spread.smallest, spread.largest, spread.repeats) == (0.0025, 0.001, 0.010, 4)
    assert spread.text(1, "ms", 1000) == "2.5 ms (1.0 to 10.0)"
    assert spread.text(3) == "0.003 (0.001 to 0.010)"


def test_ratios_are_taken_pair_by_pair() -> None:
    assert ratio_of([6.0, 2.0, 9.0], [2.0, 1.0, 9.0]) == spread_of([3.0, 2.0, 1.0])


def measure_until(count: int) -> Callable[[str, int], tuple[str, int]]:
    """Return a way to measure that Ctrl-C ends after so many measurements."""
    asked: list[str] = []

    def measure(way: str, number: int) -> tuple[str, int]:
        if len(asked) == count:
            raise KeyboardInterrupt
        asked.append(way)
        return way, number

    return measure


def test_all_ways_are_measured_in_turn() -> None:
    asked: list[tuple[str, int]] = []
    rounds = alternate(["a", "b"], 2, lambda way, number: asked.append((way, number)))
    assert asked == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    assert (rounds.interrupted, rounds.exit_code, rounds.failures) == (False, 0, {})
    assert rounds.complete() == rounds.results == {"a": [None] * 2, "b": [None] * 2}


def test_ctrl_c_keeps_the_complete_alternations() -> None:
    rounds = alternate(["a", "b"], 5, measure_until(3))
    assert rounds.results == {"a": [("a", 0)], "b": [("b", 0)]}
    assert (rounds.interrupted, rounds.exit_code) == (True, 130)
    with pytest.raises(KeyboardInterrupt):
        rounds.complete()
    with pytest.raises(KeyboardInterrupt):
        alternate(["a", "b"], 5, measure_until(1))


@pytest.mark.parametrize(("error", "code"), [(TimeLimitError("more than 1 s"), 0), (WorkerError("exit code 1"), 1)])
def test_a_way_that_fails_is_left_out_from_then_on(error: WorkerError, code: int) -> None:
    asked: list[tuple[str, int]] = []

    def measure(way: str, number: int) -> int:
        asked.append((way, number))
        if (way, number) == ("a", 1):
            raise error
        return number

    rounds = alternate(["a", "b"], 3, measure)
    assert asked == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("b", 2)]
    assert rounds.results == {"b": [0, 1, 2]}
    assert (rounds.failures, rounds.exit_code) == ({"a": error}, code)


def test_the_report_is_printed_before_the_figures_are_written(
    full_disk: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=r"--json .*figures.json cannot be written: .*the disk is full"):
        publish("a machine", ["a line"], {}, tmp_path / "figures.json")
    assert capsys.readouterr().out == "a machine\n\na line\n"


def test_figures_are_saved_with_the_machine(tmp_path: Path) -> None:
    publish("a machine", [], {"seconds": [1.5]}, tmp_path / "figures.json")
    assert json.loads((tmp_path / "figures.json").read_text()) == {"machine": "a machine", "seconds": [1.5]}


def test_rows_of_a_table_are_filled_up() -> None:
    assert table(["a", "b"], [["1", "2"], ["skipped"]]) == ["| a | b |", "|---|---|", "| 1 | 2 |", "| skipped |  |", ""]


def test_the_machine_is_named_with_the_libraries_and_the_commit() -> None:
    line = machine_line("psutil")
    assert re.search(
        r"\d+ threads, .*, PyTorch \S+, psutil \d\S+, commit ([0-9a-f]{40}( \(modified\))?|unknown)$", line
    )
    with pytest.raises(UserError, match="no-such-library is not installed"):
        machine_line("no-such-library")


@pytest.mark.parametrize("option", ["--alternations=0", "--alternations=x", "--json=/none/x.json"])
def test_bad_options_end_with_the_usage(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser: argparse.ArgumentParser = build_parser("any", "What it does.", alternations=5)
    assert parser.parse_args([]).alternations == 5
    with pytest.raises(SystemExit) as ended:
        parser.parse_args([option])
    assert ended.value.code == 2
    assert f"error: argument {option.split('=')[0]}" in capsys.readouterr().err
