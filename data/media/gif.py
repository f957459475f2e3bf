"""The frames of a GIF, as a browser shows them on a white page.

Pillow unpacks each frame; the rest is done here. Left to put frames together, it lets a few bytes of a late frame ask
for any amount of memory, goes on with the disposal of an earlier frame if the next one names none, and takes seven
times as long for small changes of a large picture.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

import numpy
from PIL import Image
from PIL.GifImagePlugin import GifImageFile

from data.media.budget import Budget, check_frame_size, large_frame_lock
from data.media.files import SourceFile
from data.media.resample import BACKGROUND, Frame, Frames
from data.rows import UnusableClip

_DEFAULT_SECONDS = 0.1  # browsers show frames without a duration for this long
_EXTENSION, _IMAGE, _END = b"!", b",", b";"
_GRAPHIC_CONTROL = b"\xf9"
_HAS_PALETTE, _IS_INTERLACED, _IS_TRANSPARENT = 0x80, 0x40, 0x01
_CLEARED, _RESTORED = 2, 3  # what becomes of a frame when the next one comes


def gif_outline(file: SourceFile) -> tuple[int, int, list[float]]:
    """Return the width and height of a GIF and for how many seconds each frame is shown. Nothing is decoded.

    Raises:
        UnusableClip: it is cut off, its frames are too large, or there are too many.
    """
    with file.open() as opened:
        width, height, _ = _read_screen(opened)
        budget, seconds = Budget(), []
        for picture in _read_pictures(opened):
            width, height = max(width, picture.left + picture.width), max(height, picture.top + picture.height)
            budget.spend(width, height)
            seconds.append(picture.control.seconds)
    check_frame_size(width, height)
    return width, height, seconds


def gif_frames(file: SourceFile) -> Frames:
    """Yield every frame.

    Raises:
        UnusableClip: it is cut off, too large or too long. Pillow's own errors pass through.
    """
    width, height, _ = gif_outline(file)
    time = 0.0
    with large_frame_lock(width, height), file.open() as opened:
        *_, palette = _read_screen(opened)
        page = Image.new("RGB", (width, height), BACKGROUND)
        for picture in _read_pictures(opened):
            box = (picture.left, picture.top, picture.left + picture.width, picture.top + picture.height)
            before = page.crop(box) if picture.control.disposal == _RESTORED else None
            _draw(page, picture, picture.palette or palette)
            yield Frame(time, picture.control.seconds, partial(numpy.asarray, page))
            time += picture.control.seconds
            if before is not None:
                page.paste(before, box)
            elif picture.control.disposal == _CLEARED:
                page.paste(BACKGROUND, box)


@dataclass(frozen=True)
class _Control:
    """What an extension says of the frame that follows."""

    disposal: int = 0
    seconds: float = _DEFAULT_SECONDS  # for which it is shown
    transparent: int | None = None  # the colour, as a number in the palette, that shows what lies behind


@dataclass(frozen=True)
class _Picture:
    """One frame, which may cover a part of the screen, or reach over its border."""

    left: int
    top: int
    width: int
    height: int
    is_interlaced: bool
    palette: bytes | None  # of its own: red, green and blue of up to 256 colours
    control: _Control
    content: bytes  # compressed, with what surrounds it


def _draw(page: Image.Image, picture: _Picture, palette: bytes | None) -> None:
    colours = _unpacked(picture)
    mask = None
    if picture.control.transparent is not None:
        mask = colours.point([0 if colour == picture.control.transparent else 255 for colour in range(256)])
    if palette is not None:
        colours.putpalette(palette.ljust(3 * 256, b"\0"))
    page.paste(colours.convert("RGB"), (picture.left, picture.top), mask)


def _unpacked(picture: _Picture) -> Image.Image:
    """Return the numbers of a frame's colours as a grey picture, which is how Pillow reads a GIF without a palette."""
    size = picture.width.to_bytes(2, "little") + picture.height.to_bytes(2, "little")
    flags = _IS_INTERLACED if picture.is_interlaced else 0
    header = b"GIF89a" + size + bytes(3) + b"," + bytes(4) + size + bytes([flags])
    with GifImageFile(io.BytesIO(header + picture.content + b";")) as image:
        image.load()
        return image.copy()


def _read_screen(file: BinaryIO) -> tuple[int, int, bytes | None]:
    """Read the header: width, height and palette."""
    screen = _read_exactly(file, 13)
    return _number(screen, 6), _number(screen, 8), _read_palette(file, screen[10])


def _read_pictures(file: BinaryIO) -> Iterator[_Picture]:
    control = _Control()
    while (introducer := file.read(1)) not in (b"", _END):
        if introducer == _EXTENSION:
            label = _read_exactly(file, 1)
            blocks = list(_sub_blocks(file))
            if label == _GRAPHIC_CONTROL and blocks and len(blocks[0]) > 4:
                flags, transparent = blocks[0][1], blocks[0][4]
                control = _Control(
                    disposal=flags >> 2 & 7,
                    seconds=_number(blocks[0], 2) / 100 or _DEFAULT_SECONDS,
                    transparent=transparent if flags & _IS_TRANSPARENT else None,
                )
        elif introducer == _IMAGE:
            yield _read_picture(file, control)
            control = _Control()
        # Anything else is skipped: some writers leave a zero byte between two blocks.


def _read_picture(file: BinaryIO, control: _Control) -> _Picture:
    header = _read_exactly(file, 9)
    left, top, width, height = (_number(header, offset) for offset in (0, 2, 4, 6))
    palette = _read_palette(file, header[8])
    pieces, size = [_read_exactly(file, 1)], 0
    most = 1024 + 2 * width * height  # a pixel takes at most 12 bits; the rest means nothing
    for block in _sub_blocks(file):
        if size < most:
            pieces.append(block)
            size += len(block)
    content = b"".join(pieces) + b"\0"
    return _Picture(left, top, width, height, bool(header[8] & _IS_INTERLACED), palette, control, content)


def _read_palette(file: BinaryIO, flags: int) -> bytes | None:
    return _read_exactly(file, 3 << (flags & 7) + 1) if flags & _HAS_PALETTE else None


def _sub_blocks(file: BinaryIO) -> Iterator[bytes]:
    """Yield the pieces into which content is divided, each of them behind its length."""
    length = _read_exactly(file, 1)
    while length != b"\0":
        block = _read_exactly(file, length[0] + 1)  # with the length of the next one, as there are very many
        yield length + block[:-1]
        length = block[-1:]


def _read_exactly(file: BinaryIO, count: int) -> bytes:
    content = file.read(count)
    if len(content) < count:
        raise UnusableClip("is cut off: it ends within a frame")
    return content


def _number(content: bytes, offset: int) -> int:
    return int.from_bytes(content[offset : offset + 2], "little")
