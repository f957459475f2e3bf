"""Checkpoints as the training loop sees them: begun, finished, and reported to console and dashboard."""

from collections.abc import Callable, Sequence
from typing import Protocol

from common.errors import UserError
from logging_system.records import CheckpointRecord
from training.checkpoint_saver import FailedCheckpoint, RunProgress, SavedCheckpoint


class LastSaveFailed(UserError):
    """The disk does not take the last checkpoint; trying it again at once would not help."""


class Saver(Protocol):
    """What makes checkpoints, each method as in `checkpoint_saver.CheckpointSaver`."""

    @property
    def last_step(self) -> int | None:
        """The step of the newest checkpoint that is known to be whole; 0 for none, None where only others know."""
        ...

    @property
    def needs_others(self) -> bool:
        """Whether only all processes together can save."""
        ...

    def save(self, progress: RunProgress, *, wait: bool) -> None: ...
    def collect(self) -> list[SavedCheckpoint | FailedCheckpoint]: ...
    def finish(self) -> None: ...
    def close(self) -> None: ...


class NoSaver:
    """Of every process but the main one, where each has all weights."""

    last_step = None
    needs_others = False

    def save(self, progress: RunProgress, *, wait: bool) -> None:
        pass

    def collect(self) -> list[SavedCheckpoint | FailedCheckpoint]:
        return []

    def finish(self) -> None:
        pass

    def close(self) -> None:
        pass


class Saving:
    """Saves on the loop's behalf, and says what came of it."""

    def __init__(self, saver: Saver, say: Callable[[str], None], on_saved: Callable[[CheckpointRecord], None]) -> None:
        self._saver = saver
        self._say = say
        self._on_saved = on_saved
        self._is_alone = False

    def begin(self, progress: RunProgress) -> None:
        """Save, beside training where that can be. A failure is a warning, now or later."""
        self._saver.save(progress, wait=False)
        self.report()

    def finish(self, progress: RunProgress) -> None:
        """Save, unless it is saved already; it is on the disk when this returns.

        After `settle`, where the others may be gone, nothing is done that would need them.

        Raises:
            LastSaveFailed: it cannot be written.
        """
        if self._is_alone and self._saver.needs_others:
            return
        self._saver.save(progress, wait=True)
        outcomes = self._saver.collect()
        failed = next((each for each in outcomes[-1:] if isinstance(each, FailedCheckpoint)), None)
        self._say_all(outcomes if failed is None else outcomes[:-1], after_failure="")
        if failed is not None:
            raise LastSaveFailed(f"{_failed(failed)}. {self.last_checkpoint()}")

    def report(self) -> None:
        """Say what came of the saves that have ended since the last time."""
        self._say_all(self._saver.collect(), after_failure="; training goes on")

    def settle(self) -> None:
        """Wait for what is being written and report it, before this process gives the run up."""
        self._is_alone = True
        self._saver.finish()
        self._say_all(self._saver.collect(), after_failure="")

    def _say_all(self, outcomes: Sequence[SavedCheckpoint | FailedCheckpoint], after_failure: str) -> None:
        for outcome in outcomes:
            if isinstance(outcome, SavedCheckpoint):
                self._say(f"Step {outcome.step}: checkpoint {outcome.folder}")
                cost = (outcome.size_bytes, outcome.stall_seconds, outcome.write_seconds)
                self._on_saved(CheckpointRecord(outcome.step, *cost))
            else:
                self._say(f"warning: {_failed(outcome)}{after_failure}")

    def last_checkpoint(self) -> str:
        """Say in a sentence which checkpoint a resume would go on from."""
        step = self._saver.last_step
        if step is None:
            return "The main process knows which checkpoint is the last."
        return f"The last checkpoint is of step {step}." if step else "There is no checkpoint yet."


def _failed(failure: FailedCheckpoint) -> str:
    return f"the checkpoint of step {failure.step} cannot be written: {failure.error}"
