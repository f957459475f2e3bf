"""A file that only grows, whose writes may fail without losing anything."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

DEFAULT_LIMIT = 32 * 1024 * 1024


class BinaryFile(Protocol):
    """The part of an unbuffered binary file that an append log uses."""

    def seek(self, offset: int, /) -> int: ...
    def write(self, data: memoryview, /) -> int | None: ...
    def close(self) -> None: ...


def open_unbuffered(path: Path) -> BinaryFile:
    """Open ``path`` for writing at any position, keeping what is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return open(path, "r+b", buffering=0)


class AppendLog:
    """Keeps appended pieces in memory until :meth:`flush` writes them at the end of the file.

    After a failed write (a full disk, say) the pieces stay in memory and the next flush writes the same bytes at the
    same place, so a piece that was torn by the failure becomes whole. Not thread-safe; the writer holds a lock.

    Attributes:
        dropped: pieces that were refused because the file could not be written and ``limit`` bytes were waiting.
    """

    def __init__(
        self, path: Path, *, limit: int = DEFAULT_LIMIT, open_file: Callable[[Path], BinaryFile] = open_unbuffered
    ) -> None:
        self.path = path
        self.dropped = 0
        self.waiting_bytes = 0
        self._limit = limit
        self._open_file = open_file
        self._pieces: list[bytes] = []
        self._file: BinaryFile | None = None
        self._length = path.stat().st_size if path.exists() else 0
        self._last_flush_failed = False

    def append(self, piece: bytes) -> None:
        """Take one piece. When ``limit`` bytes are waiting it flushes early; if that fails, the piece is refused.

        Older pieces are kept in preference: they carry the descriptions of their tags.

        Raises:
            OSError: the early flush failed. Later pieces are refused silently until a flush succeeds.
        """
        if self.waiting_bytes + len(piece) > self._limit:
            if self._last_flush_failed:
                self.dropped += 1
                return
            try:
                self.flush()
            except OSError:
                self.dropped += 1
                raise
        self._pieces.append(piece)
        self.waiting_bytes += len(piece)

    def flush(self) -> None:
        """Write everything that waits. The operating system has it then: it survives the death of this process.

        Raises:
            OSError: the file could not be opened or written; nothing is lost.
        """
        if not self._pieces:
            return
        self._last_flush_failed = True
        if self._file is None:
            self._file = self._open_file(self.path)
        content = b"".join(self._pieces)
        self._file.seek(self._length)
        rest = memoryview(content)
        while rest:
            rest = rest[self._file.write(rest) or 0 :]
        self._length += len(content)
        self._pieces.clear()
        self.waiting_bytes = 0
        self._last_flush_failed = False

    def close(self) -> None:
        """Flush and close the file.

        Raises:
            OSError: the last flush failed; the file is closed all the same, and ends with a whole piece.
        """
        try:
            self.flush()
        except OSError:
            self._cut_off_torn_piece()
            raise
        finally:
            if self._file is not None:
                self._file.close()
                self._file = None

    def _cut_off_torn_piece(self) -> None:
        """Readers would stumble over it for good, for nothing comes after it any more."""
        with suppress(OSError):
            size = self.path.stat().st_size
            whole = min(self._length, size)
            for piece in self._pieces:
                if whole + len(piece) > size:
                    break
                whole += len(piece)
            os.truncate(self.path, whole)
