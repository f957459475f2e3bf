"""Checkpoints: folders of safetensors and JSON that are either complete or absent.

    checkpoints/
      step_00000300/
        model.safetensors      the trained weights
        ema.safetensors        their moving average, which samples are made from; same keys
        optimizer.safetensors  AdamW's moments, keyed by parameter name
        state.json             format version, step, config, symbols, schedule, validation losses
        manifest.json          sha256 of each of the files above, written last
      LATEST                   name of the newest folder

With CHECKPOINT_LAYOUT "sharded", one file of each process replaces the three of tensors (`tensor_files`).

Nothing here is pickled, so loading a checkpoint cannot run code.
"""

import hashlib
import json
import math
import os
import re
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from torch import Tensor, nn

from checkpoints.tensor_files import ShardedTensors, StoredTensors, WholeTensors, save_tensors, shard_names
from common.errors import UserError
from common.files import new_folder, remove_folder, sync_folder, write_atomically
from common.settings import config_as_json, config_from_json
from config import ARCHITECTURE_FIELDS, Config
from distributed.models import is_sharded

FORMAT_VERSION = 2

STATE = "state.json"
_MANIFEST = "manifest.json"
_FOLDER_NAME = re.compile(r"step_(\d{8,})")

WeightsName = Literal["model", "ema"]
"""The last weights, or their exponential moving average."""

TensorsName = Literal["model", "ema", "optimizer"]

CheckpointTensors = Mapping[str, Mapping[str, Tensor]]
"""The tensors of "model", "ema" and "optimizer", by their names."""


@dataclass(frozen=True)
class RunState:
    """How far a run is: what the training loop counts, saves and resumes from. Zeros for a fresh run."""

    step: int
    samples_seen: int
    skipped_steps: int
    validation_loss: float | None = None  # at this very step; None if it was not validated
    best_validation_loss: float | None = None  # of the validations on their cadence
    validation_is_due: bool = False  # this step should have been validated, but a signal came first


@dataclass(frozen=True, kw_only=True)
class TrainingState(RunState):
    """What a resume needs besides weights and optimizer moments. Order of data and randomness follow from `step`."""

    config: Mapping[str, object]
    config_file: Mapping[str, object]  # what config.py alone said, without preset and command line
    symbols: tuple[str, ...]  # the symbol of each token of the character encoder
    schedule: Mapping[str, float]  # LearningRateSchedule.state()
    loss_scale: Mapping[str, float] = field(default_factory=dict)  # LossScale.state()
    world_size: int = 1  # processes that trained together, each with BATCH_SIZE

    @property
    def run_state(self) -> RunState:
        """The part that the training loop goes on from."""
        return RunState(**{each.name: getattr(self, each.name) for each in fields(RunState)})


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose hashes have been verified."""

    folder: Path
    state: TrainingState

    def weights(self, name: TensorsName) -> dict[str, Tensor]:
        """Load all tensors of one name to the CPU.

        Raises:
            UserError: the file has gone since the checkpoint was verified (a training that goes on makes room for newer
                ones), or it holds something else.
        """
        return self.stored(name).read()

    def stored(self, name: TensorsName) -> StoredTensors:
        """Return the tensors of one name, to be read in parts."""
        if self.is_sharded:
            return ShardedTensors(self.folder, name)
        return WholeTensors(self.folder / f"{name}.safetensors")

    @property
    def is_sharded(self) -> bool:
        """Whether several processes wrote it in parts."""
        return (self.folder / shard_names(1)[0]).exists()


@dataclass(frozen=True)
class Retention:
    """Which checkpoints are kept.

    Attributes:
        keep_checkpoints: number of the highest steps that are kept, at least 1.
        keep_best_checkpoint: also the one with the lowest validation loss among those validated at their step.
        keep_checkpoint_every_steps: also the first one at or after each multiple of it; None for none.
    """

    keep_checkpoints: int
    keep_best_checkpoint: bool = False
    keep_checkpoint_every_steps: int | None = None


# Writing


def save_checkpoint(checkpoints: Path, state: TrainingState, tensors: CheckpointTensors, retention: Retention) -> Path:
    """Write a checkpoint and return its folder; then remove those that are not to be kept.

    A crash at any moment leaves the earlier checkpoints as they were: the folder is filled under a temporary
    name, every byte reaches the disk, and one rename makes it visible. One of the same step is replaced.

    `tensors`: on any device, in any memory layout; nobody changes them meanwhile.

    Raises:
        OSError: the disk is full or not writable; the temporary folder is removed.
    """
    with new_checkpoint(checkpoints, state) as folder:
        for name, group in tensors.items():
            save_tensors(folder / f"{name}.safetensors", group)
    return publish(checkpoints, state.step, retention)


@contextmanager
def new_checkpoint(
    checkpoints: Path, state: TrainingState, known_hashes: Mapping[str, str] = MappingProxyType({})
) -> Iterator[Path]:
    """Yield a folder for the files of tensors; after the ``with`` block it gets the other files and its name.

    `known_hashes`: sha256 by file name, read after the block; other files are hashed here.

    Raises:
        OSError: as `save_checkpoint`.
    """
    if not checkpoints.is_dir():
        checkpoints.mkdir(parents=True)
        sync_folder(checkpoints.parent)
    with new_folder(folder_of(checkpoints, state.step)) as folder:
        yield folder
        content = {"format_version": FORMAT_VERSION, **asdict(state)}
        (folder / STATE).write_text(json.dumps(content, indent=1), "utf-8")
        names = sorted(file.name for file in folder.iterdir())
        hashes = {name: known_hashes[name] if name in known_hashes else sha256(folder / name) for name in names}
        (folder / _MANIFEST).write_text(json.dumps({"sha256": hashes}, indent=1), "utf-8")


def publish(checkpoints: Path, step: int, retention: Retention) -> Path:
    """Name a checkpoint as the newest, remove those that are not to be kept, and return its folder."""
    final = folder_of(checkpoints, step)
    try:
        write_atomically(checkpoints / "LATEST", f"{final.name}\n".encode())
    except OSError as error:  # the checkpoint is there, and found without it
        print(f"warning: {checkpoints / 'LATEST'} cannot be written ({error}); it names an older step", file=sys.stderr)
    remove_old(checkpoints, final, retention)
    return final


def remove_old(checkpoints: Path, newest: Path, retention: Retention) -> None:
    """Remove the checkpoints that are not to be kept next to the newest, which is complete.

    One that cannot be removed does no harm.
    """
    others = [folder for folder in list_checkpoints(checkpoints) if folder != newest]
    kept = {newest, *others[: retention.keep_checkpoints - 1]}
    if retention.keep_best_checkpoint:
        kept.update(_by_validation_loss([newest, *others])[:1])
    if retention.keep_checkpoint_every_steps is not None:
        # The first one at or after each multiple: a step that was skipped is saved a little later.
        firsts = {step_of(folder) // retention.keep_checkpoint_every_steps: folder for folder in (newest, *others)}
        kept.update(folder for multiple, folder in firsts.items() if multiple > 0)
    for folder in others:
        if folder not in kept:
            with suppress(OSError):
                remove_folder(folder)


def set_aside_newer(checkpoints: Path, step: int) -> None:
    """Rename the damaged checkpoints that a resume passes by, so that new ones of these steps do not replace them.

    They are not removed: a file that could not be read may have been out of reach for a moment only.

    Raises:
        OSError: the folder cannot be written.
    """
    for folder in list_checkpoints(checkpoints):
        if step_of(folder) > step:
            aside = checkpoints / f"damaged_{folder.name}_{uuid.uuid4().hex[:8]}"
            os.replace(folder, aside)
            print(f"warning: {folder.name} is set aside as {aside}", file=sys.stderr)


# Finding and verifying


def folder_of(checkpoints: Path, step: int) -> Path:
    return checkpoints / f"step_{step:08d}"


def step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step_"))


def list_checkpoints(checkpoints: Path) -> list[Path]:
    """Return checkpoint folders, newest first; unfinished ones have other names and are not listed."""
    if not checkpoints.is_dir():
        return []
    folders = [folder for folder in checkpoints.iterdir() if _FOLDER_NAME.fullmatch(folder.name)]
    return sorted(folders, key=step_of, reverse=True)


def find_checkpoint(checkpoints: Path, which: str) -> Checkpoint | None:
    """Return the "newest" complete checkpoint, the "best" by validation loss, or that of a step; None without any.

    Raises:
        UserError: `which` names a step that has no checkpoint, or a damaged one; there is none with a validation loss;
            or all are damaged.
    """
    folders = list_checkpoints(checkpoints)
    if which == "newest":
        return load_newest(checkpoints)
    if which == "best":
        best = _first_complete(_by_validation_loss(folders), "the next best")
        if best is None:
            raise UserError(f"no checkpoint in {checkpoints} was validated at its step and is whole; take the newest")
        return best
    steps = [str(step_of(folder)) for folder in folders]
    if not which.isdecimal() or (which.lstrip("0") or "0") not in steps:
        known = ", ".join(reversed(steps)) or "none"
        raise UserError(f"there is no checkpoint {which!r} in {checkpoints}; give newest, best or one of: {known}")
    return read_checkpoint(folder_of(checkpoints, int(which)))


def load_newest(checkpoints: Path) -> Checkpoint | None:
    """Return the newest complete checkpoint, warning about each damaged one; None if there never was one.

    Raises:
        UserError: there are checkpoints and all are damaged, or the newest complete one is of another version.
    """
    folders = list_checkpoints(checkpoints)
    newest = _first_complete(folders, "an older one")
    if newest is None and folders:
        raise UserError(
            f"{'the only checkpoint' if len(folders) == 1 else f'all {len(folders)} checkpoints'} in {checkpoints} "
            f"{'is' if len(folders) == 1 else 'are'} damaged; restore one from a backup, or start a new "
            f"run with another --experiment-name"
        )
    return newest


def read_checkpoint(folder: Path) -> Checkpoint:
    """Open one checkpoint folder.

    Raises:
        UserError: a file is missing or does not match its hash, or another version of the program wrote it.
    """
    problem = _damage(folder)
    if problem is not None:
        raise UserError(f"checkpoint {folder} is damaged: {problem}")
    return _open(folder)


def _first_complete(folders: list[Path], alternative: str) -> Checkpoint | None:
    """Open the first complete one; the warning about each before it says which `alternative` is tried next."""
    for folder in folders:
        problem = _damage(folder)
        if problem is None:
            return _open(folder)
        print(f"warning: checkpoint {folder} is damaged ({problem}); trying {alternative}", file=sys.stderr)
    return None


def _by_validation_loss(folders: list[Path]) -> list[Path]:
    """Return those that were validated at their step, lowest loss first, without verifying them."""
    losses = {}
    for folder in folders:
        with suppress(OSError, ValueError, KeyError, TypeError):  # damaged, or None because it was not validated
            loss = float(json.loads((folder / STATE).read_text("utf-8"))["validation_loss"])
            if math.isfinite(loss):
                losses[folder] = loss
    return sorted(losses, key=losses.__getitem__)


def _open(folder: Path) -> Checkpoint:
    """Read a checkpoint that has just been verified; hashing it again would double the cost of a resume."""
    try:
        content = json.loads((folder / STATE).read_text("utf-8"))
        # Not in the manifest, which no hash protects: one altered digit there would pass for another version.
        version = content.pop("format_version", 1)
        if version != FORMAT_VERSION:
            raise UserError(
                f"checkpoint {folder} has format version {version}, this program reads {FORMAT_VERSION}; use the "
                f"version of the program that wrote it, or start a new run with another --experiment-name"
            )
        content["symbols"] = tuple(content["symbols"])
        return Checkpoint(folder, TrainingState(**content))
    except (ValueError, KeyError, TypeError) as error:  # its hash is right, so this program did not write it
        raise UserError(f"{folder / STATE} is no training state: {error!r}") from error


def _damage(folder: Path) -> str | None:
    """Say in a few words what is wrong with a checkpoint folder; None if nothing is."""
    try:
        hashes = json.loads((folder / _MANIFEST).read_text("utf-8"))["sha256"]
        for name in _needed_files(folder, hashes):
            if name not in hashes:
                return f"{_MANIFEST} does not list {name}"
            if sha256(folder / name) != hashes[name]:
                return f"{name} does not match its sha256"
    except FileNotFoundError as error:
        return f"{Path(str(error.filename)).name} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{_MANIFEST} cannot be read: {error!r}"
    return None


def _needed_files(folder: Path, hashes: Mapping[str, str]) -> Iterator[str]:
    """Yield what a checkpoint must have; first state.json, which says how many parts there are."""
    yield STATE
    if shard_names(1)[0] not in hashes:
        yield from ("model.safetensors", "ema.safetensors", "optimizer.safetensors")
    else:
        yield from shard_names(json.loads((folder / STATE).read_text("utf-8"))["world_size"])


def sha256(file: Path) -> str:
    """Return the hash of a file as the manifest has it.

    Raises:
        OSError: it cannot be read.
    """
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


# Using


def load_weights(model: nn.Module, checkpoint: Checkpoint, name: WeightsName) -> None:
    """Load weights into a model; of a divided one, the part of this process.

    Raises:
        UserError: the file has gone, or the checkpoint was made by another version of the network, so that names or
            shapes differ.
    """
    if not is_sharded(model):
        try:
            model.load_state_dict(checkpoint.weights(name))
        except RuntimeError as error:
            raise _misfit(checkpoint, name, str(error).splitlines()[1].strip()) from error
        return
    targets: Mapping[str, Tensor] = model.state_dict()
    stored = checkpoint.stored(name)
    shapes = stored.shapes()
    for key in sorted(targets.keys() ^ shapes.keys()):
        raise _misfit(checkpoint, name, f"{'Missing' if key in targets else 'Unexpected'} key: {key}")
    for key, target in targets.items():
        if target.shape != shapes[key]:
            raise _misfit(checkpoint, name, f"{key} has the shape {list(shapes[key])} and not {list(target.shape)}")
    stored.fill(targets)


def _misfit(checkpoint: Checkpoint, name: str, what: str) -> UserError:
    return UserError(
        f'"{name}" in {checkpoint.folder} does not fit the network of this version of the program: {what} ... '
        f"Use the version that trained it, or start a new run."
    )


def config_of_checkpoint(checkpoint: Checkpoint) -> Config:
    """Return the config that a checkpoint was trained with, for generation.

    Constants that are newer than the checkpoint get today's default, those that no longer exist are left out.

    Raises:
        UserError: an architecture constant is missing, or a value is not valid.
    """
    saved = checkpoint.state.config
    missing = sorted(ARCHITECTURE_FIELDS - saved.keys())
    if missing:
        raise UserError(
            f"{checkpoint.folder / STATE} lacks {', '.join(missing)}: another version of the program made it"
        )
    defaults = config_as_json(Config())
    return config_from_json(Config, {name: saved.get(name, default) for name, default in defaults.items()})
