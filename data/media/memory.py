"""How much memory decoding may take in one piece, and giving it back."""

import contextlib
import ctypes
import functools

import av._core

# A picture, a packet, or the table of all frames: a megabyte of a hostile header can ask for gigabytes of them.
MOST_BYTES_AT_ONCE = 64 << 20


@functools.cache
def limit_ffmpeg_memory() -> None:
    """Let FFmpeg, in this process, refuse to allocate more than MOST_BYTES_AT_ONCE in one piece.

    PyAV has no function for it, so that of FFmpeg is called. Where it is not to be found (on Windows), what is decoded
    is still held against the budgets of `data.media.budget`.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(av._core.__file__).av_max_alloc(ctypes.c_size_t(MOST_BYTES_AT_ONCE))


def give_back_memory() -> None:
    """Return freed memory to the system, where the C library (glibc) keeps it.

    It keeps it for each thread: after eight threads have decoded one large clip each, that is the memory of eight.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
