"""Checkpoints: folders of safetensors and JSON that are either complete or absent.

    checkpoints/
      step_00000300/
        model.safetensors      the trained weights
        ema.safetensors        their moving average, which samples are made from; same keys
        optimizer.safetensors  AdamW's moments, keyed by parameter name
        state.json             step, config, symbols, schedule, best validation loss
        manifest.json          sha256 of each of the files above, written last
      LATEST                   name of the newest folder

Nothing here is pickled, so loading a checkpoint cannot run code.
"""

import hashlib
import json
import os
import re
import shutil
import sys
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor, nn

from common.errors import UserError
from common.files import sync_folder, write_atomically

FORMAT_VERSION = 1
_MANIFEST = "manifest.json"
_STATE = "state.json"
WeightsName = Literal["model", "ema"]
"""The last weights, or their exponential moving average."""
_FOLDER_NAME = re.compile(r"step_(\d{8,})")


@dataclass(frozen=True)
class TrainingState:
    """What a resume needs besides weights and optimizer moments. Order of data and randomness follow from `step`."""

    step: int
    samples_seen: int
    skipped_steps: int
    config: Mapping[str, object]
    symbols: tuple[str, ...]  # what the character encoder's tokens stand for
    schedule: Mapping[str, float]  # LearningRateSchedule.state()
    best_validation_loss: float | None


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose hashes have been verified."""

    folder: Path
    state: TrainingState

    def weights(self, name: str) -> dict[str, Tensor]:
        """Load "model", "ema" or "optimizer" as tensors on the CPU.

        Read whole, not mapped: a mapped file that is truncated later ends the process with a bus error.
        """
        return load((self.folder / f"{name}.safetensors").read_bytes())


def save_checkpoint(
    checkpoints: Path,
    state: TrainingState,
    model: nn.Module,
    ema_model: nn.Module,
    optimizer_tensors: Mapping[str, Tensor],
    keep: int,
) -> Path:
    """Write a checkpoint and return its folder; then remove all but the newest `keep`.

    A crash at any moment leaves the earlier checkpoints as they were: the folder is filled under a temporary
    name, every byte reaches the disk, and one rename makes it visible.

    Raises:
        OSError: the disk is full or not writable; the temporary folder is removed.
    """
    checkpoints.mkdir(parents=True, exist_ok=True)
    final = checkpoints / f"step_{state.step:08d}"
    temporary = checkpoints / f".tmp-{final.name}-{uuid.uuid4().hex}"
    try:
        temporary.mkdir()
        _fill(temporary, state, model, ema_model, optimizer_tensors)
        if final.exists():  # saved twice at one step: a damaged folder that a resume fell back from
            shutil.rmtree(final)
        os.replace(temporary, final)
        sync_folder(checkpoints)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    write_atomically(checkpoints / "LATEST", f"{final.name}\n".encode())
    _remove_old(checkpoints, final, keep)
    return final


def load_newest(checkpoints: Path) -> Checkpoint | None:
    """Return the newest checkpoint that is whole, warning about each damaged one; None if there never was one.

    Raises:
        UserError: there are checkpoints and all are damaged.
    """
    folders = list_checkpoints(checkpoints)
    for folder in folders:
        problem = _damage(folder)
        if problem is None:
            return _open(folder)
        print(f"warning: checkpoint {folder} is damaged ({problem}); trying an older one", file=sys.stderr)
    if folders:
        raise UserError(
            f"all {len(folders)} checkpoints in {checkpoints} are damaged; restore one from a backup, or start a new "
            f"run with another --experiment-name"
        )
    return None


def read_checkpoint(folder: Path) -> Checkpoint:
    """Open one checkpoint folder.

    Raises:
        UserError: a file is missing or does not match its hash, or the format is newer than this program.
    """
    problem = _damage(folder)
    if problem is not None:
        raise UserError(f"checkpoint {folder} is damaged: {problem}")
    return _open(folder)


def _open(folder: Path) -> Checkpoint:
    """Read a checkpoint that has just been verified; hashing it again would double the cost of a resume."""
    content = json.loads((folder / _STATE).read_text("utf-8"))
    content["symbols"] = tuple(content["symbols"])
    return Checkpoint(folder, TrainingState(**content))


def load_weights(model: nn.Module, checkpoint: Checkpoint, name: WeightsName) -> None:
    """Load weights into a model.

    Raises:
        UserError: the checkpoint was made by another version of the network, so that names or shapes differ.
    """
    try:
        model.load_state_dict(checkpoint.weights(name))
    except RuntimeError as error:
        raise UserError(
            f"{checkpoint.folder / name}.safetensors does not fit the network of this version of the program: "
            f"{str(error).splitlines()[1].strip()} ... Use the version that trained it, or start a new run."
        ) from error


def list_checkpoints(checkpoints: Path) -> list[Path]:
    """Return checkpoint folders, newest first; unfinished ones have other names and are not listed."""
    if not checkpoints.is_dir():
        return []
    steps = {folder: match for folder in checkpoints.iterdir() if (match := _FOLDER_NAME.fullmatch(folder.name))}
    return sorted(steps, key=lambda folder: int(steps[folder].group(1)), reverse=True)


def _fill(
    folder: Path, state: TrainingState, model: nn.Module, ema_model: nn.Module, optimizer_tensors: Mapping[str, Tensor]
) -> None:
    weights = {"model": model.state_dict(), "ema": ema_model.state_dict(), "optimizer": dict(optimizer_tensors)}
    for name, tensors in weights.items():
        # Row-major on disk whatever the layout in memory: safetensors stores no strides.
        plain = {key: tensor.detach().contiguous() for key, tensor in tensors.items()}
        try:
            save_file(plain, folder / f"{name}.safetensors")
        except SafetensorError as error:  # its name for a full disk
            raise OSError(f"{name}.safetensors: {error}") from error
    (folder / _STATE).write_text(json.dumps(asdict(state), indent=1, sort_keys=True), "utf-8")
    hashes = {file.name: _sha256(file) for file in sorted(folder.iterdir())}
    manifest = {"format_version": FORMAT_VERSION, "sha256": hashes}
    (folder / _MANIFEST).write_text(json.dumps(manifest, indent=1), "utf-8")
    for file in folder.iterdir():
        with open(file, "rb+") as opened:
            os.fsync(opened.fileno())
    sync_folder(folder)


def _damage(folder: Path) -> str | None:
    """Say in a few words what is wrong with a checkpoint folder; None if nothing is."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text("utf-8"))
        version, hashes = manifest["format_version"], manifest["sha256"]
        if version != FORMAT_VERSION:
            return f"{_MANIFEST} has format version {version}, this program reads {FORMAT_VERSION}"
        for name in ("model.safetensors", "ema.safetensors", "optimizer.safetensors", _STATE):
            if name not in hashes:
                return f"{_MANIFEST} does not list {name}"
            if _sha256(folder / name) != hashes[name]:
                return f"{name} does not match its sha256"
    except FileNotFoundError as error:
        return f"{Path(str(error.filename)).name} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{_MANIFEST} cannot be read: {error!r}"
    return None


def _sha256(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _remove_old(checkpoints: Path, newest: Path, keep: int) -> None:
    """Keep the folder just written and the `keep` - 1 highest others. What cannot be removed is no harm."""
    others = [folder for folder in list_checkpoints(checkpoints) if folder != newest]
    for folder in others[keep - 1 :]:
        shutil.rmtree(folder, ignore_errors=True)
    for leftover in checkpoints.glob(".tmp-step_*"):  # of a process that was killed while saving
        shutil.rmtree(leftover, ignore_errors=True)
