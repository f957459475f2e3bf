"""Single pictures and GIFs, some with headers that lie."""

import io
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy
from PIL import Image


def jpeg(width: int = 64, height: int = 64, shade: int = 100) -> bytes:
    """A picture of one shade of grey."""
    return _saved(Image.new("L", (width, height), shade), "JPEG")


def jpeg_that_claims(width: int, height: int) -> bytes:
    """A small picture with a large header."""
    content = jpeg()
    header = content.index(b"\xff\xc0") + 5
    return content[:header] + struct.pack(">HH", height, width) + content[header + 4 :]


def png(width: int = 64, height: int = 64, shade: int = 100) -> bytes:
    """A picture of one shade of grey."""
    return _saved(Image.new("RGB", (width, height), (shade,) * 3), "PNG")


def png_that_claims(width: int, height: int) -> bytes:
    """A small picture with a large header, whose checksum is right."""
    content = png()
    header = b"IHDR" + struct.pack(">II", width, height) + content[24:29]
    return content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]


def _saved(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


@dataclass(frozen=True)
class GifPart:
    """One frame of a GIF."""

    colours: numpy.ndarray  # [h, w], numbers of colours in the palette
    left: int = 0
    top: int = 0
    palette: numpy.ndarray | None = None  # [256, 3], of its own
    transparent: int | None = None
    disposal: int = 0
    hundredths: int | None = 4  # of a second; None leaves out the block that says so
    is_interlaced: bool = False  # every eighth row first

    def to_bytes(self) -> bytes:
        """The frame's blocks."""
        flags = self.disposal << 2 | (self.transparent is not None)
        control = b"!\xf9\x04" + struct.pack("<BHBB", flags, self.hundredths or 0, self.transparent or 0, 0)
        height, width = self.colours.shape
        rows = list(range(height))
        if self.is_interlaced:
            rows = [row for first, step in ((0, 8), (4, 8), (2, 4), (1, 2)) for row in range(first, height, step)]
        form = 0x40 * self.is_interlaced | (0 if self.palette is None else 0x87)
        image = b"," + struct.pack("<HHHHB", self.left, self.top, width, height, form)
        palette = b"" if self.palette is None else self.palette.astype(numpy.uint8).tobytes()
        return (b"" if self.hundredths is None else control) + image + palette + compressed(self.colours[rows])


def compressed(colours: numpy.ndarray) -> bytes:
    """Numbers of colours without compression: the table of patterns is emptied before its codes need more bits."""
    bits = 0
    count = 0
    for index, colour in enumerate(colours.astype(int).ravel().tolist()):
        for code in (256, colour) if index % 200 == 0 else (colour,):
            bits |= code << count
            count += 9
    bits |= 257 << count
    content = bits.to_bytes((count + 9 + 7) // 8, "little")
    blocks = [content[start : start + 255] for start in range(0, len(content), 255)]
    return b"\x08" + b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"


def gif(parts: Sequence[GifPart], width: int, height: int, palette: numpy.ndarray | None = None) -> bytes:
    """A GIF file; `palette` is that of all frames, [256, 3]."""
    header = b"GIF89a" + struct.pack("<HHBBB", width, height, 0 if palette is None else 0x87, 0, 0)
    colours = b"" if palette is None else palette.astype(numpy.uint8).tobytes()
    return header + colours + b"".join(part.to_bytes() for part in parts) + b";"


def long_gif(frames: int, width: int = 8, height: int = 8) -> bytes:
    """A GIF of many frames of one pixel each, 29 bytes a frame."""
    frame = GifPart(numpy.zeros((1, 1))).to_bytes()
    return gif([], width, height, numpy.zeros((256, 3)))[:-1] + frame * frames + b";"
