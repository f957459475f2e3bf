"""Files as bytes: on their own, or within a tar file. Their content is never unpacked onto the disk."""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from data.media.budget import MOST_BYTES, MOST_MEMBER_BYTES
from data.unusable import UnusableClip


@dataclass(frozen=True)
class PlainFile:
    """A file on the disk."""

    path: Path

    @property
    def suffix(self) -> str:
        """Return the name's extension, in lower case."""
        return self.path.suffix.lower()

    def check_size(self) -> None:
        """Refuse what is empty or too large to be looked at in reasonable time."""
        _check_size(self.path.stat().st_size, MOST_BYTES)

    def name_or_bytes(self) -> str | BinaryIO:
        """Return what a decoder can open."""
        return str(self.path)

    def read_bytes(self, most: int | None = None) -> bytes:
        """Return the content, or the first `most` bytes of it."""
        with open(self.path, "rb") as file:
            return file.read(-1 if most is None else most)

    def digest(self) -> str:
        """Return the sha256 of the content, read in pieces."""
        with open(self.path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class FileInTar:
    """A part of an uncompressed tar file."""

    tar: Path
    offset: int
    size: int
    suffix: str  # in lower case

    def check_size(self) -> None:
        """Refuse what is empty or too large to be held in memory."""
        _check_size(self.size, MOST_MEMBER_BYTES)

    def name_or_bytes(self) -> str | BinaryIO:
        """Return what a decoder can open."""
        return io.BytesIO(self.read_bytes())

    def read_bytes(self, most: int | None = None) -> bytes:
        """Return the content, or the first `most` bytes of it."""
        wanted = self.size if most is None else min(most, self.size)
        with open(self.tar, "rb") as file:
            file.seek(self.offset)
            content = file.read(wanted)
        if len(content) < wanted:
            raise UnusableClip("is cut off: its tar file ends before it")
        return content

    def digest(self) -> str:
        """Return the sha256 of the content."""
        return hashlib.sha256(self.read_bytes()).hexdigest()


SourceFile = PlainFile | FileInTar


def _check_size(size: int, most: int) -> None:
    if size == 0:
        raise UnusableClip("is empty")
    if size > most:
        raise UnusableClip(f"is larger than {most >> 20} MiB")
