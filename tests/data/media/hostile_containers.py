"""MP4, Matroska and AVI files written byte by byte, so that a test can make any part of them wrong."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

UPRIGHT = struct.pack(">9i", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
PER_SECOND = 25


def box(kind: bytes, *parts: bytes) -> bytes:
    """A part of an MP4 file."""
    content = b"".join(parts)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def full_box(kind: bytes, *parts: bytes, flags: int = 0) -> bytes:
    """A part of an MP4 file that has a version and flags."""
    return box(kind, struct.pack(">I", flags), *parts)


def numbers(*values: int) -> bytes:
    """32 bits each, as MP4 stores them."""
    return struct.pack(f">{len(values)}I", *values)


@dataclass(frozen=True)
class Mp4:
    """An MP4 file of one video track; fields that are set replace what a correct file would have."""

    samples: Sequence[bytes]
    width: int = 64
    height: int = 64
    codec: bytes = b"jpeg"
    codec_boxes: bytes = b""
    frame_times: bytes | None = None  # stts
    display_offsets: bytes = b""  # ctts
    sizes: bytes | None = None  # stsz
    chunks: bytes | None = None  # stsc
    references: bytes | None = None  # dref
    edits: bytes = b""  # edts
    matrix: bytes = UPRIGHT
    content: bytes | None = None  # of mdat

    def to_bytes(self) -> bytes:
        """The file; its index stands before its pictures."""
        head = box(b"ftyp", b"isom\0\0\2\0isomiso2mp41")
        content = b"".join(self.samples) if self.content is None else self.content
        offset = len(head) + len(self._index(0)) + 8
        return head + self._index(offset) + box(b"mdat", content)

    def _index(self, offset: int) -> bytes:
        count = len(self.samples)
        movie = numbers(0, 0, PER_SECOND, count) + struct.pack(">IHH", 0x10000, 0x100, 0) + bytes(8) + UPRIGHT
        return box(b"moov", full_box(b"mvhd", movie, bytes(24), numbers(2)), self._track(offset))

    def _track(self, offset: int) -> bytes:
        size = struct.pack(">II", self.width << 16 & 0xFFFFFFFF, self.height << 16 & 0xFFFFFFFF)
        header = numbers(0, 0, 1, 0, len(self.samples)) + bytes(16) + self.matrix + size
        media = full_box(b"mdhd", numbers(0, 0, PER_SECOND, len(self.samples)), struct.pack(">HH", 0x55C4, 0))
        handler = full_box(b"hdlr", b"\0\0\0\0vide" + bytes(12) + b"v\0")
        references = self.references or full_box(b"dref", numbers(1), full_box(b"url ", flags=1))
        information = box(b"minf", full_box(b"vmhd", bytes(8), flags=1), box(b"dinf", references), self._table(offset))
        return box(b"trak", full_box(b"tkhd", header, flags=3), self.edits, box(b"mdia", media, handler, information))

    def _table(self, offset: int) -> bytes:
        count = len(self.samples)
        entry = bytes(6) + struct.pack(">H", 1) + bytes(16) + struct.pack(">HH", self.width, self.height)
        entry += struct.pack(">IIIH", 0x480000, 0x480000, 0, 1) + bytes(32) + struct.pack(">Hh", 24, -1)
        sizes = full_box(b"stsz", numbers(0, count), numbers(*map(len, self.samples)))
        return box(
            b"stbl",
            full_box(b"stsd", numbers(1), box(self.codec, entry, self.codec_boxes)),
            self.frame_times or full_box(b"stts", numbers(1, count, 1)),
            self.display_offsets,
            self.chunks or full_box(b"stsc", numbers(1, 1, count, 1)),
            self.sizes or sizes,
            full_box(b"stco", numbers(1, offset)),
        )


def element(identifier: int, *parts: bytes) -> bytes:
    """A part of a Matroska file, its length in eight bytes."""
    content = b"".join(parts)
    name = identifier.to_bytes((identifier.bit_length() + 7) // 8, "big")
    return name + (1 << 56 | len(content)).to_bytes(8, "big") + content


def integer(identifier: int, value: int) -> bytes:
    """A number in a Matroska file."""
    return element(identifier, value.to_bytes(8, "big"))


@dataclass(frozen=True)
class Matroska:
    """A Matroska file of one video track, all of it in one cluster."""

    samples: Sequence[bytes]
    width: int = 64
    height: int = 64
    codec: bytes = b"V_MJPEG"
    times: Sequence[int] | None = None  # of the samples, in milliseconds after `start`
    start: int = 0  # milliseconds
    private: bytes = b""  # what the codec wants to know
    title: bytes = b""

    def to_bytes(self) -> bytes:
        """The file."""
        head = element(0x1A45DFA3, element(0x4282, b"matroska"), integer(0x4287, 4), integer(0x4285, 2))
        information = element(0x1549A966, integer(0x2AD7B1, 1_000_000), element(0x7BA9, self.title))
        size = element(0xE0, integer(0xB0, self.width), integer(0xBA, self.height))
        private = element(0x63A2, self.private) if self.private else b""
        track = element(
            0xAE, integer(0xD7, 1), integer(0x73C5, 1), integer(0x83, 1), element(0x86, self.codec), private, size
        )
        times = self.times or range(0, 40 * len(self.samples), 40)
        blocks = [
            element(0xA3, b"\x81" + struct.pack(">hB", time, 0x80), sample)
            for time, sample in zip(times, self.samples, strict=True)
        ]
        cluster = element(0x1F43B675, integer(0xE7, self.start), *blocks)
        return head + element(0x18538067, information, element(0x1654AE6B, track), cluster)


def chunk(kind: bytes, *parts: bytes) -> bytes:
    """A part of an AVI file."""
    content = b"".join(parts)
    return kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


@dataclass(frozen=True)
class Avi:
    """An AVI file of one video stream."""

    samples: Sequence[bytes]
    width: int = 64
    height: int = 64
    codec: bytes = b"MJPG"
    bits: int = 24  # a pixel
    further_streams: bytes = b""
    further_chunks: bytes = b""

    def to_bytes(self) -> bytes:
        """The file, with an index."""
        count = len(self.samples)
        main = struct.pack("<14I", 40_000, 0, 0, 0x10, count, 0, 1, 0, self.width, self.height, 0, 0, 0, 0)
        stream = (
            b"vids" + self.codec + struct.pack("<IHHIIIIIIII", 0, 0, 0, 0, 1, PER_SECOND, 0, count, 0, 0, 0) + bytes(8)
        )
        picture = struct.pack("<IiiHH4sIiiII", 40, self.width, self.height, 1, self.bits, self.codec, 0, 0, 0, 0, 0)
        streams = chunk(b"LIST", b"strl", chunk(b"strh", stream), chunk(b"strf", picture)) + self.further_streams
        frames = [chunk(b"00dc", sample) for sample in self.samples]
        offset, entries = 4, []
        for frame, sample in zip(frames, self.samples, strict=True):
            entries.append(struct.pack("<4sIII", b"00dc", 0x10, offset, len(sample)))
            offset += len(frame)
        return chunk(
            b"RIFF",
            b"AVI ",
            chunk(b"LIST", b"hdrl", chunk(b"avih", main), streams),
            chunk(b"LIST", b"movi", *frames, self.further_chunks),
            chunk(b"idx1", *entries),
        )
