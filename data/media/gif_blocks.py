"""The blocks of a GIF file, read one after the other. Nothing is decoded."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from data.unusable import UnusableClip

_DEFAULT_SECONDS = 0.1  # browsers show frames without a duration for this long
_EXTENSION, _IMAGE, _END = b"!", b",", b";"
_GRAPHIC_CONTROL = b"\xf9"
_HAS_PALETTE, _IS_INTERLACED, _IS_TRANSPARENT = 0x80, 0x40, 0x01


@dataclass(frozen=True)
class GifScreen:
    """The header."""

    width: int
    height: int
    palette: bytes | None  # red, green and blue of up to 256 colours


@dataclass(frozen=True)
class GifControl:
    """What an extension says of the frame that follows."""

    disposal: int = 0  # what becomes of the frame afterwards; 2: it is cleared, 3: what was there before comes back
    seconds: float = _DEFAULT_SECONDS  # for which it is shown
    transparent: int | None = None  # the colour, as a number in the palette, that shows what lies behind


@dataclass(frozen=True)
class GifPicture:
    """One frame, which may cover a part of the screen, or reach over its border."""

    left: int
    top: int
    width: int
    height: int
    is_interlaced: bool
    palette: bytes | None  # of its own
    control: GifControl
    content: bytes  # compressed, with what surrounds it


def read_screen(file: BinaryIO) -> GifScreen:
    """Read the header.

    Raises:
        UnusableClip: it is cut off.
    """
    screen = _exactly(file, 13)
    return GifScreen(_number(screen, 6), _number(screen, 8), _palette(file, screen[10]))


def read_pictures(file: BinaryIO) -> Iterator[GifPicture]:
    """Yield the frames that follow the header.

    Raises:
        UnusableClip: one is cut off.
    """
    control = GifControl()
    while (introducer := file.read(1)) not in (b"", _END):
        if introducer == _EXTENSION:
            label = _exactly(file, 1)
            blocks = list(_sub_blocks(file))
            if label == _GRAPHIC_CONTROL and blocks and len(blocks[0]) > 4:
                control = _control(blocks[0][1:])
        elif introducer == _IMAGE:
            yield _picture(file, control)
            control = GifControl()
        # Anything else is skipped: some writers leave a zero byte between two blocks.


def _control(block: bytes) -> GifControl:
    return GifControl(
        disposal=block[0] >> 2 & 7,
        seconds=_number(block, 1) / 100 or _DEFAULT_SECONDS,
        transparent=block[3] if block[0] & _IS_TRANSPARENT else None,
    )


def _picture(file: BinaryIO, control: GifControl) -> GifPicture:
    image = _exactly(file, 9)
    palette = _palette(file, image[8])
    pieces, size = [_exactly(file, 1)], 0
    most = 1024 + 2 * _number(image, 4) * _number(image, 6)  # a pixel takes at most 12 bits; the rest means nothing
    for block in _sub_blocks(file):
        if size < most:
            pieces.append(block)
            size += len(block)
    return GifPicture(
        left=_number(image, 0),
        top=_number(image, 2),
        width=_number(image, 4),
        height=_number(image, 6),
        is_interlaced=bool(image[8] & _IS_INTERLACED),
        palette=palette,
        control=control,
        content=b"".join(pieces) + b"\0",
    )


def _palette(file: BinaryIO, flags: int) -> bytes | None:
    return _exactly(file, 3 << (flags & 7) + 1) if flags & _HAS_PALETTE else None


def _sub_blocks(file: BinaryIO) -> Iterator[bytes]:
    """Yield the pieces into which content is divided, each of them behind its length."""
    length = _exactly(file, 1)
    while length != b"\0":
        block = _exactly(file, length[0] + 1)  # with the length of the next one, as there are very many
        yield length + block[:-1]
        length = block[-1:]


def _exactly(file: BinaryIO, count: int) -> bytes:
    content = file.read(count)
    if len(content) < count:
        raise UnusableClip("is cut off: it ends within a frame")
    return content


def _number(content: bytes, offset: int) -> int:
    return int.from_bytes(content[offset : offset + 2], "little")
