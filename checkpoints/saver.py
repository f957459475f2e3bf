"""Saving beside training: the state is copied first, and written while the next steps run."""

import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from checkpoints.checkpoint import CheckpointTensors, Retention, RunState, TrainingState, save_checkpoint
from common.errors import UserError
from compute.memory import is_out_of_memory, memory_in_use
from logging_system.records import CheckpointRecord

SPARE_MEMORY = 1.5  # times the copy that must be free for it to be made


@dataclass(frozen=True)
class SavedCheckpoint:
    """A checkpoint that has reached the disk.

    Attributes:
        stall_seconds: that training stood still for it, waiting for the save before it included.
        write_seconds: from its beginning until it was durable.
    """

    step: int
    folder: Path
    size_bytes: int
    stall_seconds: float
    write_seconds: float


@dataclass(frozen=True)
class FailedCheckpoint:
    """One that could not be written; nothing of it is left."""

    step: int
    error: Exception


class CheckpointSaver:
    """Writes checkpoints of one run, one at a time. Only `save` looks at the weights, on the caller's thread."""

    needs_others = False

    def __init__(
        self,
        *,
        checkpoints: Path,
        describe: Callable[[RunState], TrainingState],
        tensors: Callable[[], CheckpointTensors],
        retention: Retention,
        in_background: bool,
        saved_step: int,
        tensors_are_copies: bool = False,
    ) -> None:
        """Make one.

        Args:
            describe: completes what goes into state.json.
            tensors: returns the state as it is now.
            in_background: whether to write while training goes on.
            saved_step: that of the checkpoint resumed from, or 0.
            tensors_are_copies: whether training leaves what `tensors` returned as it is.
        """
        self._checkpoints = checkpoints
        self._describe = describe
        self._tensors = tensors
        self._retention = retention
        self._in_background = in_background
        self._tensors_are_copies = tensors_are_copies
        self._begun_step: int | None = saved_step  # that is saved, or being saved
        self.last_step = saved_step
        """The step of the newest checkpoint that is known to be whole; 0 for none."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._running: Future[SavedCheckpoint | FailedCheckpoint] | None = None
        self._done: list[SavedCheckpoint | FailedCheckpoint] = []
        self._has_warned = False

    def save(self, state: RunState, *, wait: bool) -> None:
        """Save the state as it is now; what came of it is in `collect`.

        Args:
            state: how far the run is, whose weights are as they are now.
            wait: return when it is on the disk, or has failed. Otherwise it may still be written when this returns,
                and a save that comes before waits for it: there is one copy of the state at most.
        """
        start = time.perf_counter()
        if not self.is_needed(state.step):
            return
        write_start = time.perf_counter()
        described, tensors = self._describe(state), self._tensors()
        copy = None if wait or not self._in_background else self._copy(tensors)
        self._begun_step = state.step
        if copy is None:
            self._note(self._write(described, tensors, start, write_start, stall_seconds=None))
        else:
            stall = time.perf_counter() - start
            self._running = self._thread.submit(self._write, described, copy, start, write_start, stall_seconds=stall)

    def is_needed(self, step: int) -> bool:
        """Wait for what is being written; then say whether the step is to be saved.

        One that is saved already is not: a second time would only put the first at risk.
        """
        self.finish()
        return step != self._begun_step

    def collect(self) -> list[SavedCheckpoint | FailedCheckpoint]:
        """Return what has ended since the last call, without waiting for more."""
        if self._running is not None and self._running.done():
            self.finish()
        done, self._done = self._done, []
        return done

    def finish(self) -> None:
        """Wait for what is being written."""
        if self._running is not None:
            running, self._running = self._running, None
            self._note(running.result())

    def close(self) -> None:
        """Wait, and end the thread."""
        self.finish()
        self._thread.shutdown()

    def _note(self, outcome: SavedCheckpoint | FailedCheckpoint) -> None:
        self._done.append(outcome)
        if isinstance(outcome, SavedCheckpoint):
            self.last_step = outcome.step
        else:
            self._begun_step = None  # the same step may be tried again

    def _copy(self, tensors: CheckpointTensors) -> CheckpointTensors | None:
        """Copy the state to the CPU, as it will be written; None where the memory has no room for it."""
        if self._tensors_are_copies:
            return tensors
        if SPARE_MEMORY * bytes_of(tensors) < free_memory():
            try:
                return {
                    name: {key: _row_major(each) for key, each in of_name.items()} for name, of_name in tensors.items()
                }
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
        if not self._has_warned:
            self._has_warned = True
            print("warning: no memory for a copy of the state; training waits for its checkpoints", file=sys.stderr)
        return None

    def _write(
        self,
        state: TrainingState,
        tensors: CheckpointTensors,
        start: float,
        write_start: float,
        *,
        stall_seconds: float | None,
    ) -> SavedCheckpoint | FailedCheckpoint:
        try:
            folder = save_checkpoint(self._checkpoints, state, tensors, self._retention)
            size = sum(file.stat().st_size for file in folder.iterdir())
        except Exception as error:  # noqa: BLE001  in the other thread it would be lost; who waits for it decides
            return FailedCheckpoint(state.step, error)
        end = time.perf_counter()
        stall = end - start if stall_seconds is None else stall_seconds
        return SavedCheckpoint(state.step, folder, size, stall, end - write_start)


def _row_major(tensor: Tensor) -> Tensor:
    """Copy to the CPU without the memory layout, so that writing it takes no second copy."""
    return torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach())


def bytes_of(tensors: CheckpointTensors) -> int:
    """Return what all tensors take; divided ones as if they were whole."""
    return sum(tensor.nbytes for of_name in tensors.values() for tensor in of_name.values())


def free_memory() -> int:
    """Return how many bytes of the machine's memory are free; one process of a run alone makes such copies."""
    memory = memory_in_use(torch.device("cpu"))
    return memory.limit - memory.here


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

    def save(self, state: RunState, *, wait: bool) -> None: ...
    def collect(self) -> list[SavedCheckpoint | FailedCheckpoint]: ...
    def finish(self) -> None: ...
    def close(self) -> None: ...


class NoSaver:
    """Of every process but the main one, where each has all weights."""

    last_step = None
    needs_others = False

    def save(self, state: RunState, *, wait: bool) -> None:
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

    def begin(self, state: RunState) -> None:
        """Save, beside training where that can be. A failure is a warning, now or later."""
        self._saver.save(state, wait=False)
        self.report()

    def finish(self, state: RunState) -> None:
        """Save, unless it is saved already; it is on the disk when this returns.

        After `settle`, where the others may be gone, nothing is done that would need them.

        Raises:
            LastSaveFailed: it cannot be written.
        """
        if self._is_alone and self._saver.needs_others:
            return
        self._saver.save(state, wait=True)
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
