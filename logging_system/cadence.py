"""When something is logged, and how long logging has taken."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from config import Config

SECONDS_UNTIL_SEEN = 10.0
"""Points are on the disk after so many seconds, and until LOG_EVERY_STEPS steps are done, so often there are some."""


@dataclass(frozen=True)
class Due:
    """Which cadences fall on a step."""

    scalars: bool  # every LOG_EVERY_STEPS, and the last step
    diagnostics: bool  # every DIAGNOSTIC_LOG_EVERY_STEPS, the first and the last step


@dataclass(frozen=True)
class Cadence:
    """The constants of config.py that say how often something happens, in optimizer steps or epochs, each at least 1.

    The last step brings everything and the first step of a process brings the diagnostics, so that a run of a single
    step already fills the dashboard, however long the cadences are.

    Raises:
        ValueError: a number is below 1.
    """

    log_every_steps: int
    log_every_epochs: int
    diagnostic_log_every_steps: int
    tensorboard_flush_every_steps: int
    sample_every_steps: int
    validate_every_steps: int
    save_every_steps: int

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"Cadence.{name} is {value}; it must be at least 1")

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """Return the cadence of a run: each field has the value of the constant with its name."""
        return cls(
            log_every_steps=config.LOG_EVERY_STEPS,
            log_every_epochs=config.LOG_EVERY_EPOCHS,
            diagnostic_log_every_steps=config.DIAGNOSTIC_LOG_EVERY_STEPS,
            tensorboard_flush_every_steps=config.TENSORBOARD_FLUSH_EVERY_STEPS,
            sample_every_steps=config.SAMPLE_EVERY_STEPS,
            validate_every_steps=config.VALIDATE_EVERY_STEPS,
            save_every_steps=config.SAVE_EVERY_STEPS,
        )

    def due(self, step: int, *, is_first: bool, is_last: bool) -> Due:
        """Return what optimizer step ``step`` (1 for the first of a run) brings."""
        return Due(
            scalars=is_last or step % self.log_every_steps == 0,
            diagnostics=is_first or is_last or step % self.diagnostic_log_every_steps == 0,
        )

    def samples_due(self, step: int, *, is_last: bool) -> bool:
        """Return whether videos are made after ``step``."""
        return is_last or step % self.sample_every_steps == 0

    def flush_due(self, step: int, *, is_first: bool, is_last: bool) -> bool:
        """Return whether the files are flushed after ``step``. The first step is: the dashboard is soon alive."""
        return is_first or is_last or step % self.tensorboard_flush_every_steps == 0

    def epoch_due(self, epoch: int, *, is_last: bool) -> bool:
        """Return whether the end of ``epoch`` (1 for the first) brings a summary."""
        return is_last or epoch % self.log_every_epochs == 0

    def needs_results(self, step: int) -> bool:
        """Return whether something after ``step`` reads a result from the device, and so waits for it."""
        intervals = (
            *(self.validate_every_steps, self.save_every_steps, self.log_every_steps),
            *(self.sample_every_steps, self.diagnostic_log_every_steps),
        )
        return any(step % interval == 0 for interval in intervals)


class LoggingClock:
    """Adds up the wall-clock time that the training thread spends in the logging system.

    Ordinary logging and sampling (generated videos and noise visualisation, which have their own cadence) are kept
    apart. The totals only grow: to get the cost of an interval, subtract the reading from its start.
    """

    def __init__(self) -> None:
        self.logging_seconds = 0.0  # since the process started, as is the next one
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
