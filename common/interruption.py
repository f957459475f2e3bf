"""Giving something up in the middle, because a signal asked for the end."""

import signal

STOPPING_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)  # Windows has no SIGHUP


class Interrupted(BaseException):
    """Raised, out of a signal handler, in work of which nothing half done may be left behind.

    No `Exception`: code that expects its own errors must not take it for one of them.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number
