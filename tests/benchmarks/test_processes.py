"""How the benchmark of two processes measures, counts out what was disturbed, and reports; and that it runs."""

import dataclasses
import json
from pathlib import Path

import pytest

from benchmarks import processes
from benchmarks.processes import (
    APART,
    BOTH_CORES,
    ONE,
    ONE_DOUBLE,
    REPLICATED,
    SHARDED,
    Way,
    efficiency_table,
    measure_in_processes,
    report,
    ways_of,
)
from benchmarks.runner import SMALL_NETWORK
from benchmarks.step_worker import TimedStep, Work, quietest
from benchmarks.worker_process import TimeLimitError
from common.errors import UserError
from common.settings import load_settings
from config import PRESETS, Config

NAMES = (ONE, ONE_DOUBLE, BOTH_CORES, APART, REPLICATED, SHARDED)


def work(clips: float = 4.0, seconds: float = 1.0) -> Work:
    return Work(seconds, clips, 10**6, 0.5, 0.3, other_cores=0.25)


def a_round(**different: Work) -> dict[str, list[Work]]:
    works = dict.fromkeys(NAMES, work()) | different
    return {name: [each] for name, each in works.items()}


def test_the_half_of_the_steps_that_others_disturbed_least_counts() -> None:
    """Others have 0.5 of the first core in step 2, 0.1 of it in step 3, and 0.9 of the second core in step 4.

    The first process works all the time, the second half of it.
    """
    first = [TimedStep(each, each, everybody) for each, everybody in ((1.0, 1.0), (3.0, 4.5), (2.0, 2.2), (9.0, 9.0))]
    second = [TimedStep(2 * each, each, everybody) for each, everybody in ((1, 1), (3, 3), (2, 2), (9, 9 + 0.9 * 18))]
    seconds_of_rank, other_cores = quietest([first, second])
    assert seconds_of_rank == [1.5, 3.0]
    assert other_cores == pytest.approx((0 + 0.1) / 2)


def test_ways_that_are_compared_train_on_the_same_number_of_clips() -> None:
    ways = ways_of(("--device=cpu",), batch_size=4, steps=3)
    assert tuple(ways) == NAMES
    configs = {
        name: load_settings(Config, PRESETS, list(way.plan.options), program="").config for name, way in ways.items()
    }
    clips = {
        name: ways[name].processes * config.frames_per_step // config.MAX_FRAMES for name, config in configs.items()
    }
    assert clips == dict.fromkeys(NAMES, 8) | {ONE: 4}
    assert [name for name in NAMES if not ways[name].plan.is_pinned] == [BOTH_CORES]
    assert [name for name in NAMES if configs[name].PARALLELISM == "fsdp"] == [SHARDED]
    assert [name for name in NAMES if ways[name].plan.is_apart] == [APART]


def test_several_processes_are_started_by_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], *, seconds: float) -> dict[str, object]:
        commands.append(command)
        raise TimeLimitError("more than 1 s")

    monkeypatch.setattr(processes, "run_worker", run)
    for way in ways_of((), 4, 3).values():
        with pytest.raises(UserError, match="more than 1 s"):
            measure_in_processes(way)
    assert ["--nproc-per-node=2" in command for command in commands] == [False] * 3 + [True] * 3
    assert json.loads(commands[0][-1])["steps"] == 3


def test_a_way_that_fails_ends_the_measuring(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(command: list[str], *, seconds: float) -> dict[str, object]:
        raise TimeLimitError("more than 600 s")

    monkeypatch.setattr(processes, "run_worker", run)
    assert processes.main([]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.endswith("error: 1 process, 1 core: more than 600 s\n")


def test_efficiencies_are_ratios_of_clips_a_second_within_an_alternation() -> None:
    """By hand: 7 / (2 * 4), 6 / (2 * 4), 6 / (2 * 5), 6 / 7, 4.8 / (2 * 4), 4.8 / 6."""
    works = a_round(
        **{ONE: work(4), ONE_DOUBLE: work(5), APART: work(7), REPLICATED: work(6), SHARDED: work(4.8)},
    )
    medians = [line.split("|")[2].split()[0] for line in efficiency_table(works)[2:-1]]
    assert medians == ["0.875", "0.750", "0.600", "0.857", "0.600", "0.800"]
    (row,) = [line for line in report(ways_of((), 4, 3), works) if line.startswith("| 2 independent")]
    assert "| 0.88 (0.88 to 0.88) |" in row


def test_the_command_prints_tables_and_saves_all_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ways: list[Way] = []

    def measure(way: Way) -> Work:
        ways.append(way)
        return work(3.8) if way.label == "2 processes, DDP" else work()

    monkeypatch.setattr(processes, "measure_in_processes", measure)
    figures = tmp_path / "figures.json"
    assert processes.main(["--alternations=3", f"--json={figures}"]) == 0
    printed = capsys.readouterr().out
    assert "Median (smallest to largest) of 3 alternations." in printed
    assert "| DDP / two independent processes | 0.950 (0.950 to 0.950) |" in printed
    assert ways == ways[:6] * 3
    works = json.loads(figures.read_text())["works"]
    assert works[REPLICATED] == [dataclasses.asdict(work(3.8))] * 3


def test_a_machine_with_one_core_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(processes.os, "sched_getaffinity", lambda process: {0})
    assert processes.main([]) == 1
    assert "needs 2 cores, and there are 1" in capsys.readouterr().err


@pytest.mark.slow
def test_a_worker_measures_real_steps(tmp_path: Path) -> None:
    options = (*SMALL_NETWORK, f"--cache-dir={tmp_path}", "--device=cpu")
    measured = measure_in_processes(ways_of(options, batch_size=2, steps=2)[ONE])
    assert measured.clips_per_second == pytest.approx(2 / measured.step_seconds)
    assert 0 < measured.step_seconds < 60
    assert measured.other_cores >= 0


@pytest.mark.slow
def test_a_quick_run_measures_two_real_processes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = tmp_path / "figures.json"
    assert processes.main(["--quick", f"--json={figures}"]) == 0
    assert "| **weak scaling" in capsys.readouterr().out
    works = json.loads(figures.read_text())["works"]
    assert set(works) == set(NAMES)
    assert all(each["parameters"] == works[ONE][0]["parameters"] for (each,) in works.values())
