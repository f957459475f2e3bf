"""Ending a run cleanly: at a limit, or at a signal, after the current step and with a checkpoint."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any, Self

from torch import Tensor

from common.console import counted
from common.interruption import STOPPING_SIGNALS, Interrupted
from compute.device import ComputeDevice, LateNumbers
from distributed.processes import Processes, peer_lost

IMPATIENT_AFTER_SECONDS = 1.0
GO_ON, OUT_OF_TIME = 0, 1  # the numbers that processes send each other; for a signal, its number + OUT_OF_TIME


@dataclass(frozen=True)
class Ending:
    """Why a run ends: a limit or a signal.

    Attributes:
        reason: for the console, as the end of a sentence.
        signal_number: the signal, or None for a limit.
    """

    reason: str
    signal_number: int | None = None

    @property
    def is_interruption(self) -> bool:
        """Whether a signal ends the run. The end must then come within seconds, without closing samples."""
        return self.signal_number is not None

    @property
    def exit_code(self) -> int:
        """0 for a finished job; 128 + the signal's number, as shells report it."""
        return 0 if self.signal_number is None else 128 + self.signal_number


def ending_for_signal(number: int) -> Ending:
    """Return the ending for a signal."""
    return Ending(f"{signal.Signals(number).name} asked for it; --resume goes on from here", number)


@dataclass
class StoppingLimits:
    """The limits of a run, the first of which ends it.

    Attributes:
        asked_steps: the smaller of MAX_STEPS and NUM_EPOCHS in steps; None when neither is set.
        max_minutes: wall-clock minutes of this launch; None for no limit.
        planned_steps: how many fit into the minutes (`planning.StepPlanner`); None where that was not planned.
        warmup_steps: until which no rate falls.
    """

    asked_steps: int | None
    max_minutes: float | None
    planned_steps: int | None = None
    warmup_steps: int = 0

    @property
    def total_steps(self) -> int | None:
        """The step after which the run ends, as far as it is known."""
        known = [steps for steps in (self.asked_steps, self.planned_steps) if steps is not None]
        return min(known, default=None)

    @property
    def plan(self) -> str | None:
        """What was planned, in a sentence; None if MAX_MINUTES does not decide where the run ends."""
        if self.planned_steps is None or self.planned_steps != self.total_steps:
            return None
        falls = "and the learning rate falls until then"
        if self.planned_steps <= self.warmup_steps:
            falls = f"and LR_WARMUP_STEPS ({self.warmup_steps}) is no less, so the learning rate does not fall"
        return (
            f"MAX_MINUTES has room for {counted(self.planned_steps, 'step')}, {falls}; "
            f"--max-steps {self.planned_steps} --max-minutes none repeats this run"
        )

    def is_out_of_time(self, started: float) -> bool:
        """Return whether the launch that started at that `time.perf_counter` has used up its minutes."""
        return self.max_minutes is not None and time.perf_counter() - started >= 60.0 * self.max_minutes

    def ending_after(self, step: int, *, is_out_of_time: bool) -> Ending | None:
        """Return why the run ends after `step`, or None."""
        total = self.total_steps
        if total is not None and step >= total:
            return Ending(f"{all_done(total)} ({self.limiting})")
        if not is_out_of_time:
            return None
        left = "" if total is None else f"; {total - step} of {total} steps {'is' if total - step == 1 else 'are'} left"
        return Ending(f"MAX_MINUTES ({self.max_minutes:g}, of each launch) is over{left}; --resume goes on")

    @property
    def limiting(self) -> str:
        """The constants that say how many steps the run has."""
        return "MAX_STEPS or NUM_EPOCHS" if self.plan is None else "as planned for MAX_MINUTES"


def all_done(total: int) -> str:
    """Say that all steps of a run are done."""
    return "the only step is done" if total == 1 else f"all {total} steps are done"


class StopRequest:
    """While active, turns SIGINT, SIGTERM and SIGHUP into a request to stop after the current step.

    What takes long and leaves nothing half done (building, waiting for clips, validating, sampling) runs within
    :meth:`interruptible`, and a signal ends it at once.

    Further signals change nothing, because closing a terminal or a scheduler's stop may send several. The exception is
    a Ctrl-C more than IMPATIENT_AFTER_SECONDS after the first: it ends the process without waiting for a checkpoint.
    """

    def __init__(self, *, is_quiet: bool = False, is_one_of_several: bool = False) -> None:
        """Set up the request; it is inactive until entered.

        Args:
            is_quiet: leaves the answer on the console to another process, which gets the same signals.
            is_one_of_several: the signal may come because another process failed, so the answer promises no checkpoint.
        """
        self._is_quiet = is_quiet
        self._is_one_of_several = is_one_of_several
        self.has_stepped = False  # to be set when the first step begins: a signal before that ends the run without it
        self.signal_number: int | None = None
        self._received = 0.0
        self._is_interruptible = False
        self._previous: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def __enter__(self) -> Self:
        for number in STOPPING_SIGNALS:
            if signal.getsignal(number) == signal.SIG_IGN:
                continue  # ignored by nohup, or by a script for its background jobs: not meant for this process
            self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    @property
    def ending(self) -> Ending | None:
        """The ending for the signal that came, or None."""
        return None if self.signal_number is None else ending_for_signal(self.signal_number)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let a signal raise anywhere in the ``with`` block, and at its start if the signal came before.

        Do not nest these blocks. The block may end anywhere: only its return value may be lost.

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

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        is_first = self.signal_number is None
        is_impatient = now - self._received > IMPATIENT_AFTER_SECONDS
        if is_first:
            self.signal_number, self._received = number, now
            if not self._is_quiet:
                self._answer(number)
        if self._is_interruptible and (is_first or is_impatient):  # again, in case something swallowed the first
            raise Interrupted(number)
        if number == signal.SIGINT and not is_first and is_impatient:
            raise KeyboardInterrupt

    def _answer(self, number: int) -> None:
        """Answer at once, for the current step may take a while. (Printing is not safe within a handler.)"""
        promise = "ending after this step, with a checkpoint" if self.has_stepped else "ending before the first step"
        if self._is_one_of_several:
            promise = "asked to end"
        hint = "; Ctrl-C again, after a second, ends it at once" if number == signal.SIGINT else ""
        with suppress(OSError):  # the terminal may be what has just gone
            os.write(2, f"\n{signal.Signals(number).name}: {promise}{hint}\n".encode())


class EndOfRun:
    """Decides after which step a run ends.

    A single process ends after the step in which a signal comes. One of several sends the signal to the others with its
    next step. All end when they receive it: after that step, or on GPUs two steps later (`LateNumbers`). That costs no
    message of its own, and no process waits.
    """

    def __init__(self, limits: StoppingLimits, stop: StopRequest, processes: Processes, compute: ComputeDevice) -> None:
        self._limits = limits
        self._stop = stop
        self._processes = processes
        self._late: LateNumbers[None] = LateNumbers(compute)
        self._started = time.perf_counter()

    def start(self, step: int) -> Ending | None:
        """Start the clock of MAX_MINUTES. Return why the run ends without a step after `step`, or None."""
        self._started = time.perf_counter()
        is_out_of_time = not self._processes.are_several and self._limits.is_out_of_time(self._started)
        return self._limits.ending_after(step, is_out_of_time=is_out_of_time)

    def request(self) -> int:
        """Return the number to send to the other processes with the next step."""
        if self._stop.signal_number is not None:
            return OUT_OF_TIME + self._stop.signal_number
        # Clocks differ, so only the main process's counts.
        return OUT_OF_TIME if self._processes.is_main and self._limits.is_out_of_time(self._started) else GO_ON

    def after(self, step: int, request_of_all: Tensor) -> Ending | None:
        """Return why the run ends after `step`, or None.

        `request_of_all`: scalar on the device, the largest request that a process sent with this step.
        """
        if not self._processes.are_several:
            is_out_of_time = self._limits.is_out_of_time(self._started)
            return self._stop.ending or self._limits.ending_after(step, is_out_of_time=is_out_of_time)
        request = max((int(number) for _, number in self._late.put(None, request_of_all)), default=GO_ON)
        if request > OUT_OF_TIME:
            return ending_for_signal(request - OUT_OF_TIME)
        return self._limits.ending_after(step, is_out_of_time=request == OUT_OF_TIME)

    @property
    def seconds_left(self) -> float:
        """Seconds of MAX_MINUTES that are left; only where it is set."""
        assert self._limits.max_minutes is not None
        return 60.0 * self._limits.max_minutes - (time.perf_counter() - self._started)

    def between_steps(self) -> Ending | None:
        """Return why the run ends before the next step, or None; several processes only end after a step."""
        return None if self._processes.are_several else self._stop.ending


@contextmanager
def interrupted_with_peers(stop: StopRequest) -> Iterator[None]:
    """Treat the loss of another process as an interruption if a signal came: it stopped the other one too.

    Raises:
        Interrupted: another process has ended, and a signal has come.
    """
    try:
        yield
    except Exception as error:
        if peer_lost(error) and stop.signal_number is not None:
            raise Interrupted(stop.signal_number) from error
        raise
