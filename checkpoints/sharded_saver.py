"""Checkpoints of a model that is divided over several processes. All of them save at the same steps."""

import os
import time
from collections.abc import Callable, MutableMapping
from contextlib import ExitStack
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from checkpoints.checkpoint import (
    CheckpointTensors,
    Retention,
    RunState,
    TrainingState,
    new_checkpoint,
    publish,
    sha256,
)
from checkpoints.saver import CheckpointSaver, FailedCheckpoint, SavedCheckpoint, free_memory
from checkpoints.tensor_files import save_tensors, shard_names, write_shards
from distributed.gathering import gather_tensors
from distributed.processes import Processes


def gather_to_main(tensors: CheckpointTensors) -> CheckpointTensors:
    """Copy all tensors to the main process's CPU, a few at a time; others get none. Call on all processes."""
    # A copy also of what is not divided: training changes it in place.
    return {name: {key: _copy(each) for key, each in gather_tensors(of_name)} for name, of_name in tensors.items()}


def _copy(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach())


class GatheringSaver:
    """Lets the main process write the whole, as it does with "ddp". Its memory must hold weights, average and moments.

    All processes wait while these are gathered, and train on while they are written. A save for which the main process
    has no room has failed before it begins.
    """

    needs_others = True

    def __init__(
        self,
        writer: CheckpointSaver | None,
        gather: Callable[[], CheckpointTensors],
        whole_bytes: Callable[[], int],
        processes: Processes,
    ) -> None:
        """Make one.

        Args:
            writer: of the main process, whose tensors come from `gather`; None on all others.
            gather: takes part in `gather_to_main`.
            whole_bytes: returns how many bytes the main process gets from it.
            processes: that train together.
        """
        self._writer = writer
        self._gather = gather
        self._whole_bytes = whole_bytes
        self._processes = processes
        self._failed: list[SavedCheckpoint | FailedCheckpoint] = []

    @property
    def last_step(self) -> int | None:
        """The step of the newest checkpoint that is known to be whole; 0 for none, None where only others know."""
        return None if self._writer is None else self._writer.last_step

    def save(self, state: RunState, *, wait: bool) -> None:
        """Save as `CheckpointSaver.save` does. Call on all processes."""
        if not self._processes.from_main(self._can_begin(state.step)):
            return
        if self._writer is None:
            self._gather()
        else:
            self._writer.save(state, wait=wait)

    def collect(self) -> list[SavedCheckpoint | FailedCheckpoint]:
        """Return what has ended since the last call; nothing but on the main process."""
        failed, self._failed = self._failed, []
        return failed if self._writer is None else [*self._writer.collect(), *failed]

    def _can_begin(self, step: int) -> bool:
        """Say whether the step is to be saved, and the main process has room for the whole; no on the others."""
        if self._writer is None or not self._writer.is_needed(step):
            return False
        whole, free = self._whole_bytes(), free_memory()
        # Of all that is free: the others gather nothing here, and what is not begun is lost.
        if whole <= free:
            return True
        error = MemoryError(
            f"the whole of it takes {whole / 2**30:.1f} GiB of the main process's memory, and {free / 2**30:.1f} GiB "
            "are free; set CHECKPOINT_LAYOUT to sharded, with which every process writes its part"
        )
        self._failed.append(FailedCheckpoint(step, error))
        return False

    def finish(self) -> None:
        """Wait for what this process is writing."""
        if self._writer is not None:
            self._writer.finish()

    def close(self) -> None:
        """Wait, and end the thread."""
        if self._writer is not None:
            self._writer.close()


class ShardedSaver:
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
        """Make one.

        Args:
            checkpoints: the same folder for all, on a disk that they share.
            describe: completes what goes into state.json.
            tensors: returns the divided state as it is now.
            retention: which checkpoints are kept.
            processes: that train together.
            group: the same ones, connected over CPUs, for as long as the slowest disk takes.
            saved_step: that of the checkpoint resumed from, or 0.
        """
        self._checkpoints = checkpoints
        self._describe = describe
        self._tensors = tensors
        self._retention = retention
        self._processes = processes
        self._group = group
        self.last_step = saved_step
        self._done: list[SavedCheckpoint | FailedCheckpoint] = []

    def save(self, state: RunState, *, wait: bool) -> None:
        """Save the state as it is now; it is on the disk when this returns, or has failed. Call on all processes.

        What came of it is in `collect`, the same on all of them.
        """
        if not self._processes.from_main(state.step != self.last_step):
            return
        start = time.perf_counter()
        outcome = self._write(self._describe(state))
        if isinstance(outcome, OSError):
            self._done.append(FailedCheckpoint(state.step, outcome))
            return
        self.last_step = state.step
        seconds = time.perf_counter() - start
        size = sum(file.stat().st_size for file in outcome.iterdir()) if self._processes.is_main else 0
        self._done.append(SavedCheckpoint(state.step, outcome, size, seconds, seconds))

    def collect(self) -> list[SavedCheckpoint | FailedCheckpoint]:
        """Return what has ended since the last call."""
        done, self._done = self._done, []
        return done

    def finish(self) -> None:
        """Nothing is ever under way."""

    def close(self) -> None:
        """Nothing has to be closed."""

    def _write(self, state: TrainingState) -> Path | OSError:
        """Return the folder, or why there is none: the same on every process, as none may wait for one that failed."""
        outcome: Path | OSError = self._checkpoints
        try:
            with ExitStack() as opened:  # where the block raises, nothing is left of the folder
                hashes: dict[str, str] = {}
                folder = self._new_folder(state, hashes, opened)
                write_shards(folder, self._tensors(), self._group)
                hashes.update(self._hashes_of_all(folder))
            if self._processes.is_main:
                outcome = publish(self._checkpoints, state.step, self._retention)
        except OSError as error:
            outcome = error
        return self._processes.from_main(outcome)

    def _hashes_of_all(self, folder: Path) -> dict[str, str]:
        """Return the sha256 of every process's file by its name: each reads back its own, all at the same time.

        Raises:
            OSError: on all of them.
        """
        part = self._processes.part
        names = shard_names(part.world_size)
        try:
            own: str | OSError = _durable_hash(folder / names[part.rank])
        except OSError as error:
            own = error
        hashes = {}
        for rank, (name, found) in enumerate(zip(names, self._processes.gather(own), strict=True)):
            if isinstance(found, OSError):
                raise OSError(f"rank {rank}: {found}") from found
            hashes[name] = found
        return hashes

    def _new_folder(self, state: TrainingState, hashes: MutableMapping[str, str], opened: ExitStack) -> Path:
        """Let the main process make the folder, and see to it that all see it.

        Args:
            state: what state.json says.
            hashes: of the files of tensors, which are there when the folder is finished.
            opened: finishes it.

        Raises:
            OSError: on all of them.
        """
        made: Path | OSError | None = None
        if self._processes.is_main:
            try:
                made = opened.enter_context(new_checkpoint(self._checkpoints, state, hashes))
            except OSError as error:
                made = error
        made = self._processes.from_main(made)
        assert made is not None
        if isinstance(made, OSError):
            raise made
        blind = [rank for rank, sees in enumerate(self._processes.gather(made.is_dir())) if not sees]
        if blind:
            raise OSError(
                f"rank {blind[0]} does not see {made}: CHECKPOINT_LAYOUT sharded needs a LOG_DIR on a disk that all "
                "machines share"
            )
        return made


def _durable_hash(file: Path) -> str:
    """Return the sha256 of a file of this process once it has reached the disk.

    On a disk that machines share, only the one that wrote a file can force it there.

    Raises:
        OSError: it cannot be written.
    """
    if not file.exists():  # with more processes than rows, PyTorch's writer has nothing for some
        save_tensors(file, {})
    with open(file, "rb+") as opened:
        os.fsync(opened.fileno())
    return sha256(file)
