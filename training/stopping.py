"""Stopping cleanly: a signal sets a flag, and gives up at once what can be given up."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any, Self

from torch import Tensor

from common.interruption import STOPPING_SIGNALS, Interrupted
from compute.device import ComputeDevice, LateNumbers
from distributed.processes import Processes, peer_lost


@dataclass(frozen=True)
class Ending:
    """A limit that was reached, or a signal that asked for it.

    Attributes:
        reason: for the console, as the end of a sentence.
        signal_number: the signal, or None for a limit.
    """

    reason: str
    signal_number: int | None = None

    @property
    def is_interruption(self) -> bool:
        """Whoever sends a signal wants an end within seconds: no closing round of samples and diagnostics."""
        return self.signal_number is not None

    @property
    def exit_code(self) -> int:
        """0 for a finished job; 128 + the signal's number, as shells report it."""
        return 0 if self.signal_number is None else 128 + self.signal_number


def ending_for_signal(number: int) -> Ending:
    """Say why a run ends for which a signal came."""
    return Ending(f"{signal.Signals(number).name} asked for it; --resume goes on from here", number)


@dataclass(frozen=True)
class StoppingLimits:
    """The first limit that is reached ends the run.

    Attributes:
        total_steps: the smaller of MAX_STEPS and NUM_EPOCHS in steps; None when neither is set.
        max_minutes: wall-clock minutes of this process; None for no limit.
    """

    total_steps: int | None
    max_minutes: float | None

    def steps_are_done(self, step: int) -> Ending | None:
        """Say that the run ends because step `step` was the last, or return None."""
        if self.total_steps is None or step < self.total_steps:
            return None
        return Ending(f"all {self.total_steps} steps are done (MAX_STEPS or NUM_EPOCHS)")

    def time_is_over(self, started: float) -> bool:
        """Say whether the launch that started then, by `time.perf_counter`, has had its minutes."""
        return self.max_minutes is not None and time.perf_counter() - started >= 60.0 * self.max_minutes

    def out_of_time(self, step: int) -> Ending:
        """Say that the run ends after step `step` because its time is over."""
        left = "" if self.total_steps is None else f"; {self.total_steps - step} of {self.total_steps} steps are left"
        return Ending(f"MAX_MINUTES ({self.max_minutes:g}, of each launch) is over{left}; --resume goes on")


IMPATIENT_AFTER_SECONDS = 1.0


class StopRequest:
    """While active, turns SIGINT, SIGTERM and SIGHUP into a request to stop after the current step.

    What takes long and leaves nothing half done (building, waiting for clips, validating, sampling) runs within
    :meth:`interruptible` and is given up at once.

    More signals change nothing, because closing a terminal or a scheduler's stop may send several, except a Ctrl-C more
    than IMPATIENT_AFTER_SECONDS after the first: whoever presses it again does not want to wait for the checkpoint.
    """

    def __init__(self, *, is_quiet: bool = False, is_one_of_several: bool = False) -> None:
        """Make it.

        Args:
            is_quiet: leaves the answer on the console to another process, which gets the same signals.
            is_one_of_several: a signal may come because another process has failed, so nothing is promised.
        """
        self._is_quiet = is_quiet
        self._promise = "asked to end" if is_one_of_several else "ending after this step, with a checkpoint"
        self.signal_number: int | None = None
        self._received = 0.0
        self._is_interruptible = False
        self._previous: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    @property
    def ending(self) -> Ending | None:
        """Why the run shall end, once a signal has come."""
        return None if self.signal_number is None else ending_for_signal(self.signal_number)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let a signal raise in the ``with`` block, wherever it is, also one that came before.

        Not to be nested. The block must be such that it may end anywhere: what it was to return is lost, and nothing
        else may be.

        Raises:
            Interrupted: a signal has come.
        """
        try:
            self._is_interruptible = True
            if self.signal_number is not None:
                raise Interrupted(self.signal_number)
            yield
        finally:
            self._is_interruptible = False

    def __enter__(self) -> Self:
        for number in STOPPING_SIGNALS:
            if signal.getsignal(number) == signal.SIG_IGN:
                continue  # by nohup, or by a script for what runs beside it: it is not meant for this process
            self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        is_first = self.signal_number is None
        is_impatient = now - self._received > IMPATIENT_AFTER_SECONDS
        if is_first:
            self.signal_number, self._received = number, now
            if not self._is_quiet:
                self._say(number)
        if self._is_interruptible and (is_first or is_impatient):  # again where the first one was swallowed somewhere
            raise Interrupted(number)
        if number == signal.SIGINT and not is_first and is_impatient:
            raise KeyboardInterrupt

    def _say(self, number: int) -> None:
        """Answer at once, for the current step may take a while. (Printing is not safe within a handler.)"""
        hint = "; Ctrl-C again, after a second, ends it without" if number == signal.SIGINT else ""
        with suppress(OSError):  # the terminal may be what has just gone
            os.write(2, f"\n{signal.Signals(number).name}: {self._promise}{hint}\n".encode())


GO_ON, OUT_OF_TIME = 0, 1  # what else processes tell each other is the number of a signal, plus this


_SIGNAL = 1


class EndOfRun:
    """Looks at limits and signals.

    A process alone ends after the step in which a signal comes. Of several, each tells the others with its next step
    that it was asked to end, and all end when they learn it: after that step, or on GPUs two steps later
    (`late_numbers`). That costs no message of its own, and nobody waits.
    """

    def __init__(self, limits: StoppingLimits, stop: StopRequest, processes: Processes, compute: ComputeDevice) -> None:
        self._limits = limits
        self._stop = stop
        self._processes = processes
        self._late: LateNumbers[None] = LateNumbers(compute)
        self._started = time.perf_counter()

    def start(self, step: int) -> Ending | None:
        """Begin to count the minutes; say why not one step is to be done after `step`, or return None."""
        self._started = time.perf_counter()
        if self._processes.are_several:
            return self._limits.steps_are_done(step)
        return self._reached(step)

    def request(self) -> int:
        """Return what the others are to be told with the next step."""
        if self._stop.signal_number is not None:
            return _SIGNAL + self._stop.signal_number
        is_over = self._processes.is_main and self._limits.time_is_over(self._started)
        return OUT_OF_TIME if is_over else GO_ON

    def after(self, step: int, request_of_all: Tensor) -> Ending | None:
        """Say why the run ends after `step`, or return None.

        Args:
            request_of_all: scalar on the device, the largest request that a process sent with this step.
        """
        if not self._processes.are_several:
            return self._stop.ending or self._reached(step)
        request = max((int(number) for _, number in self._late.put(None, request_of_all)), default=GO_ON)
        done = self._limits.steps_are_done(step)
        if request > OUT_OF_TIME:
            return ending_for_signal(request - _SIGNAL)
        if done is None and request == OUT_OF_TIME:
            return self._limits.out_of_time(step)
        return done

    def between_steps(self) -> Ending | None:
        """Say why the run ends before the next step; several processes end after one alone."""
        return None if self._processes.are_several else self._stop.ending

    def _reached(self, step: int) -> Ending | None:
        done = self._limits.steps_are_done(step)
        if done is None and self._limits.time_is_over(self._started):
            return self._limits.out_of_time(step)
        return done


@contextmanager
def ending_together(stop: StopRequest) -> Iterator[None]:
    """Where others end for a signal that came here too, end for it as well in the ``with`` block: nothing failed.

    Raises:
        Interrupted: another process has ended, and a signal has come.
    """
    try:
        yield
    except Exception as error:
        if peer_lost(error) and stop.signal_number is not None:
            raise Interrupted(stop.signal_number) from error
        raise
