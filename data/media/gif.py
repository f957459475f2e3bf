"""The frames of a GIF, as a browser shows them on a white page.

Pillow unpacks each frame; the rest is done here. Left to put frames together, it lets a few bytes of a late frame ask
for any amount of memory, goes on with the disposal of an earlier frame where the next one names none, and takes seven
times as long for small changes of a large picture.
"""

import io
from dataclasses import dataclass

import numpy
from PIL import Image
from PIL.GifImagePlugin import GifImageFile

from data.media.budget import Budget, check_frame_size, turn
from data.media.choosing import Frames
from data.media.files import SourceFile
from data.media.gif_blocks import GifPicture, read_pictures, read_screen
from data.media.pictures import BACKGROUND

_CLEARED, _RESTORED = 2, 3  # what becomes of a frame when the next one comes


@dataclass(frozen=True)
class GifOutline:
    """What the blocks say before anything is decoded."""

    width: int
    height: int
    seconds: tuple[float, ...]  # for which each frame is shown


@dataclass(frozen=True)
class _GifFrame:
    page: Image.Image
    start_time: float
    duration: float
    pixel_aspect: float = 1.0

    def pixels(self) -> numpy.ndarray:
        return numpy.asarray(self.page)


def gif_outline(file: SourceFile) -> GifOutline:
    """Return how large a GIF is and when its frames appear.

    Raises:
        UnusableClip: it is cut off, its frames are too large, or there are too many.
    """
    with file.open() as opened:
        screen = read_screen(opened)
        width, height = screen.width, screen.height
        budget, seconds = Budget(), []
        for picture in read_pictures(opened):
            width, height = max(width, picture.left + picture.width), max(height, picture.top + picture.height)
            budget.spend(width, height)
            seconds.append(picture.control.seconds)
    check_frame_size(width, height)
    return GifOutline(width, height, tuple(seconds))


def gif_frames(file: SourceFile) -> Frames:
    """Yield every frame.

    Raises:
        UnusableClip: it is cut off, too large or too long. Pillow's own errors pass through.
    """
    outline = gif_outline(file)
    time = 0.0
    with turn(outline.width, outline.height), file.open() as opened:
        screen = read_screen(opened)
        page = Image.new("RGB", (outline.width, outline.height), BACKGROUND)
        for picture in read_pictures(opened):
            box = (picture.left, picture.top, picture.left + picture.width, picture.top + picture.height)
            before = page.crop(box) if picture.control.disposal == _RESTORED else None
            _draw(page, picture, picture.palette or screen.palette)
            yield _GifFrame(page, time, picture.control.seconds)
            time += picture.control.seconds
            if before is not None:
                page.paste(before, box)
            elif picture.control.disposal == _CLEARED:
                page.paste(BACKGROUND, box)


def _draw(page: Image.Image, picture: GifPicture, palette: bytes | None) -> None:
    colours = _unpacked(picture)
    mask = None
    if picture.control.transparent is not None:
        mask = colours.point([0 if colour == picture.control.transparent else 255 for colour in range(256)])
    if palette is not None:
        colours.putpalette(palette.ljust(3 * 256, b"\0"))
    page.paste(colours.convert("RGB"), (picture.left, picture.top), mask)


def _unpacked(picture: GifPicture) -> Image.Image:
    """Return the numbers of a frame's colours as a grey picture, which is how Pillow reads a GIF without a palette."""
    size = picture.width.to_bytes(2, "little") + picture.height.to_bytes(2, "little")
    flags = 0x40 if picture.is_interlaced else 0
    header = b"GIF89a" + size + bytes(3) + b"," + bytes(4) + size + bytes([flags])
    with GifImageFile(io.BytesIO(header + picture.content + b";")) as image:
        image.load()
        return image.copy()
