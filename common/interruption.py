"""Giving up in the middle of something, because a signal asked for the end."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

STOPPING_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)  # Windows has no SIGHUP


class Interrupted(BaseException):
    """Raised by a signal handler in work that must leave nothing half done.

    It is no `Exception`, so that code which expects its own errors does not catch it.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number


@contextmanager
def signals_raise() -> Iterator[None]:
    """Let the first stopping signal raise in the ``with`` block, and hold back those that follow while it cleans up.

    Raises:
        Interrupted: a signal has come.
    """
    previous: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def on_signal(number: int, frame: FrameType | None) -> None:
        for each in previous:
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(number)

    for number in STOPPING_SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # it is not meant for this process
            previous[number] = signal.signal(number, on_signal)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
