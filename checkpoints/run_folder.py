"""The folder of one run, LOG_DIR/EXPERIMENT_NAME: where a run starts or goes on, one process at a time."""

import json
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from checkpoints.checkpoint import Checkpoint, list_checkpoints, load_newest
from common.errors import UserError
from common.files import UNFINISHED, newest_first, remove_unfinished, write_atomically

AUTOMATIC = "auto"  # EXPERIMENT_NAME, for a name made of the time

CONFIG_FILE = "config.json"
SPLIT_FILE = "split.json"
CHECKPOINTS = "checkpoints"
MAKE_A_RUN = "train one with `python main.py --experiment-name NAME`, then give `--run logs/NAME`"
LOCK_FILE = "run.lock"
HOLDER_FILE = "run.lock.json"  # who holds it; Windows would not let others read it from the locked file itself
NOTING_SECONDS = 0.5


def read_split(split_file: Path) -> dict[str, Any]:
    """Return what a run wrote of how its data were divided; nothing where it wrote no such file.

    Raises:
        UserError: the file is damaged.
    """
    try:
        content = json.loads(split_file.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(
            f"{split_file} cannot be read ({error}): what was held out is not known. Restore it."
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{split_file} is not a JSON object: what was held out is not known. Restore it.")
    return content


def listed_clips(split: Mapping[str, Any], part: str) -> set[tuple[Any, ...]]:
    """Return the clips of a part of such a file: name, caption, and what tells the pictures from others.

    `part`: "training" or "validation"; data that are drawn have no list of the first.
    """
    return {(clip["clip"], clip["caption"], clip["sha256"], *clip["span"]) for clip in split.get(part, ())}


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps its event files, config.json, metrics.jsonl, checkpoints and samples."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        return self.path / CHECKPOINTS

    def write_json(self, name: str, content: Mapping[str, object]) -> None:
        """Write a JSON file that is complete or absent.

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
    """Make a new run folder, or find the one to go on with and its newest complete checkpoint; lock it meanwhile.

    Removes what a process that was killed left unfinished in it.

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
            runs = newest_first(log_dir, f"*/{CONFIG_FILE}")
            names = [run.name for run in runs if list_checkpoints(run / CHECKPOINTS)]
            others = (
                f"; to go on with another run, add --experiment-name and one of: {', '.join(names)}" if names else ""
            )
            print(f"--resume: {path} holds no checkpoint; starting at step 0{others}")
        yield folder, checkpoint


def find_run(path: Path) -> Path:
    """Return `path` if it is a run, or else the run in it that was started or resumed last and has a checkpoint.

    Says on stderr which one it took.

    Raises:
        UserError: there is no such folder, or no such run in it.
    """
    if not path.is_dir():
        raise UserError(f"--run {path}: there is no such folder; {MAKE_A_RUN}")
    if (path / CONFIG_FILE).exists() or (path / CHECKPOINTS).is_dir():
        return path
    for run in newest_first(path, f"*/{CONFIG_FILE}"):
        if list_checkpoints(run / CHECKPOINTS):
            print(f"Run: {run}", file=sys.stderr)
            return run
    raise UserError(f"--run {path}: neither a run nor a folder of runs of which one has a checkpoint; {MAKE_A_RUN}")


def _choose_folder(log_dir: Path, experiment_name: str, resume: bool) -> Path:
    if experiment_name == AUTOMATIC:
        runs = newest_first(log_dir, f"*/{CONFIG_FILE}") if resume else []
        return runs[0] if runs else _make_fresh(log_dir)
    path = log_dir / experiment_name
    _refuse_old_run(path, resume)
    path.mkdir(exist_ok=True)
    return path


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


def _refuse_old_run(path: Path, resume: bool) -> None:
    """Raise a UserError if there is a file other than a lock or what a killed process left unfinished."""
    if resume or not path.is_dir():
        return
    names = {file.name for file in path.iterdir()} - {LOCK_FILE, HOLDER_FILE}
    if not all(name.startswith(UNFINISHED) for name in names):
        raise UserError(
            f"{path} already holds a run. Add --resume to go on with it, or choose another --experiment-name."
        )


@contextmanager
def lock_run(folder: Path) -> Iterator[None]:
    """Hold the lock of a run folder during the ``with`` block.

    The operating system takes the lock back when the process ends, however it ends: a file that a dead process left
    behind is no obstacle. Loader workers let go of what they inherit (`data.workers`).

    Raises:
        UserError: another process holds the lock, and the message says which; or the file system has no locks.
        OSError: the folder cannot be written.
    """
    lock = FileLock(folder / LOCK_FILE, blocking=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise _in_use(folder, _wait_for_holder(folder)) from error
    except (OSError, NotImplementedError) as error:
        raise UserError(f"{folder / LOCK_FILE} cannot be locked: {error}. Choose another --log-dir.") from error
    try:
        holder = _read_holder(folder)
        if holder is not None and _lives_here(holder):  # its lock file was deleted while it ran
            raise _in_use(folder, holder)
        this_process = {
            "process": os.getpid(),
            "host": socket.gethostname(),
            "started": datetime.now().astimezone().isoformat(timespec="seconds"),
            "created": psutil.Process().create_time(),  # process ids are reused
        }
        write_atomically(folder / HOLDER_FILE, json.dumps(this_process).encode())
        try:
            yield
        finally:
            (folder / HOLDER_FILE).unlink(missing_ok=True)
    finally:
        lock.release()


def _in_use(folder: Path, holder: Mapping[str, object] | None) -> UserError:
    by, hint = "another process", ""
    if holder is not None:
        by = f"process {holder['process']} on {holder['host']}, which started at {holder['started']}"
        if not _lives_here(holder):  # on a file system without locks, a file is left where a machine was cut off
            hint = f" If that process is certainly gone, delete {folder / LOCK_FILE}."
    return UserError(f"{folder} is in use by {by}. Wait for it or stop it, or choose another --experiment-name.{hint}")


def _wait_for_holder(folder: Path) -> dict[str, object] | None:
    """Read who holds the lock; a process that has only just taken it writes that down in a moment."""
    deadline = time.monotonic() + NOTING_SECONDS
    while (holder := _read_holder(folder)) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    return holder


def _read_holder(folder: Path) -> dict[str, object] | None:
    try:
        holder = json.loads((folder / HOLDER_FILE).read_text("utf-8"))
        return {name: holder[name] for name in ("process", "host", "started", "created")}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _lives_here(holder: Mapping[str, object]) -> bool:
    """Say whether it is a process of this machine that is alive."""
    try:
        process = psutil.Process(int(str(holder["process"])))
        return holder["host"] == socket.gethostname() and process.create_time() == holder["created"]
    except (ValueError, psutil.Error):
        return False
