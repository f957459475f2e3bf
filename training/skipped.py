"""Steps whose loss or gradient was not finite: counted, kept for replay, and too many in a row given up."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from checkpoints.tensor_files import load_tensors, save_tensors
from common.errors import UserError
from common.files import new_folder
from common.settings import config_as_json
from compute.device import ComputeDevice, LateNumbers
from data.order import Part
from data.records import Batch
from training.learner import Learner

FOLDER = "skipped_steps"
MOST_KEPT = 3  # per launch: the first ones tell most, and weights are large
_NOT_SKIPPED = -1


class TooManySkippedSteps(UserError):
    """The run is given up. Its weights may be what is wrong, so they must not push good checkpoints out."""


class SkippedSteps:
    """Learns which steps were skipped without making the host wait for the device.

    From a GPU it therefore learns it two steps later; until then it holds on to the batches.
    """

    def __init__(
        self,
        *,
        already_skipped: int,
        limit_in_a_row: int,
        compute: ComputeDevice,
        rank: int,
        keep: Callable[[int, Batch], None],
    ) -> None:
        """`keep` gets the step and its batch, for every one that was skipped through a fault of this rank."""
        self._total = already_skipped
        self._last_step = 0
        self._in_a_row = 0
        self._limit = limit_in_a_row
        self._rank = rank
        self._keep = keep
        self._unknown: LateNumbers[tuple[int, Batch]] = LateNumbers(compute)

    def add(self, step: int, batch: Batch, skipped: Tensor, fault: Tensor) -> None:
        """Take note of a step that has just been done; both tensors as in `step.StepOutcome`."""
        self._learn(self._unknown.put((step, batch), torch.where(skipped, fault, _NOT_SKIPPED)))

    def total(self) -> int:
        """Return how many steps were skipped since step 0."""
        self._learn(self._unknown.rest())
        return self._total

    def end_in_one(self) -> bool:
        """Say whether the latest step was skipped: its weights may be what is wrong."""
        self._learn(self._unknown.rest())
        return self._in_a_row > 0

    @property
    def are_too_many(self) -> bool:
        """Whether the last steps that are known of were skipped, as many as the limit."""
        return self._in_a_row >= self._limit

    def check(self) -> None:
        """Give the run up where it has to be.

        Raises:
            TooManySkippedSteps: `are_too_many`.
        """
        if self.are_too_many:
            raise TooManySkippedSteps(
                f"the loss or its gradient was not finite in the last {self._in_a_row} steps, up to step "
                f"{self._last_step} (MAX_SKIPPED_STEPS_IN_A_ROW is {self._limit}). They changed no weight. "
                f"`python -m training.replay` looks into such a step. Lower LEARNING_RATE, or look for broken clips."
            )

    def _learn(self, known: Sequence[tuple[tuple[int, Batch], Tensor]]) -> None:
        for (self._last_step, batch), number in known:
            at_fault = int(number)
            if at_fault == _NOT_SKIPPED:
                self._in_a_row = 0
                continue
            self._total += 1
            self._in_a_row += 1
            if at_fault == self._rank:
                self._keep(self._last_step, batch)


@dataclass(frozen=True)
class SkippedBatch:
    """One that was kept."""

    step: int
    batch: Batch
    weights: Mapping[str, Tensor] | None  # None where they were not kept
    config: Mapping[str, object]
    symbols: tuple[str, ...]
    part: Part  # of the step's clips: those of one process


class SkippedBatches:
    """Says which steps were skipped, and keeps the first ones. Never raises because of the disk: it then says so."""

    def __init__(self, run_folder: Path, learner: Learner) -> None:
        self._folder = run_folder / FOLDER
        self._learner = learner
        self._kept = 0

    def keep(self, step: int, batch: Batch) -> None:
        """Write the batch of a step that has just been skipped, with the weights as they are now."""
        said = f"Step {step} was skipped: its loss or gradient was not finite."
        if self._kept >= MOST_KEPT:
            print(said, file=sys.stderr)
            return
        try:
            with new_folder(self._folder / f"step_{step:08d}") as folder:
                self._fill(folder, step, batch)
        except OSError as error:
            print(f"warning: the batch of the skipped step {step} cannot be kept: {error}", file=sys.stderr)
            return
        self._kept += 1
        run = self._folder.parent
        print(f"{said} To look into it: python -m training.replay --run {run} --step {step}", file=sys.stderr)

    def _fill(self, folder: Path, step: int, batch: Batch) -> None:
        save_tensors(folder / "batch.safetensors", {"video": batch.video_BCTHW, "tokens": batch.tokens_BL})
        config, part = self._learner.config, self._learner.processes.part
        if self._learner.copies is None:  # otherwise this process has only a part of the weights
            save_tensors(folder / "model.safetensors", self._learner.model.state_dict())
        facts = {
            "step": step,
            "captions": batch.captions,
            "ids": batch.ids,
            "epoch": batch.epoch,
            "index_in_epoch": batch.index_in_epoch,
            "config": config_as_json(config),
            "symbols": self._learner.tokenizer.symbols,
            "rank": part.rank,
            "world_size": part.world_size,
        }
        (folder / "step.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False), "utf-8")


def kept_steps(run_folder: Path) -> list[int]:
    """Return the steps that a run kept, in order."""
    return sorted(int(path.name.removeprefix("step_")) for path in (run_folder / FOLDER).glob("step_*"))


def load_skipped(run_folder: Path, step: int) -> SkippedBatch:
    """Read what was kept of a step.

    Raises:
        UserError: there is nothing of that step, or it cannot be read.
    """
    folder = run_folder / FOLDER / f"step_{step:08d}"
    tensors = load_tensors(folder / "batch.safetensors")
    kept = folder / "model.safetensors"
    weights = load_tensors(kept) if kept.exists() else None
    try:
        facts = json.loads((folder / "step.json").read_text("utf-8"))
        batch = Batch(
            video_BCTHW=tensors["video"],
            tokens_BL=tensors["tokens"],
            captions=tuple(facts["captions"]),
            ids=tuple(facts["ids"]),
            epoch=facts["epoch"],
            index_in_epoch=facts["index_in_epoch"],
        )
        part = Part(facts["rank"], facts["world_size"])
        return SkippedBatch(facts["step"], batch, weights, facts["config"], tuple(facts["symbols"]), part)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder} cannot be read: {error!r}") from error
