"""A file that only grows, whose writes may fail without losing anything, and the records of an event file.

A record (TFRecord): length as uint64, masked CRC-32C of the length, the payload, masked CRC-32C of the payload; all
little-endian. The payload is an ``Event`` protocol buffer.
"""

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from tensorboard.compat.proto.event_pb2 import Event

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
    same place, so a piece that was torn by the failure is completed. Not thread-safe; the writer holds a lock.

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
            OSError: the last flush failed; the file is closed all the same, and ends with a complete piece.
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
        """Remove the part of a piece that the failed write left: no later flush completes it."""
        with suppress(OSError):
            size = self.path.stat().st_size
            length = min(self._length, size)
            for piece in self._pieces:
                if length + len(piece) > size:
                    break
                length += len(piece)
            os.truncate(self.path, length)


# TensorBoard's own CRC-32C is Python too, and takes 30 times as long for the megabyte of a video, during which no other
# thread runs.
_POLYNOMIAL = 0x82F63B78  # reflected Castagnoli polynomial
_LANE_BYTES = 256
_LONG = 16 * _LANE_BYTES  # below this, going byte by byte is quicker
_TABLE = numpy.arange(256, dtype=numpy.uint32)  # what eight shifts make of each byte
for _ in range(8):
    _TABLE = numpy.where(_TABLE & 1, (_TABLE >> 1) ^ _POLYNOMIAL, _TABLE >> 1).astype(numpy.uint32)


def _after_zero_bytes(states: numpy.ndarray, count: int) -> numpy.ndarray:
    for _ in range(count):
        states = _TABLE[states & 0xFF] ^ (states >> 8)
    return states


_PYTHON_TABLE: list[int] = _TABLE.tolist()
_PAIR_TABLE = _after_zero_bytes(numpy.arange(65536, dtype=numpy.uint32), 2)  # two bytes at a time


# What a lane of zeros does to each byte of the state; linearity makes any state the XOR of four entries.
_SKIP_LANE: list[list[int]] = [
    _after_zero_bytes(numpy.arange(256, dtype=numpy.uint32) << shift, _LANE_BYTES).tolist() for shift in (0, 8, 16, 24)
]


def masked_checksum(data: bytes) -> int:
    """Return the masked CRC-32C of ``data`` that follows a length or a payload in an event file."""
    state, rest = 0xFFFFFFFF, data
    if len(data) >= _LONG:
        in_lanes = len(data) - len(data) % _LANE_BYTES
        state, rest = _walk_lanes(data[:in_lanes]), data[in_lanes:]
    for byte in rest:
        state = _PYTHON_TABLE[(state ^ byte) & 0xFF] ^ (state >> 8)
    checksum = state ^ 0xFFFFFFFF
    return (((checksum >> 15) | (checksum << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _walk_lanes(data: bytes) -> int:
    """Return the CRC register after ``data``, whose length is a multiple of the lane length."""
    lanes = numpy.frombuffer(data, dtype="<u2").reshape(-1, _LANE_BYTES // 2)
    states = numpy.zeros(len(lanes), dtype=numpy.uint32)
    states[0] = 0xFFFFFFFF
    for pairs in numpy.ascontiguousarray(lanes.T):
        states = _PAIR_TABLE[(states ^ pairs) & 0xFFFF] ^ (states >> 16)
    first, second, third, fourth = _SKIP_LANE
    state = 0
    for lane in states.tolist():
        state = first[state & 0xFF] ^ second[state >> 8 & 0xFF] ^ third[state >> 16 & 0xFF] ^ fourth[state >> 24] ^ lane
    return state


_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
Span = tuple[int, int]  # first byte, byte after the last


def frame_record(payload: bytes) -> bytes:
    """Return the record that holds ``payload``."""
    length = struct.pack("<Q", len(payload))
    header = _HEADER.pack(len(payload), masked_checksum(length))
    return b"".join([header, payload, _FOOTER.pack(masked_checksum(payload))])


def read_records(file: BinaryIO) -> Iterator[tuple[Event, Span]]:
    """Yield the events of an open file and the bytes they fill, up to the first that is torn or damaged."""
    position = file.tell()
    while True:
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size:
            return
        length, length_checksum = _HEADER.unpack(header)
        if masked_checksum(header[:8]) != length_checksum:
            return
        payload, footer = file.read(length), file.read(_FOOTER.size)
        if len(footer) < _FOOTER.size or masked_checksum(payload) != _FOOTER.unpack(footer)[0]:
            return
        try:
            event = Event.FromString(payload)
        except DecodeError:
            return
        end = position + _HEADER.size + length + _FOOTER.size
        yield event, (position, end)
        position = end
