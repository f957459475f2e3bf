"""Where a run stands, where it ends, and what it says on the console meanwhile."""

import sys
from dataclasses import dataclass

from tqdm import tqdm

from checkpoints.checkpoint import RunState
from logging_system.records import ValidationRecord


@dataclass
class Position:
    """How far the run is, and how far its current epoch within this process.

    Attributes:
        validation_is_due: the step was to be validated, and has not been.
        best_validation_loss: of the validations on their cadence: others depend on where a run was stopped.
        validation: the latest one.
        save_is_due: since a step that fell on the cadence of checkpoints.
    """

    step: int
    samples_seen: int
    validation_is_due: bool
    best_validation_loss: float | None
    validation: ValidationRecord | None = None
    save_is_due: bool = False
    learning_rate: float = 0.0  # of this step
    epoch_steps: int = 0
    epoch_clips: int = 0
    epoch_started: float = 0.0

    def count_step(self, clips: int, learning_rate: float) -> None:
        """Take note of a step that is done."""
        self.step += 1
        self.learning_rate = learning_rate
        self.samples_seen += clips
        self.epoch_clips += clips
        self.epoch_steps += 1

    def start_epoch(self, now: float) -> None:
        """Count its steps anew."""
        self.epoch_steps, self.epoch_clips, self.epoch_started = 0, 0, now

    def progress(self, skipped_steps: int) -> RunState:
        """Return what a checkpoint says of it."""
        is_validated = self.validation is not None and self.validation.step == self.step
        return RunState(
            step=self.step,
            samples_seen=self.samples_seen,
            skipped_steps=skipped_steps,
            validation_loss=self.validation.loss if is_validated and self.validation is not None else None,
            best_validation_loss=self.best_validation_loss,
            validation_is_due=self.validation_is_due,
        )


class ProgressBar:
    """A bar with loss, learning rate and remaining time."""

    def __init__(self, start_step: int, total_steps: int | None, *, is_shown: bool) -> None:
        # A log file gets a line now and then, a terminal a smooth bar.
        interval = 0.5 if sys.stderr.isatty() else 30.0
        self._bar = tqdm(
            total=total_steps,
            initial=start_step,
            unit="step",
            mininterval=interval,
            dynamic_ncols=True,
            smoothing=0.05,
            disable=not is_shown,
        )

    def advance(self) -> None:
        """Count one step."""
        self._bar.update()

    def show(self, loss: float, learning_rate: float) -> None:
        """Show figures behind the bar, at its next redraw."""
        self._bar.set_postfix({"loss": f"{loss:.4f}", "learning rate": f"{learning_rate:.2e}"}, refresh=False)

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._bar.write(line, file=sys.stdout)
        sys.stdout.flush()

    def close(self) -> None:
        """Draw the last state and leave it on the screen."""
        self._bar.refresh()
        self._bar.close()
