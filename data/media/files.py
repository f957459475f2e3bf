"""Files that other people named and filled: where a name may lead, and the content as bytes.

A file is one of its own or a part of a tar file, which is never unpacked onto the disk.
"""

import errno
import hashlib
import io
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data.rows import UnusableClip

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MOST_BYTES = 1 << 30  # of a file or a folder of frames
MOST_MEMBER_BYTES = 1 << 28  # of a file in a tar file


def printable(name: str) -> str:
    """Return a name on one line that any terminal and any JSON file can take.

    Line breaks, other control characters and bytes that are not UTF-8 become escapes such as ``\\n``.
    """
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape", "surrogatepass").decode("ascii")
        for character in name
    )


def inside(root: Path, name: str, allowed: Sequence[Path] = ()) -> Path:
    """Return the path of something in a folder; ``..`` and links may lead out of it only to what is `allowed`.

    Raises:
        UnusableClip: they lead elsewhere, or there is nothing of this name.
    """
    try:
        path = root / name
        resolved = Path(os.path.realpath(path, strict=True))
        is_within = any(resolved.is_relative_to(os.path.realpath(folder)) for folder in (root, *allowed))
    except FileNotFoundError as error:
        kind = "is a link that leads nowhere" if path.is_symlink() else "does not exist"
        raise UnusableClip(kind) from error
    except ValueError as error:  # a zero byte
        raise UnusableClip("has a name that no file can have") from error
    except OSError as error:
        is_circle = error.errno == errno.ELOOP
        reason = "is a link that leads nowhere" if is_circle else f"cannot be read ({error.strerror})"
        raise UnusableClip(reason) from error
    if not is_within:
        folder = str(resolved.parent)
        raise UnusableClip(f"leads out of the data set's folder, to {printable(folder)} (DATA_ALLOW)", folder)
    return path


def inside_file(root: Path, name: str, allowed: Sequence[Path] = ()) -> Path:
    """Return the path of a regular file in a folder, or in one that is `allowed`.

    Raises:
        UnusableClip: see `inside`; or it is a folder, a pipe or a device.
    """
    path = inside(root, name, allowed)
    try:
        is_file = path.is_file()
    except OSError as error:
        raise UnusableClip(f"cannot be read ({error.strerror})") from error
    if not is_file:
        raise UnusableClip("is not a regular file")
    return path


class SourceFile(ABC):
    """A file that can be opened and read."""

    path: Path  # on the disk; of the tar file that holds it
    suffix: str  # extension of its name, in lower case

    @abstractmethod
    def check_size(self) -> int:
        """Return the size in bytes; refuse what is empty or too large to be read in reasonable time."""

    @abstractmethod
    def open(self) -> io.BufferedReader:
        """Return the content as an open file."""

    def read_bytes(self, most: int | None = None) -> bytes:
        """Return the content, or its first `most` bytes."""
        with self.open() as file:
            return file.read(-1 if most is None else most)

    def digest(self) -> str:
        """Return the sha256 of the content, read in pieces."""
        with self.open() as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


class PlainFile(SourceFile):
    """A file on the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.suffix = path.suffix.lower()

    def check_size(self) -> int:
        return _checked_size(self.path.stat().st_size, MOST_BYTES)

    def open(self) -> io.BufferedReader:
        return open(self.path, "rb")


@dataclass(frozen=True)
class FileInTar(SourceFile):
    """A part of an uncompressed tar file."""

    path: Path
    offset: int
    size: int
    suffix: str

    def check_size(self) -> int:
        return _checked_size(self.size, MOST_MEMBER_BYTES)

    def open(self) -> io.BufferedReader:
        """Return the content as an open file.

        Raises:
            UnusableClip: the tar file ends before it does.
        """
        file = io.FileIO(self.path)
        if os.fstat(file.fileno()).st_size < self.offset + self.size:
            file.close()
            raise UnusableClip("is cut off: its tar file ends before it")
        return io.BufferedReader(_Window(file, self.offset, self.size))


class _Window(io.RawIOBase):
    """A part of an open file as a file of its own."""

    def __init__(self, file: io.FileIO, offset: int, size: int) -> None:
        self._file = file
        self._offset = offset
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise OSError("cannot seek to before the beginning")
        self._position = start + offset
        return self._position

    def readinto(self, buffer: "WriteableBuffer") -> int:
        wanted = min(memoryview(buffer).nbytes, max(0, self._size - self._position))
        self._file.seek(self._offset + self._position)
        count = self._file.readinto(memoryview(buffer)[:wanted])
        self._position += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def _checked_size(size: int, most: int) -> int:
    if size == 0:
        raise UnusableClip("is empty")
    if size > most:
        raise UnusableClip(f"is larger than {most >> 20} MiB")
    return size
