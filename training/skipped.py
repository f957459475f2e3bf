"""Steps whose loss or gradient was not finite: they are counted and kept for replay; too many in a row end the run."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from checkpoints.tensor_files import load_tensors, save_tensors
from common.console import command
from common.errors import UserError
from common.files import new_folder
from common.settings import config_as_json
from compute.device import ComputeDevice, LateNumbers
from data.order import Part
from data.records import Batch
from training.learner import Learner

FOLDER = "skipped_steps"
MAX_KEPT = 3  # per launch: the first ones tell most, and weights are large
_NOT_SKIPPED = -1


class TooManySkippedSteps(UserError):
    """Ends the run. Its weights may be what is wrong, so they must not replace good checkpoints."""


class SkippedSteps:
    """Counts skipped steps without making the host wait for the device.

    The result of a step on a GPU therefore arrives two steps later. Until then this keeps the batches.
    """

    def __init__(
        self,
        *,
        already_skipped: int,
        max_skipped_steps_in_a_row: int,
        compute: ComputeDevice,
        rank: int,
        keep: Callable[[int, Batch], None],
    ) -> None:
        """`keep` gets the number and the batch of each skipped step whose fault lay with this rank."""
        self._total = already_skipped
        self._last_step = 0
        self._in_a_row = 0
        self._limit = max_skipped_steps_in_a_row
        self._rank = rank
        self._keep = keep
        self._pending: LateNumbers[tuple[int, Batch]] = LateNumbers(compute)

    def add(self, step: int, batch: Batch, skipped: Tensor, fault: Tensor) -> None:
        """Add a step that has just been done; both tensors as in `step.StepOutcome`."""
        self._count(self._pending.put((step, batch), torch.where(skipped, fault, _NOT_SKIPPED)))

    def total(self) -> int:
        """Return how many steps were skipped since step 0."""
        self._count(self._pending.rest())
        return self._total

    def last_was_skipped(self) -> bool:
        """Return whether the latest step was skipped: its weights may be what is wrong."""
        self._count(self._pending.rest())
        return self._in_a_row > 0

    @property
    def are_too_many(self) -> bool:
        """Whether as many of the latest known steps as the limit allows were skipped."""
        return self._in_a_row >= self._limit

    def check(self) -> None:
        """Raise TooManySkippedSteps if `are_too_many`."""
        if self.are_too_many:
            raise TooManySkippedSteps(
                f"the loss or its gradient was not finite in the last {self._in_a_row} steps, up to step "
                f"{self._last_step} (MAX_SKIPPED_STEPS_IN_A_ROW is {self._limit}). They changed no weight. "
                f"`python -m training.replay` looks into such a step. Lower LEARNING_RATE, or look for broken clips."
            )

    def _count(self, arrived: Sequence[tuple[tuple[int, Batch], Tensor]]) -> None:
        for (self._last_step, batch), number in arrived:
            faulty_rank = int(number)
            if faulty_rank == _NOT_SKIPPED:
                self._in_a_row = 0
                continue
            self._total += 1
            self._in_a_row += 1
            if faulty_rank == self._rank:
                self._keep(self._last_step, batch)


class SkippedBatchWriter:
    """Reports skipped steps, and keeps the batches of the first ones. If the disk fails, it only warns."""

    def __init__(self, run_folder: Path, learner: Learner) -> None:
        self._folder = run_folder / FOLDER
        self._learner = learner
        self._kept = 0

    def keep(self, step: int, batch: Batch) -> None:
        """Write the batch of a step that has just been skipped, with the current weights."""
        message = f"Step {step} was skipped: its loss or gradient was not finite."
        if self._kept >= MAX_KEPT:
            print(message, file=sys.stderr)
            return
        try:
            with new_folder(self._folder / f"step_{step:08d}") as folder:
                self._fill(folder, step, batch)
        except OSError as error:
            print(f"warning: the batch of the skipped step {step} cannot be kept: {error}", file=sys.stderr)
            return
        self._kept += 1
        run = self._folder.parent
        replay = command("python", "-m", "training.replay", "--run", run, "--step", str(step))
        print(f"{message} To look into it: {replay}", file=sys.stderr)

    def _fill(self, folder: Path, step: int, batch: Batch) -> None:
        tensors = {"clips": batch.clips_BTHWC, "seconds": batch.seconds_B, "tokens": batch.tokens_BL}
        save_tensors(folder / "batch.safetensors", tensors)
        config, part = self._learner.config, self._learner.processes.part
        if self._learner.copies is None:  # otherwise this process has only a part of the weights
            save_tensors(folder / "model.safetensors", self._learner.model.state_dict())
        facts = {
            "step": step,
            "captions": batch.captions,
            "ids": batch.ids,
            "epoch": batch.epoch,
            "index_in_epoch": batch.index_in_epoch,
            "clips_in_step": batch.clips_in_step,
            "config": config_as_json(config),
            "symbols": self._learner.tokenizer.symbols,
            "rank": part.rank,
            "world_size": part.world_size,
        }
        (folder / "step.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False), "utf-8")


@dataclass(frozen=True)
class SkippedBatch:
    """A batch that was kept, and what else a replay of its step needs."""

    step: int
    batch: Batch
    weights: Mapping[str, Tensor] | None  # None if they were not kept
    config: Mapping[str, object]
    symbols: tuple[str, ...]
    part: Part  # which clips of the step these are: those of one process


def kept_steps(run_folder: Path) -> list[int]:
    """Return the numbers of the steps that a run kept, in order."""
    return sorted(int(path.name.removeprefix("step_")) for path in (run_folder / FOLDER).glob("step_*"))


def load_skipped(run_folder: Path, step: int) -> SkippedBatch:
    """Read what was kept of a step.

    Raises:
        UserError: that step was not kept, or it cannot be read.
    """
    folder = run_folder / FOLDER / f"step_{step:08d}"
    tensors = load_tensors(folder / "batch.safetensors")
    kept = folder / "model.safetensors"
    weights = load_tensors(kept) if kept.exists() else None
    try:
        facts = json.loads((folder / "step.json").read_text("utf-8"))
        batch = Batch(
            clips_BTHWC=tensors["clips"],
            seconds_B=tensors["seconds"],
            tokens_BL=tensors["tokens"],
            captions=tuple(facts["captions"]),
            ids=tuple(facts["ids"]),
            epoch=facts["epoch"],
            index_in_epoch=facts["index_in_epoch"],
            clips_in_step=facts["clips_in_step"],
        )
        part = Part(facts["rank"], facts["world_size"])
        return SkippedBatch(facts["step"], batch, weights, facts["config"], tuple(facts["symbols"]), part)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder} cannot be read: {error!r}") from error
