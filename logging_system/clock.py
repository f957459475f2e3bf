"""How long logging itself took, so that its cost can be shown beside what it measures."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class ClockReading:
    """Seconds on the training thread since the process started."""

    logging_seconds: float
    sampling_seconds: float


class LoggingClock:
    """Adds up the wall-clock time that the training thread spends in the logging system.

    Ordinary logging and sampling (generated videos and noise visualisation, which have their own cadence) are kept
    apart. The totals only grow: whoever wants the cost of an interval keeps the reading from its start and subtracts,
    so that several readers do not disturb each other.
    """

    def __init__(self) -> None:
        self.logging_seconds = 0.0
        self.sampling_seconds = 0.0

    @contextmanager
    def measure(self, *, sampling: bool = False) -> Iterator[None]:
        """Add the time spent in the ``with`` block to the totals, also when the block raises."""
        start = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - start
            if sampling:
                self.sampling_seconds += elapsed
            else:
                self.logging_seconds += elapsed

    def snapshot(self) -> ClockReading:
        """Return the totals so far without resetting them."""
        return ClockReading(self.logging_seconds, self.sampling_seconds)
