"""Moments that random kills and signals hardly ever hit, hit on purpose."""

import functools
import math
import os
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.reliability.faults import (
    ask_for_too_much_memory_while_building,
    encode_slowly,
    fail_in_statistics,
    fail_saves_slowly,
    never_end,
    poison,
    stretch_start_of_workers,
    tell_steps,
)
from tests.reliability.launch import TINY, launch, train
from tests.reliability.read_back import curve, largest_difference, newest, state_of, steps_done
from tests.waiting import HANGS_AFTER_SECONDS, wait_until

ROOT = Path(__file__).resolve().parents[2]
QUIET = ("--no-enable-video-logging", "--no-enable-noise-visualization")


def children_of(process_id: int) -> list[psutil.Process]:
    return psutil.Process(process_id).children(recursive=True)


# --- Loader workers


@pytest.mark.slow
def test_a_signal_while_workers_are_started_leaves_none_and_hangs_nowhere(tmp_path: Path) -> None:
    slow_start = functools.partial(stretch_start_of_workers, 0.3)
    launched = launch(tmp_path, "--num-workers=4", *QUIET, faults=[slow_start])
    launched.wait_for("started a worker")
    workers = children_of(launched.process.pid)
    launched.send(signal.SIGTERM)
    assert launched.end() == 143, launched.said
    assert "Traceback" not in launched.said
    assert not psutil.wait_procs(workers, timeout=HANGS_AFTER_SECONDS)[1]


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_no_step(tmp_path: Path) -> None:
    """As the kernel does when memory runs out. PyTorch would raise wherever the training is in that moment."""
    launched = launch(tmp_path, "--num-workers=2", *QUIET, faults=[tell_steps])
    launched.wait_for("done 2\n")
    children_of(launched.process.pid)[0].kill()
    assert launched.end() == 1
    assert "a loader worker died" in launched.said
    assert "Traceback" not in launched.said
    done = len(steps_done(launched))
    assert state_of(newest(launched.run))["step"] == done
    resumed = train(tmp_path, *QUIET, "--resume", f"--max-steps={done + 2}")
    straight = train(tmp_path / "straight", *QUIET, f"--max-steps={done + 2}")
    assert largest_difference(newest(resumed.run), newest(straight.run)) == 0


# --- Faults of a step


def test_a_fault_of_the_program_itself_saves_the_step_before(tmp_path: Path) -> None:
    ended = train(tmp_path, *QUIET, faults=[functools.partial(fail_in_statistics, 4)], exit_code=1)
    assert "ValueError: a fault of the program itself" in ended.said  # with its traceback: somebody has to mend it
    state = state_of(newest(ended.run))
    assert state["step"] == state["schedule"]["last_epoch"] == 3
    straight = train(tmp_path / "straight", *QUIET, "--max-steps=3")
    assert largest_difference(newest(ended.run), newest(straight.run)) == 0


def test_a_save_that_fails_beside_training_is_said_before_the_run_is_given_up(tmp_path: Path) -> None:
    faults = [functools.partial(fail_saves_slowly, 1.0), functools.partial(poison, "loss", math.nan, range(3, 99))]
    options = (*QUIET, "--save-every-steps=2", "--max-skipped-steps-in-a-row=3")
    ended = train(tmp_path, *options, faults=faults, exit_code=1)
    assert "the checkpoint of step 2 cannot be written: [Errno 5] Input/output error" in ended.said
    assert "There is no checkpoint yet." in ended.said


def test_the_last_step_is_not_saved_where_it_is_one_too_many_that_was_skipped(tmp_path: Path) -> None:
    poisoned = functools.partial(poison, "loss", math.nan, range(3, 99))
    options = (*QUIET, "--save-every-steps=2", "--max-skipped-steps-in-a-row=3", "--max-steps=5")
    ended = train(tmp_path, *options, faults=[poisoned], exit_code=1)
    assert newest(ended.run).name == "step_00000002"
    assert "The last checkpoint is of step 2." in ended.said
    assert max(curve(ended.run, "01_Training/Loss")) == 5


def test_a_network_that_does_not_fit_is_told_of_before_it_trains(tmp_path: Path) -> None:
    ended = train(tmp_path, faults=[ask_for_too_much_memory_while_building], exit_code=1)
    assert "the memory is too small" in ended.said
    assert "MODEL_CHANNELS" in ended.said
    assert "Traceback" not in ended.said
    train(tmp_path, "--max-steps=1", *QUIET)  # the name is still free


# --- Endings


def test_the_closing_samples_come_after_all_that_must_last(tmp_path: Path) -> None:
    options = ("--max-steps=3", "--validate-every-steps=3", "--epoch-size=6")
    launched = launch(tmp_path, *options, faults=[functools.partial(never_end, "sampling")])
    launched.wait_for("in sampling")
    launched.send(signal.SIGKILL)
    launched.end()
    assert state_of(newest(launched.run))["step"] == 3
    assert set(curve(launched.run, "01_Training/Loss")) == {1, 2, 3}
    assert set(curve(launched.run, "02_Loss_Components/Validation/Loss")) == {3}
    assert set(curve(launched.run, "03_Epoch_Summary/Average_Loss")) == {1}


@pytest.mark.slow
def test_nobody_waits_for_videos_after_a_signal(tmp_path: Path) -> None:
    launched = launch(tmp_path, "--sample-every-steps=2", faults=[functools.partial(encode_slowly, 3600.0), tell_steps])
    launched.wait_for("encodes")
    launched.send(signal.SIGTERM)
    assert launched.end() == 143  # without a signal, two minutes are waited for them
    assert re.search(r"videos were still being encoded after \d+ s and are given up", launched.said)


@pytest.mark.slow
@pytest.mark.parametrize("first", [1, 3])
def test_where_a_run_was_stopped_leaves_no_trace_in_the_best_loss(tmp_path: Path, first: int) -> None:
    options = (*QUIET, "--validate-every-steps=2", "--learning-rate=0.05")  # it gets worse: the first one is the best
    straight = train(tmp_path / "straight", *options, "--max-steps=4")
    train(tmp_path, *options, f"--max-steps={first}")  # with a closing validation of its own
    resumed = train(tmp_path, *options, "--max-steps=4", "--resume")
    states = [state_of(newest(run.run)) for run in (straight, resumed)]
    assert states[0]["best_validation_loss"] == states[1]["best_validation_loss"]
    tag = "03_Epoch_Summary/Best_Validation_Loss"
    assert curve(straight.run, tag) == curve(resumed.run, tag)


# --- The console


def command(folder: Path, *more: str) -> list[str]:
    options = [*TINY, *QUIET, f"--log-dir={folder / 'logs'}", f"--cache-dir={folder / 'cache'}", *more]
    return [sys.executable, "main.py", *options]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "openpty"), reason="there are no terminals here")
@pytest.mark.parametrize("ignores_it", [False, True], ids=["asked", "nohup"])
def test_a_terminal_that_is_closed(tmp_path: Path, ignores_it: bool) -> None:
    """It takes the output away with it; only then comes SIGHUP, or nothing where it is ignored."""
    import fcntl
    import termios

    def take_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGHUP, signal.SIG_IGN if ignores_it else signal.SIG_DFL)

    steps = 200 if ignores_it else 100_000
    terminal, of_process = os.openpty()
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), of_process)
    process = subprocess.Popen(
        command(tmp_path, f"--max-steps={steps}"), cwd=ROOT, start_new_session=True, preexec_fn=take_terminal, **streams
    )
    os.close(of_process)
    metrics = tmp_path / "logs" / "run" / "metrics.jsonl"

    def has_trained() -> bool:
        assert process.poll() is None
        if select.select([terminal], [], [], 0)[0]:
            os.read(terminal, 10_000)
        return metrics.exists() and b"01_Training/Loss" in metrics.read_bytes()

    wait_until(has_trained)
    os.close(terminal)
    assert process.wait(100) == (0 if ignores_it else 129)
    last = state_of(newest(tmp_path / "logs" / "run"))["step"]
    assert last == steps if ignores_it else 0 < last < steps


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_a_log_file_that_takes_nothing_more(tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:
        finished = subprocess.run(command(tmp_path, "--max-steps=2"), cwd=ROOT, stdout=full, stderr=full)
    assert finished.returncode == 0
    assert state_of(newest(tmp_path / "logs" / "run"))["step"] == 2
