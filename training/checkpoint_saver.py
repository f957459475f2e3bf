"""Saving beside training: the state is copied first, and written while the next steps run."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from training.checkpoint import CheckpointTensors, Retention, TrainingState, save_checkpoint
from training.estimate import memory_in_use
from training.optimizer import optimizer_tensors

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
        stall_seconds: that training stood still for it.
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
    error: OSError | MemoryError


class CheckpointSaver:
    """Writes checkpoints of one run, one at a time. Only `save` looks at the weights, on the caller's thread."""

    def __init__(
        self,
        *,
        checkpoints: Path,
        describe: Callable[[RunProgress], TrainingState],
        model: nn.Module,
        ema_model: nn.Module,
        optimizer: torch.optim.AdamW,
        retention: Retention,
        in_background: bool,
        saved_step: int,
    ) -> None:
        """`describe` completes what goes into state.json; `saved_step` is that of the checkpoint resumed from, or 0."""
        self._checkpoints = checkpoints
        self._describe = describe
        self._model = model
        self._ema_model = ema_model
        self._optimizer = optimizer
        self._retention = retention
        self._in_background = in_background
        self._begun_step = saved_step
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._running: Future[SavedCheckpoint | FailedCheckpoint] | None = None
        self._done: list[SavedCheckpoint | FailedCheckpoint] = []

    def save(self, progress: RunProgress, *, wait: bool) -> None:
        """Save the state as it is now; what came of it is in `collect`.

        Args:
            progress: of the state.
            wait: return when it is on the disk, or has failed. Otherwise it may still be written when this returns,
                and a save that comes before waits for it: there is one copy of the state at most.
        """
        self._finish_running()
        if progress.step == self._begun_step:  # saved already; a second time would only put the first at risk
            return
        self._begun_step = progress.step
        start = time.perf_counter()
        state = self._describe(progress)
        tensors = self._tensors()
        if wait or not self._in_background or not _has_room_for_copy(tensors):
            self._note(self._write(state, tensors, start, stall_seconds=None))
            return
        copy = {name: _copy(of_name) for name, of_name in tensors.items()}
        self._running = self._thread.submit(self._write, state, copy, start, stall_seconds=time.perf_counter() - start)

    def collect(self) -> list[SavedCheckpoint | FailedCheckpoint]:
        """Return what has ended since the last call, without waiting for more."""
        if self._running is not None and self._running.done():
            self._finish_running()
        done, self._done = self._done, []
        return done

    def close(self) -> None:
        """Wait for what is being written."""
        self._finish_running()
        self._thread.shutdown()

    def _finish_running(self) -> None:
        if self._running is not None:
            running, self._running = self._running, None
            self._note(running.result())

    def _note(self, outcome: SavedCheckpoint | FailedCheckpoint) -> None:
        self._done.append(outcome)
        if isinstance(outcome, FailedCheckpoint):
            self._begun_step = -1  # the same step may be tried again

    def _tensors(self) -> CheckpointTensors:
        return {
            "model": self._model.state_dict(),
            "ema": self._ema_model.state_dict(),
            "optimizer": optimizer_tensors(self._optimizer, self._model),
        }

    def _write(
        self, state: TrainingState, tensors: CheckpointTensors, start: float, *, stall_seconds: float | None
    ) -> SavedCheckpoint | FailedCheckpoint:
        try:
            folder = save_checkpoint(self._checkpoints, state, tensors, self._retention)
        except (OSError, MemoryError) as error:
            return FailedCheckpoint(state.step, error)
        seconds = time.perf_counter() - start
        size = sum(file.stat().st_size for file in folder.iterdir())
        return SavedCheckpoint(state.step, folder, size, seconds if stall_seconds is None else stall_seconds, seconds)


def _copy(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


def _has_room_for_copy(tensors: CheckpointTensors) -> bool:
    """Say whether the machine's memory holds a copy. Where it does not, training waits for the disk instead."""
    size = sum(tensor.nbytes for of_name in tensors.values() for tensor in of_name.values())
    memory = memory_in_use(torch.device("cpu"))
    return memory.limit - memory.here > SPARE_MEMORY * size
