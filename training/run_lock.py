"""One process at a time in a run folder."""

import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from common.errors import UserError
from common.files import write_atomically

LOCK_FILE = "run.lock"
HOLDER_FILE = "run.lock.json"  # who holds it; a claim of the lock itself would be unreadable on Windows
NOTING_SECONDS = 0.5
LOCK_FILES = frozenset({LOCK_FILE, HOLDER_FILE})


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
        raise _in_use(folder, _holder(folder)) from error
    except (OSError, NotImplementedError) as error:
        raise UserError(f"{folder / LOCK_FILE} cannot be locked: {error}. Choose another --log-dir.") from error
    try:
        holder = _read_holder(folder)
        if holder is not None and _lives_here(holder):  # somebody has deleted the lock that it holds
            raise _in_use(folder, holder)
        write_atomically(folder / HOLDER_FILE, json.dumps(_this_process()).encode())
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


def _this_process() -> dict[str, object]:
    return {
        "process": os.getpid(),
        "host": socket.gethostname(),
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "created": psutil.Process().create_time(),  # numbers of processes are used again
    }


def _holder(folder: Path) -> dict[str, object] | None:
    """Read who holds the lock; who has only just taken it writes that down in a moment."""
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
