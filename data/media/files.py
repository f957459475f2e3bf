"""Files as bytes: on their own, or within a tar file. Their content is never unpacked onto the disk."""

import hashlib
import io
import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data.media.budget import MOST_BYTES, MOST_MEMBER_BYTES
from data.unusable import UnusableClip

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class _Content(ABC):
    """Something that can be opened and read."""

    @abstractmethod
    def open(self) -> io.BufferedReader:
        """Return the content as an open file."""

    def read_bytes(self, most: int | None = None) -> bytes:
        """Return the content, or the first `most` bytes of it."""
        with self.open() as file:
            return file.read(-1 if most is None else most)

    def digest(self) -> str:
        """Return the sha256 of the content, read in pieces."""
        with self.open() as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class PlainFile(_Content):
    """A file on the disk."""

    path: Path

    @property
    def suffix(self) -> str:
        """Return the name's extension, in lower case."""
        return self.path.suffix.lower()

    def check_size(self) -> None:
        """Refuse what is empty or too large to be looked at in reasonable time."""
        _check_size(self.path.stat().st_size, MOST_BYTES)

    def open(self) -> io.BufferedReader:
        """Return the content as an open file."""
        return open(self.path, "rb")


@dataclass(frozen=True)
class FileInTar(_Content):
    """A part of an uncompressed tar file."""

    tar: Path
    offset: int
    size: int
    suffix: str  # in lower case

    def check_size(self) -> None:
        """Refuse what is empty or too large for a clip in a shard."""
        _check_size(self.size, MOST_MEMBER_BYTES)

    def open(self) -> io.BufferedReader:
        """Return the content as an open file.

        Raises:
            UnusableClip: the tar file ends before it does.
        """
        file = io.FileIO(self.tar)
        if os.fstat(file.fileno()).st_size < self.offset + self.size:
            file.close()
            raise UnusableClip("is cut off: its tar file ends before it")
        return io.BufferedReader(_Window(file, self.offset, self.size))


SourceFile = PlainFile | FileInTar


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


def _check_size(size: int, most: int) -> None:
    if size == 0:
        raise UnusableClip("is empty")
    if size > most:
        raise UnusableClip(f"is larger than {most >> 20} MiB")
