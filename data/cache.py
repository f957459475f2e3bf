"""A folder of finished clips, so that nothing is decoded twice.

One .npy file per clip, named by the hash of everything the clip depends on, so that an entry never has to be updated.
Several processes may use one cache at the same time.

Files are renamed into place, but not forced to the disk first, which would cost more than rendering. An entry that a
power failure loses is made again, and one that it damages is noticed by its shape, type and checksum.
"""

import hashlib
import io
import json
import logging
import os
import uuid
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy

FORMAT_VERSION = 1
EVICTED_TO = 0.9  # of the limit: what eviction leaves
CHECKED_EVERY = 1 / 16  # of the limit: how much one process writes before it measures the folder again

_log = logging.getLogger(__name__)


class ClipCache:
    """Clips (uint8 arrays) by key. Never raises because of the disk: it then goes on without caching, and says so."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        """Open the cache and evict the oldest clips if it is larger than `limit_bytes`."""
        self._folder = folder / f"clips-v{FORMAT_VERSION}"
        self.limit_bytes = limit_bytes
        self._written_bytes = 0
        self._is_writable = True
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self._is_writable = False
            _log.warning("The clip cache %s cannot be written (%s): clips are made anew.", self._folder, error)
        self._evict()

    def get_or_make(self, key_parts: tuple[str | int | float, ...], make: Callable[[], numpy.ndarray]) -> numpy.ndarray:
        """Return the uint8 clip that depends on nothing but `key_parts`, from the folder or otherwise from `make`.

        The errors of `make` pass through, and nothing is stored.
        """
        name = hashlib.sha256(json.dumps([FORMAT_VERSION, *key_parts]).encode()).hexdigest()
        path = self._folder / name[:2] / f"{name}.npy"
        cached = self._read(path)
        if cached is not None:
            return cached
        clip = make()
        if self._is_writable:
            self._write(path, clip)
        return clip

    def _read(self, path: Path) -> numpy.ndarray | None:
        try:
            content = path.read_bytes()
        except OSError:
            return None
        body, checksum = content[:-4], content[-4:]
        if zlib.crc32(body).to_bytes(4, "big") != checksum:
            return None
        try:
            # Not numpy.load, which also opens zip files, and fails in other ways where they are none.
            clip: numpy.ndarray = numpy.lib.format.read_array(io.BytesIO(body), allow_pickle=False)
        except (ValueError, EOFError, OSError):
            return None
        return clip if clip.dtype == numpy.uint8 else None

    def _write(self, path: Path, clip: numpy.ndarray) -> None:
        buffer = io.BytesIO()
        numpy.save(buffer, clip, allow_pickle=False)
        body = buffer.getvalue()
        temporary = path.with_name(f".tmp-{uuid.uuid4().hex}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                # numpy ignores what follows the array, so the file stays a plain .npy file.
                temporary.write_bytes(body + zlib.crc32(body).to_bytes(4, "big"))
                os.replace(temporary, path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        except OSError as error:
            self._is_writable = False
            _log.warning(
                "The clip cache %s cannot be written (%s): clips are made anew each time.", self._folder, error
            )
            return
        self._written_bytes += len(body)
        if self._written_bytes > self.limit_bytes * CHECKED_EVERY:
            self._evict()

    def _evict(self) -> None:
        self._written_bytes = 0
        files = sorted(self._files())
        total = sum(size for _, size, _ in files)
        if total <= self.limit_bytes:
            return
        for _, size, path in files:
            if total <= EVICTED_TO * self.limit_bytes:
                break
            try:
                os.unlink(path)
            except FileNotFoundError:  # another process evicted it
                pass
            except OSError as error:
                _log.warning("The clip cache %s cannot be made smaller: %s", self._folder, error)
                return
            total -= size

    def _files(self) -> list[tuple[float, int, str]]:
        """Return (time of writing, bytes, path) of every file, half-written ones of dead processes included."""
        files = []
        for folder, _, names in os.walk(self._folder):
            for name in names:
                path = os.path.join(folder, name)
                try:
                    status = os.stat(path)
                except OSError:  # evicted by another process in this moment
                    continue
                files.append((status.st_mtime, status.st_size, path))
        return files
