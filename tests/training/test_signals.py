"""What the handler makes of several signals; real processes are in tests/reliability."""

import os
import signal
from types import FrameType

import pytest

from common.interruption import Interrupted
from tests.held_clock import HeldClock
from tests.waiting import wait_until
from training import stopping as signals
from training.stopping import StopRequest


def test_the_first_signal_counts_and_a_flood_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "time", HeldClock())
    came: list[int] = []

    class Counting(StopRequest):
        def _on_signal(self, number: int, frame: FrameType | None) -> None:
            came.append(number)
            super()._on_signal(number, frame)

    with Counting() as stop:
        assert stop.ending is None
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
        wait_until(lambda: len(came) == 3)
        assert stop.ending is not None
        assert stop.ending.exit_code in (129, 130, 143)  # pending signals arrive in no promised order
        assert stop.ending.is_interruption


def test_a_second_ctrl_c_after_a_while_is_obeyed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = HeldClock()
    monkeypatch.setattr(signals, "time", clock)
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        clock.now += 1.25 * signals.IMPATIENT_AFTER_SECONDS
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert stop.ending is not None
        assert stop.ending.exit_code == 130


@pytest.mark.parametrize(
    ("has_stepped", "is_one_of_several", "promise"),
    [
        (False, False, "ending before the first step"),
        (True, False, "ending after this step, with a checkpoint"),
        (True, True, "asked to end"),
    ],
)
def test_the_answer_says_where_the_run_will_end(
    capfd: pytest.CaptureFixture[str], has_stepped: bool, is_one_of_several: bool, promise: str
) -> None:
    with StopRequest(is_one_of_several=is_one_of_several) as stop:
        stop.has_stepped = has_stepped
        signal.raise_signal(signal.SIGINT)
    assert capfd.readouterr().err == f"\nSIGINT: {promise}; Ctrl-C again, after a second, ends it at once\n"


def test_the_handlers_of_before_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_can_be_given_up_is_given_up_at_once_and_nothing_else() -> None:
    with StopRequest() as stop:
        went_on = False
        with pytest.raises(Interrupted) as caught, stop.interruptible():  # noqa: PT012
            signal.raise_signal(signal.SIGTERM)
            went_on = True
        assert not went_on
        assert caught.value.signal_number == signal.SIGTERM
        signal.raise_signal(signal.SIGHUP)  # outside: no second interruption
        with pytest.raises(Interrupted), stop.interruptible():
            pytest.fail("it began, though a signal had come before")
        assert stop.ending is not None
        assert stop.ending.exit_code == 143
