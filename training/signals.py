"""Stopping cleanly: a signal sets a flag, the loop finishes its step."""

import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

STOPPING_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)  # Windows has no SIGHUP


class StopRequest:
    """While active, turns SIGINT, SIGTERM and SIGHUP into a request; a second one of the same run is obeyed at once."""

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._previous: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as shells report it; 0 when there was none."""
        return 0 if self.signal_number is None else 128 + self.signal_number

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
        if self.signal_number is not None:
            raise KeyboardInterrupt(f"second {signal.Signals(number).name}: stopping without a checkpoint")
        self.signal_number = number
