"""The folders of a run's checkpoints, by step and by validation loss, and which of them are kept."""

import json
import math
import os
import re
import sys
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from common.files import remove_folder

STATE = "state.json"
_FOLDER_NAME = re.compile(r"step_(\d{8,})")


@dataclass(frozen=True)
class Retention:
    """Which checkpoints are kept.

    Attributes:
        newest: so many of the highest steps, at least 1.
        best: also the one with the lowest validation loss among those that were validated at their step.
        every_steps: also the first one at or after each multiple of it; None for none.
    """

    newest: int
    best: bool = False
    every_steps: int | None = None


def folder_of(checkpoints: Path, step: int) -> Path:
    """Return where the checkpoint of a step lies."""
    return checkpoints / f"step_{step:08d}"


def list_checkpoints(checkpoints: Path) -> list[Path]:
    """Return checkpoint folders, newest first; unfinished ones have other names and are not listed."""
    if not checkpoints.is_dir():
        return []
    folders = [folder for folder in checkpoints.iterdir() if _FOLDER_NAME.fullmatch(folder.name)]
    return sorted(folders, key=step_of, reverse=True)


def remove_old(checkpoints: Path, newest: Path, retention: Retention) -> None:
    """Remove what is not to be kept beside the newest one, which is whole. What cannot be removed is no harm."""
    others = [folder for folder in list_checkpoints(checkpoints) if folder != newest]
    kept = {newest, *others[: retention.newest - 1]}
    if retention.best:
        kept.update(by_validation_loss([newest, *others])[:1])
    if retention.every_steps is not None:
        # The first one at or after each multiple: a step that was skipped is saved a little later.
        firsts = {step_of(folder) // retention.every_steps: folder for folder in (newest, *others)}
        kept.update(folder for multiple, folder in firsts.items() if multiple > 0)
    for folder in others:
        if folder not in kept:
            with suppress(OSError):
                remove_folder(folder)


def by_validation_loss(folders: list[Path]) -> list[Path]:
    """Return those that were validated at their step, lowest loss first. Whether they are whole is not looked at."""
    losses = {folder: loss for folder in folders if (loss := _validation_loss(folder)) is not None}
    return sorted(losses, key=lambda folder: losses[folder])


def _validation_loss(folder: Path) -> float | None:
    try:
        loss = json.loads((folder / STATE).read_text("utf-8"))["validation_loss"]
        return float(loss) if loss is not None and math.isfinite(loss) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step_"))


def set_aside_newer(checkpoints: Path, step: int) -> None:
    """Rename what a resume has to pass by, being damaged, so that new checkpoints of these steps do not replace it.

    It is not removed: what could not be read may have been out of reach for a moment only.

    Raises:
        OSError: the folder cannot be written.
    """
    for folder in list_checkpoints(checkpoints):
        if step_of(folder) > step:
            aside = checkpoints / f"damaged_{folder.name}_{uuid.uuid4().hex[:8]}"
            os.replace(folder, aside)
            print(f"warning: {folder.name} is set aside as {aside}", file=sys.stderr)
