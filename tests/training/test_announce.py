"""What a run says of where to look and how far it is, in a terminal and elsewhere."""

import ast
import os
import shlex
import sys
from pathlib import Path

import pytest

from tests.held_clock import HeldClock
from tests.sources import ROOMS, python_files
from training import announce
from training.announce import ProgressBar, _announce_dashboard
from training.stopping import StoppingLimits


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> HeldClock:
    held = HeldClock()
    monkeypatch.setattr(announce, "time", held)
    return held


def train(bar: ProgressBar, time: HeldClock, steps: int, seconds_a_step: float, *, log_every_steps: int) -> None:
    """Do what the training loop does; the loss of a step is its number divided by 100."""
    for step in range(1, steps + 1):
        time.now += seconds_a_step
        bar.advance()
        if step % log_every_steps == 0 or bar.line_is_due or step == steps:
            bar.show(step / 100, 1e-3, is_ending=step == steps)
    bar.close()


def test_without_a_terminal_there_is_a_line_every_half_minute(
    time: HeldClock, capsys: pytest.CaptureFixture[str]
) -> None:
    time_of_the_first_step = 50.0
    bar = ProgressBar(0, StoppingLimits(100, None), is_shown=True)
    time.now += time_of_the_first_step - 10.0
    train(bar, time, 12, 10.0, log_every_steps=5)
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.splitlines() == [
        "Step 1 of 100: loss 0.0100, learning rate 1.00e-03",
        "Step 2 of 100: loss 0.0200, learning rate 1.00e-03, 10 s a step, about 16 min left",  # 98 steps are left
        "Step 5 of 100: loss 0.0500, learning rate 1.00e-03, 10 s a step, about 16 min left",
        "Step 8 of 100: loss 0.0800, learning rate 1.00e-03, 10 s a step, about 15 min left",
        "Step 11 of 100: loss 0.1100, learning rate 1.00e-03, 10 s a step, about 15 min left",
        "Step 12 of 100: loss 0.1200, learning rate 1.00e-03, 10 s a step",
    ]


@pytest.mark.parametrize(
    ("total_steps", "max_minutes", "expected"),
    [
        (100, 5.0, "10 s a step, about 4.7 min left"),  # 20 of 300 seconds are over
        (20, 5.0, "10 s a step, about 3.0 min left"),  # 18 steps come sooner
        (None, 5.0, "10 s a step, about 4.7 min left"),
        (None, None, "10 s a step"),
    ],
)
def test_what_is_left_ends_with_the_first_limit(
    time: HeldClock,
    capsys: pytest.CaptureFixture[str],
    total_steps: int | None,
    max_minutes: float | None,
    expected: str,
) -> None:
    train(ProgressBar(0, StoppingLimits(total_steps, max_minutes), is_shown=True), time, 3, 10.0, log_every_steps=1)
    assert capsys.readouterr().out.splitlines()[1].endswith(f"learning rate 1.00e-03, {expected}")


def test_fast_steps_bring_no_more_lines_and_a_resumed_run_counts_its_own(
    time: HeldClock, capsys: pytest.CaptureFixture[str]
) -> None:
    train(ProgressBar(400, StoppingLimits(None, None), is_shown=True), time, 300, 0.25, log_every_steps=1)
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == [
        "Step 401",
        "Step 441",  # 10 seconds later
        "Step 561",  # 30 seconds later
        "Step 681",
        "Step 700",
    ]


def test_the_other_processes_say_nothing(time: HeldClock, capsys: pytest.CaptureFixture[str]) -> None:
    train(ProgressBar(0, StoppingLimits(100, None), is_shown=False), time, 50, 10.0, log_every_steps=1)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("is_piped", "columns"), [(False, 80), (True, 80), (False, 0)])
def test_a_terminal_has_a_bar_and_a_pipe_beside_it_or_a_terminal_without_width_lines(
    time: HeldClock, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, is_piped: bool, columns: int
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: not is_piped)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(sys.stderr, "fileno", lambda: 2)
    monkeypatch.setattr("os.get_terminal_size", lambda descriptor: os.terminal_size((columns, 24)))
    train(ProgressBar(0, StoppingLimits(100, None), is_shown=True), time, 12, 10.0, log_every_steps=5)
    said = capsys.readouterr()
    assert ("12/100" in said.err) == (columns > 0)
    assert ("loss=0.1200" in said.err) == (columns > 0)
    assert len(said.out.splitlines()) == (6 if is_piped or not columns else 0)
    assert "\r" not in said.out


def test_every_bar_is_left_out_where_there_is_no_terminal() -> None:
    calls = [
        node
        for path in python_files(*ROOMS)
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "tqdm"
    ]
    settings = [ast.unparse(word.value) for call in calls for word in call.keywords if word.arg == "disable"]
    assert len(settings) == len(calls) == 2  # the training's own, and the one that all other work goes through
    assert set(settings) == {"None", "None if is_shown and has_bar else True"}


@pytest.mark.parametrize(("knows", "figure"), [(True, "Text_Gap_Shuffled"), (False, "Trained_Text_Gap_Shuffled")])
def test_the_dashboard_is_named_with_what_to_look_at(
    capsys: pytest.CaptureFixture[str], knows: bool, figure: str
) -> None:
    _announce_dashboard(Path("/data/my clips/logs"), knows_held_out_words=knows)
    first, second = capsys.readouterr().out.splitlines()
    command = first.removeprefix("Watch it: ")
    assert shlex.split(command) == ["python", "launch_tensorboard.py", "--logdir", "/data/my clips/logs"]
    assert "http://localhost:6006" in second
    assert f" 02_Loss_Components/Validation/{figure}:" in second
