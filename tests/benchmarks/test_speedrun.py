"""benchmarks.speedrun, with a network of a few thousand weights."""

import json
from pathlib import Path

import pytest

from benchmarks import speedrun
from benchmarks.speedrun import CEILING, RATE, STEP_TIME, time_to_reading
from common.errors import UserError
from logging_system.files.scalar_history import ScalarHistory
from tests.benchmarks.test_recipe import SMALL


def history_of(rates: dict[int, float], ceiling: float = 0.01) -> ScalarHistory:
    history = ScalarHistory()
    for step, seconds in ((1, 3.0), (10, 0.5), (50, 1.0), (100, 2.0), (150, 2.0)):
        history.add(STEP_TIME, step, seconds)
    for step, rate in rates.items():
        history.add(RATE, step, rate)
        history.add(CEILING, step, ceiling)
    return history


def test_a_run_reads_from_the_first_step_that_is_two_points_from_real_clips() -> None:
    figures = time_to_reading(history_of({50: 0.5, 100: 0.03, 150: 0.01}))
    seconds = 1 * 3 + 9 * 0.5 + 40 * 1.0 + 50 * 2.0
    assert figures == {"step": 100, "minutes": seconds / 60, "letter_error_rate": 0.03, "real_ceiling": 0.01}


def test_a_run_that_never_reads_says_so() -> None:
    figures = time_to_reading(history_of({50: 0.5, 100: 0.4, 150: 0.031}))
    assert figures["step"] is None
    assert speedrun._cells("0", figures) == ["0", "not in 4.1", "", "3.1 %", "1.0 %"]


def test_a_run_that_nobody_reads_is_refused() -> None:
    with pytest.raises(UserError, match="no 12_Generated_Samples/Letter_Error_Rate"):
        time_to_reading(ScalarHistory())
    with pytest.raises(UserError, match="misreads 20% in real clips; raise RECOGNISER_STEPS"):
        time_to_reading(history_of({50: 0.2}, ceiling=0.2))


@pytest.mark.slow
def test_each_seed_is_trained_and_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = tmp_path / "figures.json"
    monkeypatch.setattr(speedrun, "LARGEST_CEILING", 10)  # the recogniser of a single step reads nothing
    every_step = [each.replace("=50", "=1").replace("=10", "=1") for each in speedrun.OPTIONS]
    monkeypatch.setattr(speedrun, "OPTIONS", every_step)
    options = ["--steps=2", "--seeds", "3", "4", f"--json={figures}", f"--cache-dir={tmp_path / 'cache'}"]
    assert speedrun.main([*options, *SMALL]) == 0
    rows = json.loads(figures.read_text())["rows"]
    assert list(rows) == ["3", "4"]
    assert all(row["minutes"] > 0 and row["real_ceiling"] > 0.1 for row in rows.values())
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0] for line in printed] == ["| seed", "| 3", "| 4"]
