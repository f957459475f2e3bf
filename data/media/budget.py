"""How much work one clip may be, checked before and while it is decoded."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from data.media.memory import give_back_memory
from data.unusable import UnusableClip

MOST_BYTES = 1 << 30
MOST_MEMBER_BYTES = 1 << 28  # of a file in a tar file
MOST_PICTURE_BYTES = 1 << 26  # of one file in a folder of frames, which is held in memory
MOST_PIXELS = 4096 * 2304  # of one frame
LARGE_PIXELS = 1920 * 1200  # frames beyond this are decoded by one thread at a time
MOST_FRAMES = 50_000
MOST_PIXELS_IN_ALL = 7_500_000_000  # two minutes of 1920 x 1080 at 30 frames a second
MOST_SECONDS = 3600.0
LEAST_SIDE = 8  # pixels: no hand can be seen in fewer
LEAST_FRAMES = 2  # one frame is a picture


def check_frame_size(width: int, height: int) -> None:
    """Refuse frames that are too large to be decoded, or too small to show anything."""
    if width * height > MOST_PIXELS:
        raise UnusableClip(f"has frames of {width} x {height} pixels; the most is {MOST_PIXELS} pixels")
    if min(width, height) < LEAST_SIDE:
        raise UnusableClip(f"has frames of {width} x {height} pixels; the least is {LEAST_SIDE} x {LEAST_SIDE}")


def check_frame_count(frames: int) -> None:
    """Refuse a clip that has too few or too many frames."""
    if frames == 0:
        raise UnusableClip("has no frames")
    if frames < LEAST_FRAMES:
        raise UnusableClip("has only one frame: it is a picture, not a clip")
    if frames > MOST_FRAMES:
        raise UnusableClip(f"has more than {MOST_FRAMES} frames")


def check_duration(seconds: float) -> None:
    """Refuse a clip whose timestamps say that it has no duration, or a very long one."""
    if not 0 < seconds <= MOST_SECONDS:
        raise UnusableClip(f"lasts {seconds:.6g} seconds by its timestamps; the most is {MOST_SECONDS:g}")


_large_frames = threading.Lock()


def is_large(width: int, height: int) -> bool:
    """Return whether frames are so large, or of unknown size (0), that only one clip of such is decoded at a time."""
    return not 0 < width * height <= LARGE_PIXELS


@contextmanager
def turn(width: int, height: int) -> Iterator[None]:
    """Wait, where frames are large, until no other thread decodes large ones.

    A decoder may hold seventeen frames, and eight threads may decode. It must be gone when the turn is over.
    """
    if not is_large(width, height):
        yield
        return
    with _large_frames:
        try:
            yield
        finally:
            give_back_memory()


class Budget:
    """Counts the frames and pixels of one clip while it is decoded, and stops it when there are too many."""

    def __init__(self) -> None:
        self.frames = 0
        self._pixels = 0

    def spend(self, width: int, height: int) -> None:
        """Count one frame before it is converted.

        Raises:
            UnusableClip: it is one too many.
        """
        check_frame_size(width, height)
        self.frames += 1
        self._pixels += width * height
        if self.frames > MOST_FRAMES:
            raise UnusableClip(f"has more than {MOST_FRAMES} frames")
        if self._pixels > MOST_PIXELS_IN_ALL:
            raise UnusableClip(f"is too long (stopped after {self.frames} frames of {width} x {height})")
