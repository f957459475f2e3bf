"""Saves a divided model without gathering it: each process writes its part. All of them save at the same steps."""

import os
import time
from collections.abc import Callable, MutableMapping
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import torch.distributed as dist

from checkpoints.checkpoint import (
    CheckpointTensors,
    Retention,
    RunState,
    TrainingState,
    new_checkpoint,
    publish,
    sha256,
)
from checkpoints.saver import FailedCheckpoint, Saver
from checkpoints.tensor_files import save_tensors, shard_names, write_shards
from distributed.processes import Processes
from logging_system.records import CheckpointRecord

Value = TypeVar("Value")


class ShardedSaver(Saver):
    """Lets every process write its part, while training waits. No process needs memory for more than its part."""

    needs_others = True

    def __init__(
        self,
        *,
        checkpoints: Path,
        describe: Callable[[RunState], TrainingState],
        tensors: Callable[[], CheckpointTensors],
        retention: Retention,
        processes: Processes,
        group: dist.ProcessGroup,
        saved_step: int,
    ) -> None:
        """Keep what a save needs; nothing is written yet.

        Args:
            checkpoints: the same folder for all processes, on a disk that they share.
            describe: returns the content of state.json.
            tensors: returns the current weights, average and moments, divided.
            group: the same processes, connected over CPUs, with a timeout that the slowest disk meets.
            saved_step: that of the checkpoint resumed from, or 0.
        """
        super().__init__()
        self._checkpoints = checkpoints
        self._describe = describe
        self._tensors = tensors
        self._retention = retention
        self._processes = processes
        self._group = group
        self.last_step = saved_step

    def save(self, state: RunState, *, wait: bool) -> None:
        """Save the weights as they are now; they are on the disk when this returns, or the save has failed.

        Call on all processes. `collect` then returns the same outcome on each of them.
        """
        if not self._processes.from_main(state.step != self.last_step):
            return
        start = time.perf_counter()
        outcome = self._write(self._describe(state))
        if isinstance(outcome, OSError):
            self._note(FailedCheckpoint(state.step, outcome))
            return
        seconds = time.perf_counter() - start
        size = sum(file.stat().st_size for file in outcome.iterdir()) if self._processes.is_main else 0
        self._note(CheckpointRecord(state.step, outcome, size, seconds, seconds))

    def _write(self, state: TrainingState) -> Path | OSError:
        """Return the folder or the error, the same on every process: none may wait for one that failed."""
        outcome: Path | OSError = self._checkpoints
        try:
            with ExitStack() as opened:  # if the block raises, nothing is left of the folder
                hashes: dict[str, str] = {}
                folder = self._new_folder(state, hashes, opened)
                write_shards(folder, self._tensors(), self._group)
                hashes.update(self._hashes_of_all(folder))
            if self._processes.is_main:
                outcome = publish(self._checkpoints, state.step, self._retention)
        except OSError as error:
            outcome = error
        return self._processes.from_main(outcome)

    def _new_folder(self, state: TrainingState, hashes: MutableMapping[str, str], opened: ExitStack) -> Path:
        """Let the main process make the folder, and check that all see it; `opened` finishes it with the `hashes`."""
        made: Path | OSError = self._checkpoints
        if self._processes.is_main:
            made = _result(lambda: opened.enter_context(new_checkpoint(self._checkpoints, state, hashes)))
        made = self._processes.from_main(made)
        if isinstance(made, OSError):
            raise made
        blind = [rank for rank, sees in enumerate(self._processes.gather(made.is_dir())) if not sees]
        if blind:
            raise OSError(
                f"rank {blind[0]} does not see {made}: CHECKPOINT_LAYOUT sharded needs a LOG_DIR on a disk that all "
                "machines share"
            )
        return made

    def _hashes_of_all(self, folder: Path) -> dict[str, str]:
        """Return the sha256 of every process's file by its name. Each reads back its own, all at the same time."""
        part = self._processes.part
        names = shard_names(part.world_size)
        own = _result(lambda: _durable_hash(folder / names[part.rank]))
        hashes = {}
        for rank, (name, found) in enumerate(zip(names, self._processes.gather(own), strict=True)):
            if isinstance(found, OSError):
                raise OSError(f"rank {rank}: {found}") from found
            hashes[name] = found
        return hashes


def _result(work: Callable[[], Value]) -> Value | OSError:
    """Return the error as well: the other processes wait to be told."""
    try:
        return work()
    except OSError as error:
        return error


def _durable_hash(file: Path) -> str:
    """Return the sha256 of a file that this process wrote, once on the disk; only its writer can force it there."""
    if not file.exists():  # with more processes than rows, PyTorch's writer has nothing for some
        save_tensors(file, {})
    with open(file, "rb+") as opened:
        os.fsync(opened.fileno())
    return sha256(file)
