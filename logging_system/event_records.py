"""The records of an event file: framing, and reading them back with their place in the file.

Format (TFRecord): length as uint64, masked CRC-32C of the length, the payload, masked CRC-32C of the payload; all
little-endian. The payload is an ``Event`` protocol buffer.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from tensorboard.compat.proto.event_pb2 import Event

from logging_system.checksum import masked_checksum

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")


@dataclass(frozen=True)
class EventRecord:
    """One whole record and the bytes it fills in its file."""

    event: Event
    start: int
    end: int


def frame_record(payload: bytes) -> bytes:
    """Return the record that holds ``payload``."""
    length = struct.pack("<Q", len(payload))
    header = _HEADER.pack(len(payload), masked_checksum(length))
    return b"".join([header, payload, _FOOTER.pack(masked_checksum(payload))])


def read_records(file: BinaryIO) -> Iterator[EventRecord]:
    """Yield the records of an open event file up to its end, or up to the first that is torn or damaged."""
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
        yield EventRecord(event, position, end)
        position = end
