"""Saving beside training: the state is copied first, and written while the next steps run."""

import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from training.checkpoint import CheckpointTensors, TrainingState, save_checkpoint
from training.estimate import memory_in_use
from training.memory import is_out_of_memory
from training.retention import Retention

SPARE_MEMORY = 1.5  # times the copy that must be free for it to be made


@dataclass(frozen=True)
class RunProgress:
    """What only the training loop knows about the state it is in."""

    step: int
    samples_seen: int
    skipped_steps: int
    validation_loss: float | None
    best_validation_loss: float | None
    validation_is_due: bool


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
        describe: Callable[[RunProgress], TrainingState],
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

    def save(self, progress: RunProgress, *, wait: bool) -> None:
        """Save the state as it is now; what came of it is in `collect`.

        Args:
            progress: of the state.
            wait: return when it is on the disk, or has failed. Otherwise it may still be written when this returns,
                and a save that comes before waits for it: there is one copy of the state at most.
        """
        start = time.perf_counter()
        if not self.is_needed(progress.step):
            return
        write_start = time.perf_counter()
        state, tensors = self._describe(progress), self._tensors()
        copy = None if wait or not self._in_background else self._copy(tensors)
        self._begun_step = progress.step
        if copy is None:
            self._note(self._write(state, tensors, start, write_start, stall_seconds=None))
        else:
            stall = time.perf_counter() - start
            self._running = self._thread.submit(self._write, state, copy, start, write_start, stall_seconds=stall)

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
