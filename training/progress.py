"""Where a run stands, where it ends, and what it says on the console meanwhile."""

import sys
import time
from dataclasses import dataclass

from tqdm import tqdm

from training.ending import Ending


@dataclass(frozen=True)
class StartingPoint:
    """What a run has behind it: zeros for a fresh one."""

    step: int
    samples_seen: int
    skipped_steps: int
    validation_is_due: bool = False  # the last launch was interrupted before it had validated its last step
    best_validation_loss: float | None = None


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
