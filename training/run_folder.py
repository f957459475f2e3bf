"""The folder of one run, LOG_DIR/EXPERIMENT_NAME: who may start there, and where it goes on."""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from common.errors import UserError
from common.files import UNFINISHED, remove_unfinished, write_atomically
from training.checkpoint import Checkpoint, load_newest
from training.run_lock import LOCK_FILES, lock_run

AUTOMATIC = "auto"


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps its event files, config.json, metrics.jsonl, checkpoints and samples."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def write_json(self, name: str, content: Mapping[str, object]) -> None:
        """Write a JSON file that is whole or absent.

        Raises:
            UserError: the disk is full or the folder cannot be written.
        """
        try:
            write_atomically(self.path / name, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
        except OSError as error:
            raise UserError(f"{self.path / name} cannot be written: {error}. Choose another --log-dir.") from error


@contextmanager
def open_run_folder(
    log_dir: Path, experiment_name: str, *, resume: bool
) -> Iterator[tuple[RunFolder, Checkpoint | None]]:
    """Make a new run folder, or find the one to go on with and its newest whole checkpoint; lock it meanwhile.

    What a process that was killed left unfinished in it is removed.

    Raises:
        UserError: the folder already holds a run and `resume` is False; another process trains in it; all its
            checkpoints are damaged; or it cannot be made.
    """
    with ExitStack() as held:
        try:
            log_dir.mkdir(parents=True, exist_ok=True)
            path = _choose_folder(log_dir, experiment_name, resume)
            held.enter_context(lock_run(path))
            _refuse_old_run(path, resume)  # again: another process may have been quicker
            remove_unfinished(path)
        except OSError as error:
            raise UserError(
                f"cannot make a run folder in LOG_DIR {log_dir}: {error}. Choose another --log-dir."
            ) from error
        folder = RunFolder(path)
        checkpoint = load_newest(folder.checkpoints) if resume else None
        if resume and checkpoint is None:
            known = ", ".join(sorted(config.parent.name for config in log_dir.glob("*/config.json"))) or "none"
            print(f"--resume: {path} holds no checkpoint; starting at step 0. Runs in {log_dir}: {known}")
        yield folder, checkpoint


def newest_run(log_dir: Path) -> Path | None:
    """Return the run folder in `log_dir` that was started or resumed last, or None."""
    runs = [config.parent for config in log_dir.glob("*/config.json")]
    return max(runs, key=lambda run: (run / "config.json").stat().st_mtime, default=None)


def _choose_folder(log_dir: Path, experiment_name: str, resume: bool) -> Path:
    if experiment_name == AUTOMATIC:
        newest = newest_run(log_dir) if resume else None
        return newest if newest is not None else _make_fresh(log_dir)
    path = log_dir / experiment_name
    _refuse_old_run(path, resume)
    path.mkdir(exist_ok=True)
    return path


def _refuse_old_run(path: Path, resume: bool) -> None:
    if not resume and path.is_dir() and any(_is_of_a_run(file.name) for file in path.iterdir()):
        raise UserError(
            f"{path} already holds a run. Add --resume to go on with it, or choose another --experiment-name."
        )


def _is_of_a_run(name: str) -> bool:
    """Say whether a file means that a run was begun: neither a lock nor what a killed process left half written."""
    return name not in LOCK_FILES and not name.startswith(UNFINISHED)


def _make_fresh(log_dir: Path) -> Path:
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    for suffix in ["", *(f"_{number}" for number in range(2, 1000))]:
        path = log_dir / f"run_{stamp}{suffix}"
        try:
            path.mkdir()
        except FileExistsError:  # another process took the name in the same second
            continue
        return path
    raise UserError(f"{log_dir} already holds 999 runs of this second")
