"""benchmarks.spelling on the checkpoint of a real run."""

import json
from pathlib import Path

import pytest

from benchmarks import spelling
from benchmarks.evaluated_rows import measure_rows, percent, run_process
from benchmarks.spelling import read_figures
from common.errors import UserError


@pytest.mark.slow
def test_every_setting_is_evaluated_as_asked_and_a_failing_one_is_said(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = tmp_path / "figures.json"
    monkeypatch.setattr(spelling, "GUIDANCE_SCALES", ("1",))
    monkeypatch.setattr(spelling, "SAMPLERS", (("ddim", 2), ("heun", 5000)))
    assert spelling.main([f"--run={finished_run}", f"--json={figures}"]) == 1
    found = json.loads(figures.read_text())
    rows = list(found["rows"].values())
    used = [(row["sampler"], row["steps"], row["guidance_scale"]) for row in rows]
    assert used == [("dpm_solver++", 4, 2.0), ("dpm_solver++", 4, 1.0), ("ddim", 2, 2.0)]
    for row in rows:
        for rate in (row["letters"], row["words"]):
            assert rate[1] <= rate[0] <= rate[2]
        assert all(ratio >= 0 for ratio in row["looks"].values())
    assert "5000" in found["failures"]["--sampler=heun --steps=5000"]
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[:3] for line in printed if line.startswith(("| dpm", "| ddim"))] == [
        ["| dpm_solver++", "4", "2"],
        ["| dpm_solver++", "4", "1"],
        ["| ddim", "2", "2"],
    ]
    assert printed[-2].startswith("| --sampler=heun --steps=5000 | failed: ")
    assert len({line.count("|") - line.count("\\|") for line in printed if line.startswith("|")}) == 1


def test_figures_are_those_of_the_report() -> None:
    group = {"letter_error_rate": 0.25, "text_sensitivity": 4.0}
    group["intervals"] = {name: [value / 2, value * 2] for name, value in group.items()}
    looks = {"motion_energy_ratio": 1.1, "hold_ratio": None, "sharpness_ratio": 1.2, "chroma_ratio": 1.3}
    report = {
        "sampler": {"name": "ddim", "steps": 5, "guidance_scale": 1.5},
        "groups": {"letters": group, "words not in training": {**group, "letter_error_rate": 0.3}},
        **looks,
    }
    rate = (0.25, 0.125, 0.5)
    assert read_figures(report) == {
        "sampler": "ddim",
        "steps": 5,
        "guidance_scale": 1.5,
        "letters": rate,
        "words": (0.3, *rate[1:]),
        "text_sensitivity": 4.0,
        "looks": looks,
    }
    assert percent(rate) == "25.0 % (12.5 to 50.0)"


def test_a_program_that_fails_says_its_last_line() -> None:
    with pytest.raises(UserError, match=r"^no such thing$"):
        run_process(["-c", "import sys; sys.exit('a line\\nerror: no such thing')"])
    with pytest.raises(UserError, match=r"^exit code 3$"):
        run_process(["-c", "raise SystemExit(3)"])


def test_rows_come_one_after_the_other_and_a_failed_one_ends_nothing_but_itself(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def measure(name: str) -> dict[str, str]:
        if name == "bad":
            raise UserError("it cannot be")
        if name == "interrupted":
            raise KeyboardInterrupt
        return {"upper": name.upper()}

    def rows(*names: str) -> int:
        return measure_rows(names, measure, ["name", "upper"], lambda name, figures: [name, figures["upper"]], "", None)

    assert rows("a", "b") == 0
    assert rows("a", "bad", "b") == 1
    assert rows("a", "interrupted", "b") == 130
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    a, b = "| a | A |", "| b | B |"
    head = "| name | upper |"
    assert printed == [head, a, b, head, a, b, "| bad | failed: it cannot be |", head, a]
    with pytest.raises(UserError, match="it cannot be"):
        rows("bad", "a")


@pytest.mark.slow
def test_a_run_that_cannot_be_evaluated_ends_it_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert spelling.main([f"--run={tmp_path / 'none'}"]) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "as the run samples ..."
    assert said[1].startswith("error: ")
    assert "there is no such folder" in said[1]
    assert len(said) == 2
