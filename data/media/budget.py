"""Limits on the work of decoding one clip, checked before and while it is decoded, and failures as reasons."""

import contextlib
import ctypes
import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import av
import av._core
from PIL import Image, UnidentifiedImageError

from data.media.files import printable
from data.rows import UnusableClip

# A picture, a packet, or the table of all frames: a megabyte of a hostile header can ask for gigabytes of them.
MOST_BYTES_AT_ONCE = 64 << 20
MOST_PICTURE_BYTES = 1 << 26  # of one file in a folder of frames, which is held in memory
MOST_PIXELS = 4096 * 2304  # of one frame
LARGE_PIXELS = 1920 * 1200  # frames beyond this are decoded by one thread at a time
MOST_FRAMES = 50_000
MOST_PIXELS_IN_ALL = 7_500_000_000  # two minutes of 1920 x 1080 at 30 frames a second
MOST_SECONDS = 3600.0
LEAST_SIDE = 8  # pixels: no hand can be seen in fewer
LEAST_FRAMES = 2  # one frame is a picture
_MOST_ERROR_CHARACTERS = 120

# Pillow lets through whatever happens when it indexes or unpacks bytes that are not what they should be.
_FAILURES = (
    *(av.FFmpegError, OSError, ValueError, LookupError),
    *(ArithmeticError, EOFError, SyntaxError, MemoryError),
)
_large_frames = threading.Lock()


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


def is_large(width: int, height: int) -> bool:
    """Return whether frames are so large, or of unknown size (0), that only one clip of such is decoded at a time."""
    return not 0 < width * height <= LARGE_PIXELS


@contextmanager
def large_frame_lock(width: int, height: int) -> Iterator[None]:
    """Wait, if frames are large, until no other thread decodes large ones.

    A decoder may hold seventeen frames, and eight threads may decode. It must be gone when the lock is released.
    """
    if not is_large(width, height):
        yield
        return
    with _large_frames:
        try:
            yield
        finally:
            _release_freed_memory()


def _release_freed_memory() -> None:
    """Return freed memory to the system. The C library (glibc) keeps it for each thread that has decoded."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


@functools.cache
def limit_ffmpeg_memory() -> None:
    """Let FFmpeg, in this process, refuse to allocate more than MOST_BYTES_AT_ONCE in one piece.

    PyAV has no function for it, so FFmpeg's is called. Where it cannot be found (on Windows), the other budgets still
    hold.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(av._core.__file__).av_max_alloc(ctypes.c_size_t(MOST_BYTES_AT_ONCE))


@contextmanager
def failures_as_reasons(done: str = "decoded") -> Iterator[None]:
    """Turn the errors of FFmpeg, Pillow and the file system into `UnusableClip`: it cannot be `done`."""
    try:
        yield
    except UnidentifiedImageError as error:
        raise UnusableClip("has a picture that cannot be read") from error
    except Image.DecompressionBombError as error:
        raise UnusableClip("has frames that are too large") from error
    except _FAILURES as error:
        if isinstance(error, PermissionError) and not isinstance(error, av.FFmpegError):
            raise UnusableClip(f"cannot be read ({error.strerror})") from error
        # Without the name of a file, which `str(error)` would hold.
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        raise UnusableClip(f"cannot be {done} ({printable(reason[:_MOST_ERROR_CHARACTERS])})") from error
