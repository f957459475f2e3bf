"""Files and folders that are either complete or absent."""

import os
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from common.errors import UserError

UNFINISHED = ".tmp-"
"""How the names of files and folders begin that are not finished, or are being taken away."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` so that a reader, also after a crash, sees the old file or the new one.

    The bytes go to a hidden neighbour, reach the disk, and take the name in one rename.

    Raises:
        OSError: the disk is full or the folder cannot be written; no temporary file is left.
    """
    temporary = _unfinished(path)
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextmanager
def named_if_unwritable(name: str | Path) -> Iterator[None]:
    """Turn an OSError in the ``with`` block into a UserError that says what cannot be written."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{name} cannot be written: {error}") from error


def check_writable(option: str, path: Path) -> None:
    """Make the folder of a file that an option names, and check before long work that the file can be written there.

    Raises:
        UserError: it cannot, or there is a folder or a device of its name.
    """
    with named_if_unwritable(f"{option} {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            kind = path.stat().st_mode  # a name that is too long is an error here too
            if stat.S_ISDIR(kind):
                raise UserError(f"{option} {path}: that is a folder; name a file")
            if not stat.S_ISREG(kind):  # writing would put a file in its place
                raise UserError(f"{option} {path}: that is no file; name one")
        tempfile.TemporaryFile(dir=path.parent).close()


def newest_first(folder: Path, *patterns: str) -> list[Path]:
    """Return the folders of the files in `folder` that match a glob pattern, the one that was written last first."""
    written = []
    for file in sorted(file for pattern in patterns for file in folder.glob(pattern)):
        with suppress(FileNotFoundError):  # gone in this moment
            written.append((file.stat().st_mtime, file.parent))
    return list(dict.fromkeys(path for _, path in sorted(written, reverse=True)))


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; when the ``with`` block ends, it takes the name ``path`` in one rename.

    Every file in it reaches the disk first. A folder that has the name already is replaced. Where the block raises,
    nothing is left.

    Raises:
        OSError: the disk is full or the folder cannot be written; nothing is left of the new one.
    """
    temporary = _unfinished(path)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for file in temporary.iterdir():
            with open(file, "rb+") as opened:
                os.fsync(opened.fileno())
        sync_folder(temporary)
        if path.exists():
            remove_folder(path)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def remove_folder(folder: Path) -> None:
    """Remove a folder so that it is never seen in parts: it loses its name first. Leftovers do no harm.

    Raises:
        OSError: it cannot be renamed, and is as it was.
    """
    doomed = _unfinished(folder)
    os.replace(folder, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def remove_unfinished(folder: Path) -> None:
    """Remove what a process that was killed left unfinished in a folder and below it.

    Raises:
        OSError: something cannot be removed.
    """
    for leftover in sorted(folder.rglob(f"{UNFINISHED}*")):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink(missing_ok=True)  # gone with the folder above it, perhaps


def _unfinished(path: Path) -> Path:
    return path.with_name(f"{UNFINISHED}{path.name[:40]}-{uuid.uuid4().hex}")  # also where the name is long already


def sync_folder(folder: Path) -> None:
    """Make renames inside ``folder`` durable. Windows cannot open folders; there it does nothing."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
