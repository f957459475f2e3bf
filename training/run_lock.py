"""One process at a time in a run folder."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from common.errors import UserError
from common.files import write_atomically

LOCK_FILE = "run.lock"
HOLDER_FILE = "run.lock.json"  # who holds it; a claim of the lock itself would be unreadable on Windows
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
        raise UserError(
            f"{folder} is in use by {_holder(folder)}. Wait for it or stop it, or choose another --experiment-name. "
            f"(Where {LOCK_FILE} outlives a machine that was cut off, as on a file system without locks, delete it.)"
        ) from error
    except (OSError, NotImplementedError) as error:
        raise UserError(f"{folder / LOCK_FILE} cannot be locked: {error}. Choose another --log-dir.") from error
    try:
        write_atomically(folder / HOLDER_FILE, json.dumps(_this_process()).encode())
        try:
            yield
        finally:
            (folder / HOLDER_FILE).unlink(missing_ok=True)
    finally:
        lock.release()


def _this_process() -> dict[str, object]:
    started = datetime.now().astimezone().isoformat(timespec="seconds")
    return {"process": os.getpid(), "host": socket.gethostname(), "started": started}


def _holder(folder: Path) -> str:
    try:
        holder = json.loads((folder / HOLDER_FILE).read_text("utf-8"))
        return f"process {holder['process']} on {holder['host']}, which started at {holder['started']}"
    except (OSError, ValueError, KeyError, TypeError):  # it has only just begun
        return "another process"
