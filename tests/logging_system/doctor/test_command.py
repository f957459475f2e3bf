"""python -m logging_system.doctor as a program."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from logging_system.doctor.__main__ import main
from logging_system.doctor.diagnosis import as_json, as_text, diagnose
from logging_system.files.scalar_history import read_history

ROOT = Path(__file__).parents[3]
Write = Callable[..., Path]
Curves = dict[str, dict[int, float]]


def _doctor(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "logging_system.doctor", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_verdict_of_a_run(write_run: Write, curves: Curves, config: dict[str, object]) -> None:
    run = write_run("spelling", curves)
    finished = _doctor(run)
    diagnosis = diagnose(read_history(run / "metrics.jsonl").history, config)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout == f"Run: {run}\n{as_text(diagnosis)}\n"
    assert "WARNING: Noisy samples" in finished.stdout
    assert "12_Generated_Samples/Motion_Energy_Ratio = 2.59 at step 1200" in finished.stdout


@pytest.mark.slow
def test_newest_run_of_a_folder_as_json(write_run: Write, curves: Curves, config: dict[str, object]) -> None:
    older, newer = write_run("b_older", {"01_Training/Loss": {10: 0.5}}), write_run("a_newer", curves)
    os.utime(older / "events.out.tfevents.1.host.1", (1, 1))
    finished = _doctor("--json", older.parent)
    found = json.loads(finished.stdout)
    diagnosis = diagnose(read_history(newer / "metrics.jsonl").history, config)
    assert found == json.loads(json.dumps({"run": str(newer), "unreadable_lines": 0, **as_json(diagnosis)}))
    assert [finding["rule"] for finding in found["findings"]] == ["Noisy samples"]
    assert finished.returncode == 0


def test_a_run_that_is_still_written_and_one_with_a_damaged_line(
    write_run: Write, curves: Curves, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run("live", curves)
    printed = []
    for more in ("", '{"step": 1210, "tag": "01_Train', "\n"):
        with open(run / "metrics.jsonl", "a") as file:
            file.write(more)
        assert main([str(run)]) == 0
        printed.append(capsys.readouterr().out)
    note = "Left out: 1 line of metrics.jsonl that cannot be read."
    assert printed == [printed[0], printed[0], printed[0].replace("\n", f"\n{note}\n", 1)]


def _without_metrics(run: Path) -> None:
    (run / "metrics.jsonl").unlink()


def _empty(run: Path) -> None:
    (run / "metrics.jsonl").write_text("")


def _unreadable(run: Path) -> None:
    (run / "metrics.jsonl").write_bytes(b"\xff\xfe\n{]\n")


def _without_config(run: Path) -> None:
    (run / "config.json").unlink()


def _torn_config(run: Path) -> None:
    (run / "config.json").write_text('{"SEED": ')


def _list_as_config(run: Path) -> None:
    (run / "config.json").write_text("[1]")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_without_metrics, "metrics.jsonl does not exist"),
        (_empty, "metrics.jsonl holds no metrics yet"),
        (_without_config, "config.json is missing"),
        (_unreadable, "none of its lines can be read (2)"),
        (_torn_config, "cannot be read"),
        (_list_as_config, "config.json is not a JSON object"),
    ],
)
def test_a_run_that_cannot_be_judged(
    damage: Callable[[Path], None],
    message: str,
    write_run: Write,
    curves: Curves,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = write_run("odd", curves)
    damage(run)
    assert main([str(run)]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert str(run) in printed.err


def test_no_folder_and_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "logs").mkdir()
    for path, message in ((tmp_path / "nowhere", "is not a folder"), (tmp_path / "logs", "holds no run")):
        assert main([str(path)]) == 1
        assert f"{path} {message}" in capsys.readouterr().err


def test_an_error_is_one_line_without_a_traceback(tmp_path: Path) -> None:
    finished = _doctor(tmp_path / "nowhere")
    assert (finished.returncode, finished.stdout) == (1, "")
    assert len(finished.stderr.splitlines()) == 1


def test_help_says_what_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "logs/NAME" in capsys.readouterr().out


@pytest.mark.slow
def test_a_reader_that_has_seen_enough_is_no_error(write_run: Write, curves: Curves) -> None:
    command = [sys.executable, "-m", "logging_system.doctor", str(write_run("spelling", curves))]
    read_end, write_end = os.pipe()
    os.close(read_end)  # nobody reads: the first write fails, as it does behind `| head`
    try:
        finished = subprocess.run(command, cwd=ROOT, stdout=write_end, stderr=subprocess.PIPE, text=True, timeout=120)
    finally:
        os.close(write_end)
    assert (finished.returncode, finished.stderr) == (0, "")
