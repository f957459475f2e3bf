"""Frames of H.264, VP8 and VP9 whose headers lie about their size."""

import struct
from fractions import Fraction

import av
import numpy

from common.video_encoding import video_frame
from tests.data.media.hostile_containers import box

_SIZE = 64
_SPS, _PPS = 7, 8  # kinds of units in H.264: what holds for the whole stream, and for some pictures


def encoded(codec: str, frames: int = 4, **options: str) -> list[bytes]:
    """Grey frames, each brighter than the one before, as packets."""
    context = av.CodecContext.create(codec, "w")
    context.width = context.height = _SIZE
    context.pix_fmt = "yuv420p"
    context.framerate, context.time_base = Fraction(25), Fraction(1, 25)
    context.options = options
    packets = []
    for number in range(frames):
        picture = video_frame(numpy.full((_SIZE, _SIZE, 3), 40 * number, numpy.uint8), "yuv420p")
        picture.pts, picture.time_base = number, Fraction(1, 25)
        packets += context.encode(picture)
    packets += context.encode(None)
    return [bytes(packet) for packet in packets]


def vp8(width: int, height: int) -> list[bytes]:
    """Frames of which the first claims a size; the most is 16383."""
    first, *others = encoded("libvpx", deadline="realtime")
    return [first[:6] + struct.pack("<HH", width, height) + first[10:], *others]


def vp9(width: int, height: int) -> list[bytes]:
    """Frames of which the first claims a size."""
    first, *others = encoded("libvpx-vp9", deadline="realtime", **{"cpu-used": "8"})
    # Two bits of marker, profile and flags make one byte; three of synchronisation; three bits of colour space, one of
    # colour range; then width and height, less one, in sixteen bits each.
    bits = _bits(first)
    bits[36:68] = _fixed(width - 1, 16) + _fixed(height - 1, 16)
    return [_bytes(bits), *others]


def h264(width: int, height: int, *, from_frame: int = 0) -> tuple[list[bytes], bytes]:
    """Frames that claim a size from one of them on, and the box that MP4 needs to have them decoded."""
    frames = [
        _units(packet)
        for packet in encoded("libx264", preset="ultrafast", profile="baseline", g="1", x264opts="scenecut=0")
    ]
    small = next(unit for unit in frames[0] if unit[0] & 31 == _SPS)
    picture = next(unit for unit in frames[0] if unit[0] & 31 == _PPS)
    large = _resized(small, width, height)
    samples = []
    for number, units in enumerate(frames):
        slices = [unit for unit in units if unit[0] & 31 not in (_SPS, _PPS)]
        parameters = [large if number >= from_frame else small, picture]
        samples.append(b"".join(struct.pack(">I", len(unit)) + unit for unit in (*parameters, *slices)))
    first = large if from_frame == 0 else small
    header = b"\1" + first[1:4] + b"\xff\xe1" + struct.pack(">H", len(first)) + first
    return samples, box(b"avcC", header + b"\1" + struct.pack(">H", len(picture)) + picture)


def _units(packet: bytes) -> list[bytes]:
    """The units of H.264 between their start codes."""
    parts = packet.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1")
    return [part for part in parts if part]


def _resized(sps: bytes, width: int, height: int) -> bytes:
    """Write another size, in blocks of sixteen pixels, into the parameters of a stream."""
    bits = _bits(sps.replace(b"\0\0\3", b"\0\0"))
    position = 32  # after the kind, profile, limits and level
    for _ in range(2):  # number of these parameters, bits of frame numbers
        position = _next_number(bits, position)[1]
    order, position = _next_number(bits, position)
    for _ in range(2 if order == 0 else 1):  # bits of the order in which frames are shown, frames referred to
        position = _next_number(bits, position)[1]
    position += 1  # whether numbers may be left out
    end = _next_number(bits, _next_number(bits, position)[1])[1]
    changed = _bytes(bits[:position] + _number(width // 16 - 1) + _number(height // 16 - 1) + bits[end:])
    for value in range(4):  # three bytes that could be taken for a start code are parted by a 3
        changed = changed.replace(bytes([0, 0, value]), bytes([0, 0, 3, value]))
    return changed


def _bits(content: bytes) -> list[int]:
    return [byte >> shift & 1 for byte in content for shift in range(7, -1, -1)]


def _bytes(bits: list[int]) -> bytes:
    filled = bits + [0] * (-len(bits) % 8)
    return bytes(int("".join(map(str, filled[start : start + 8])), 2) for start in range(0, len(filled), 8))


def _fixed(value: int, count: int) -> list[int]:
    return [value >> shift & 1 for shift in range(count - 1, -1, -1)]


def _number(value: int) -> list[int]:
    """As H.264 writes numbers: as many zeros as bits follow the first one of value + 1."""
    length = (value + 1).bit_length()
    return [0] * (length - 1) + _fixed(value + 1, length)


def _next_number(bits: list[int], position: int) -> tuple[int, int]:
    zeros = 0
    while bits[position + zeros] == 0:
        zeros += 1
    end = position + 2 * zeros + 1
    return int("".join(map(str, bits[position + zeros : end])), 2) - 1, end
