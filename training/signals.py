"""Stopping cleanly: a signal sets a flag, the loop finishes its step."""

import signal
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

from training.ending import Ending

STOPPING_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)  # Windows has no SIGHUP


IMPATIENT_AFTER_SECONDS = 1.0


class StopRequest:
    """While active, turns SIGINT, SIGTERM and SIGHUP into a request to stop after the current step.

    More signals change nothing, because closing a terminal or a scheduler's stop may send several, except a Ctrl-C more
    than IMPATIENT_AFTER_SECONDS after the first: whoever presses it again does not want to wait for the checkpoint.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._received = 0.0
        self._previous: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    @property
    def ending(self) -> Ending | None:
        """Why the run shall end, once a signal has come."""
        if self.signal_number is None:
            return None
        name = signal.Signals(self.signal_number).name
        return Ending(f"{name} asked for it; --resume goes on from here", self.signal_number)

    def __enter__(self) -> Self:
        for number in STOPPING_SIGNALS:
            self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.signal_number is None:
            self.signal_number, self._received = number, now
        elif number == signal.SIGINT and now - self._received > IMPATIENT_AFTER_SECONDS:
            raise KeyboardInterrupt
