"""What a skipped step was made of, in the run folder: skipped_steps/step_00000123/, for `python -m training.replay`.

    batch.safetensors      video [B, 3, T, H, W] float32 and tokens [B, L] int64, as the step got them
    model.safetensors      the weights, when the step was found to be skipped; not of a model that processes share in
                           parts, as those that have the rest are not asked for it
    step.json              step, captions, ids, config, symbols, and which of how many processes had these clips

The step itself changes no weight. On a GPU, where it is found out a step or two later, a step between may have.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from common.errors import UserError
from common.files import new_folder
from data.order import Part
from data.records import Batch
from training.tensor_files import load_tensors, save_tensors

FOLDER = "skipped_steps"
MOST_KEPT = 3  # of a launch: the first ones tell, and weights are large


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

    def __init__(
        self,
        run_folder: Path,
        model: nn.Module | None,
        config: Mapping[str, object],
        symbols: tuple[str, ...],
        part: Part,
    ) -> None:
        """`model` is None where this process has only a part of it."""
        self._folder = run_folder / FOLDER
        self._model = model
        self._config = config
        self._symbols = symbols
        self._part = part
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
        if self._model is not None:
            save_tensors(folder / "model.safetensors", self._model.state_dict())
        facts = {
            "step": step,
            "captions": batch.captions,
            "ids": batch.ids,
            "epoch": batch.epoch,
            "index_in_epoch": batch.index_in_epoch,
            "config": self._config,
            "symbols": self._symbols,
            "rank": self._part.rank,
            "world_size": self._part.world_size,
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
