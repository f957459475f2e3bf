"""SIGTERM, SIGINT and SIGHUP wherever a training may be: no step is lost, and the exit code says which it was."""

import functools
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest

from common.files import UNFINISHED
from tests.grids import mostly_slow
from tests.reliability.faults import ignore_hangups, never_end, stretch_saves, tell_steps
from tests.reliability.launch import Launch, launch, train
from tests.reliability.read_back import curve, largest_difference, newest, state_of, steps_done
from tests.waiting import wait_until

OPTIONS = ("--lr-schedule=plateau", "--lr-plateau-patience=0", "--validate-every-steps=4", "--sample-every-steps=4")
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
FULL_STEPS = 6
WITHIN_SECONDS = 100.0  # what hangs would take for ever; a loaded machine needs a second or two


def is_saving(launched: Launch) -> None:
    wait_until(lambda: any((launched.run / "checkpoints").glob(f"{UNFINISHED}*")), lambda: launched.said)


def says(text: str) -> Callable[[Launch], None]:
    return lambda launched: launched.wait_for(text)


# Where it is: what is put in to keep it there, options, and how to tell that it is there.
PLACES = {
    "a step": ([], [], says("done 2\n")),
    "loading": ([functools.partial(never_end, "loading")], [], says("in loading")),
    "a loader's work": ([functools.partial(never_end, "loading")], ["--num-workers=2"], says("in loading")),
    "validating": ([functools.partial(never_end, "validating")], [], says("in validating")),
    "sampling": ([functools.partial(never_end, "sampling")], [], says("in sampling")),
    "saving": ([functools.partial(stretch_saves, 0.1)], ["--save-every-steps=2"], is_saving),
}


def interrupt(folder: Path, place: str, number: signal.Signals, *more: str) -> tuple[Launch, float]:
    """Start, wait until it is there, send the signal; return the ended launch and the seconds until all was durable."""
    faults, options, is_there = PLACES[place]
    launched = launch(folder, *OPTIONS, *options, *more, faults=[tell_steps, *faults])
    is_there(launched)
    sent = time.time()
    launched.send(number)
    assert launched.end(WITHIN_SECONDS) == 128 + number, launched.said
    latest = launched.run / "checkpoints" / "LATEST"
    return launched, max(0.0, latest.stat().st_mtime - sent) if latest.exists() else 0.0


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("undisturbed"), *OPTIONS, f"--max-steps={FULL_STEPS}").run


@pytest.mark.parametrize("number", mostly_slow(SIGNALS), ids=lambda number: number.name)
@pytest.mark.parametrize("place", mostly_slow(PLACES))
def test_no_step_is_lost(tmp_path: Path, undisturbed: Path, place: str, number: signal.Signals) -> None:
    launched, _ = interrupt(tmp_path, place, number)
    done = steps_done(launched)
    assert done == list(range(1, len(done) + 1))
    if done:
        assert state_of(newest(launched.run))["step"] == len(done)
        assert state_of(newest(launched.run))["samples_seen"] == 2 * len(done)
    assert f"Stopped at step {len(done)}: {number.name} asked for it" in launched.said
    assert "Traceback" not in launched.said
    assert "failed in" not in launched.said  # an interruption is no fault of a category
    assert not list(launched.run.rglob(f"{UNFINISHED}*"))
    assert max(curve(launched.run, "01_Training/Loss"), default=0) == len(done)
    if number != signal.SIGTERM or len(done) > FULL_STEPS:
        return
    resumed = train(tmp_path, *OPTIONS, f"--max-steps={FULL_STEPS}", "--resume")
    assert largest_difference(newest(resumed.run), newest(undisturbed)) == 0
    for tag in ("01_Training/Loss", "02_Loss_Components/Validation/Loss", "04_Learning_Rate/Current_LR"):
        assert curve(resumed.run, tag) == curve(undisturbed, tag)


@pytest.mark.parametrize("place", mostly_slow(["building", "building the view"]))
@pytest.mark.parametrize("number", mostly_slow(SIGNALS), ids=lambda number: number.name)
def test_before_the_first_step_there_is_nothing_to_save(tmp_path: Path, number: signal.Signals, place: str) -> None:
    launched = launch(tmp_path, faults=[functools.partial(never_end, place)])
    launched.wait_for(f"in {place}")
    launched.send(number)
    assert launched.end(WITHIN_SECONDS) == 128 + number
    assert f"{number.name}: ending before the first step" in launched.said
    assert f"{number.name} came before the first step" in launched.said
    assert "Traceback" not in launched.said
    assert not (launched.run / "checkpoints").exists()
    train(tmp_path, "--max-steps=1")  # and the name is still free


@pytest.mark.slow
def test_a_run_that_was_started_with_nohup_outlives_its_terminal(tmp_path: Path) -> None:
    launched = launch(tmp_path, "--max-steps=40", faults=[ignore_hangups, tell_steps])
    launched.wait_for("done 2\n")
    launched.send(signal.SIGHUP)
    assert launched.end() == 0, launched.said
    assert steps_done(launched) == list(range(1, 41))


@pytest.mark.parametrize("place", mostly_slow(["sampling", "validating"]))
def test_a_signal_in_the_closing_round_cuts_it_short(tmp_path: Path, place: str) -> None:
    launched, _ = interrupt(tmp_path, place, signal.SIGTERM, "--max-steps=3")
    assert state_of(newest(launched.run))["step"] == 3
    assert "all 3 steps are done" in launched.said
    again = train(tmp_path, *OPTIONS, "--max-steps=3", "--resume")
    assert "Nothing to do" in again.said


@pytest.mark.slow
def test_seconds_from_a_signal_until_all_is_durable(tmp_path: Path) -> None:
    """Prints the figures of docs/reliability.md (with -s)."""
    random = numpy.random.default_rng(0)
    for place in PLACES:
        seconds = []
        for repeat in range(20):
            folder = tmp_path / f"{place}_{repeat}"
            seconds.append(interrupt(folder, place, SIGNALS[random.integers(3)])[1])
        print(f"\n{place}: median {numpy.median(seconds):.2f} s, 95th percentile {numpy.percentile(seconds, 95):.2f} s")
        assert numpy.percentile(seconds, 95) < WITHIN_SECONDS
