"""Stopping cleanly: a signal sets a flag, and gives up at once what can be given up."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any, Self

from common.interruption import STOPPING_SIGNALS, Interrupted
from training.ending import Ending, ending_for_signal

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
