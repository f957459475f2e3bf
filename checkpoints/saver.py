"""Savers: they copy the state of a training, write it while the next steps run, and report what became of it."""

import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from checkpoints.checkpoint import CheckpointTensors, Retention, RunState, TrainingState, save_checkpoint
from common.errors import UserError
from compute.memory import is_out_of_memory, memory_in_use
from distributed.gathering import gather_tensors
from distributed.processes import Processes
from logging_system.records import CheckpointRecord

SPARE_MEMORY = 1.5  # a copy is made if this many times its size is free


@dataclass(frozen=True)
class FailedCheckpoint:
    """A checkpoint that could not be written; nothing of it is left."""

    step: int
    error: Exception

    def __str__(self) -> str:
        return f"the checkpoint of step {self.step} cannot be written: {self.error}"


class LastSaveFailed(UserError):
    """The disk does not take the last checkpoint; trying it again at once would not help."""


class Saver:
    """Reports checkpoints, and makes none: for a process whose weights the main process saves."""

    needs_others = False
    """Whether only all processes together can save."""

    last_step: int | None = None
    """The step of the newest complete checkpoint; 0 for none, None where only the main process knows."""

    def __init__(self) -> None:
        self._ended: list[CheckpointRecord | FailedCheckpoint] = []
        self._is_alone = False
        self._say: Callable[[str], None] = print
        self._on_saved: Callable[[CheckpointRecord], None] = lambda record: None

    def save(self, state: RunState, *, wait: bool) -> None:
        """Save the weights as they are now; `collect` returns what became of it.

        Args:
            state: how far the run is.
            wait: return when it is on the disk, or has failed. Otherwise it may still be written when this returns;
                the next save waits for it, so that there is never more than one copy of the weights.
        """

    def collect(self) -> list[CheckpointRecord | FailedCheckpoint]:
        """Return the saves that have ended since the last call, without waiting for more."""
        ended, self._ended = self._ended, []
        return ended

    def wait(self) -> None:
        """Wait for what is being written."""

    def close(self) -> None:
        """Wait, and end the thread that writes."""

    def report_to(self, say: Callable[[str], None], on_saved: Callable[[CheckpointRecord], None]) -> None:
        """Set who is told of checkpoints: the console of everything, and the dashboard of those on the disk."""
        self._say, self._on_saved = say, on_saved

    def begin(self, state: RunState) -> None:
        """Save while training goes on, where possible. A failure is a warning, now or later."""
        self.save(state, wait=False)
        self.report()

    def save_last(self, state: RunState) -> None:
        """Save, unless the step is saved already; it is on the disk when this returns.

        After `settle`, when other processes may be gone, a saver that needs them does nothing.

        Raises:
            LastSaveFailed: it cannot be written.
        """
        if self._is_alone and self.needs_others:
            return
        self.save(state, wait=True)
        outcomes = self.collect()
        last = outcomes[-1] if outcomes else None
        if isinstance(last, FailedCheckpoint):
            self._report(outcomes[:-1])
            raise LastSaveFailed(f"{last}. {self.last_checkpoint()}")
        self._report(outcomes)

    def report(self) -> None:
        """Report the saves that have ended since the last report."""
        self._report(self.collect(), after_failure="; training goes on")

    def settle(self) -> None:
        """Wait for what is being written and report it, before this process gives the run up."""
        self._is_alone = True
        self.wait()
        self._report(self.collect())

    def last_checkpoint(self) -> str:
        """Return a sentence about the checkpoint that a resume would go on from."""
        if self.last_step is None:
            return "The main process knows which checkpoint is the last."
        return f"The last checkpoint is of step {self.last_step}." if self.last_step else "There is no checkpoint yet."

    def _note(self, outcome: CheckpointRecord | FailedCheckpoint) -> None:
        self._ended.append(outcome)
        if isinstance(outcome, CheckpointRecord):
            self.last_step = outcome.step

    def _report(self, outcomes: Sequence[CheckpointRecord | FailedCheckpoint], after_failure: str = "") -> None:
        for outcome in outcomes:
            if isinstance(outcome, FailedCheckpoint):
                self._say(f"warning: {outcome}{after_failure}")
            else:
                self._say(f"Step {outcome.step}: checkpoint {outcome.folder}")
                self._on_saved(outcome)


class CheckpointSaver(Saver):
    """Lets the main process write each file, one checkpoint at a time; a thread writes while training goes on.

    Where the model is divided, all processes send it their parts, and then train on. The memory of the main process
    must hold weights, average and moments; where it has no room, the save fails before it begins.
    """

    def __init__(
        self,
        *,
        checkpoints: Path,
        describe: Callable[[RunState], TrainingState],
        tensors: Callable[[], CheckpointTensors],
        retention: Retention,
        in_background: bool,
        saved_step: int,
        processes: Processes,
    ) -> None:
        """Prepare a thread; it starts with the first save.

        Args:
            describe: returns the content of state.json.
            tensors: returns the current weights, average and moments.
            in_background: whether to write while training goes on.
            saved_step: that of the checkpoint resumed from, or 0.
            processes: those over which the model is divided; `Processes()` where this one has all of it.
        """
        super().__init__()
        self._checkpoints = checkpoints
        self._describe = describe
        self._tensors = tensors
        self._retention = retention
        self._in_background = in_background
        self._processes = processes
        self.needs_others = processes.are_several
        self.last_step = saved_step if processes.is_main else None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._running: Future[CheckpointRecord | FailedCheckpoint] | None = None
        self._has_warned = False

    def save(self, state: RunState, *, wait: bool) -> None:
        """Save as `Saver.save` says. All processes over which the model is divided have to call it."""
        start = time.perf_counter()
        if not self._processes.from_main(self._can_begin(state.step)):
            return
        write_start = time.perf_counter()
        tensors = self._tensors()
        if self._processes.are_several:
            tensors = gather_to_main(tensors)
        if not self._processes.is_main:
            return
        training_state = self._describe(state)
        copy = None if wait or not self._in_background else self._copy(tensors)
        if copy is None:
            self._note(self._write(training_state, tensors, start, write_start))
        else:
            stall = time.perf_counter() - start
            self._running = self._thread.submit(self._write, training_state, copy, start, write_start, stall)

    def collect(self) -> list[CheckpointRecord | FailedCheckpoint]:
        if self._running is not None and self._running.done():
            self.wait()
        return super().collect()

    def wait(self) -> None:
        if self._running is not None:
            running, self._running = self._running, None
            self._note(running.result())

    def close(self) -> None:
        self.wait()
        self._thread.shutdown()

    def _can_begin(self, step: int) -> bool:
        """Wait for what is being written; then return whether to save the step. Only the main process decides."""
        self.wait()
        # Saving a step a second time would only put the first checkpoint of it at risk.
        if not self._processes.is_main or step == self.last_step:
            return False
        if not self._processes.are_several:
            return True
        size, free = bytes_of(self._tensors()), free_memory()
        if size <= free:  # all that is free: other processes gather nothing, and a save that does not begin is lost
            return True
        error = MemoryError(
            f"the whole of it takes {size / 2**30:.1f} GiB of the main process's memory, and {free / 2**30:.1f} GiB "
            "are free; set CHECKPOINT_LAYOUT to sharded, with which every process writes its part"
        )
        self._note(FailedCheckpoint(step, error))
        return False

    def _copy(self, tensors: CheckpointTensors) -> CheckpointTensors | None:
        """Copy the state to the CPU, as it will be written; None where the memory has no room for it."""
        if self._processes.are_several:
            return tensors  # gathered, which training does not change
        if SPARE_MEMORY * bytes_of(tensors) < free_memory():
            try:
                return {name: {key: _row_major(each) for key, each in group.items()} for name, group in tensors.items()}
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
        stall_seconds: float | None = None,
    ) -> CheckpointRecord | FailedCheckpoint:
        try:
            folder = save_checkpoint(self._checkpoints, state, tensors, self._retention)
            size = sum(file.stat().st_size for file in folder.iterdir())
        except Exception as error:  # noqa: BLE001  in the other thread it would be lost; the caller of `collect` decides
            return FailedCheckpoint(state.step, error)
        end = time.perf_counter()
        stall = end - start if stall_seconds is None else stall_seconds
        return CheckpointRecord(state.step, folder, size, stall, end - write_start)


def gather_to_main(tensors: CheckpointTensors) -> CheckpointTensors:
    """Copy divided tensors to the main process's CPU, a few at a time; others get none. Call on all processes."""
    # Copies also what is not divided, because training changes it in place.
    return {name: {key: _row_major(each) for key, each in gather_tensors(group)} for name, group in tensors.items()}


def _row_major(tensor: Tensor) -> Tensor:
    """Copy to the CPU without the memory layout, so that writing it takes no second copy."""
    return torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach())


def bytes_of(tensors: CheckpointTensors) -> int:
    """Return the bytes of all tensors; a divided one counts as it is when gathered."""
    return sum(tensor.nbytes for group in tensors.values() for tensor in group.values())


def free_memory() -> int:
    """Return how many bytes of the machine's memory are free."""
    memory = memory_in_use(torch.device("cpu"))
    return memory.limit - memory.here
