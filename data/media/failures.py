"""What libraries say when they cannot decode a file, as reasons for people."""

from collections.abc import Iterator
from contextlib import contextmanager

import av
from PIL import Image, UnidentifiedImageError

from data.paths import printable
from data.unusable import UnusableClip

_MOST_CHARACTERS = 120

# Pillow lets through whatever happens when it indexes or unpacks bytes that are not what they should be.
_FAILURES = (
    av.FFmpegError,
    OSError,
    ValueError,
    LookupError,
    ArithmeticError,
    EOFError,
    SyntaxError,
    MemoryError,
)


@contextmanager
def failures_as_reasons(done: str = "decoded") -> Iterator[None]:
    """Turn the errors of FFmpeg, Pillow and the file system into `UnusableClip`.

    Args:
        done: what cannot be done with the clip.
    """
    try:
        yield
    except UnidentifiedImageError as error:
        raise UnusableClip("has a picture that cannot be read") from error
    except Image.DecompressionBombError as error:
        raise UnusableClip("has frames that are too large") from error
    except _FAILURES as error:
        if isinstance(error, PermissionError) and not isinstance(error, av.FFmpegError):
            raise UnusableClip(f"cannot be read ({error.strerror})") from error
        raise UnusableClip(f"cannot be {done} ({_said(error)})") from error


def _said(error: Exception) -> str:
    """Return what an error says, without the name of a file."""
    said = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
    return printable(said[:_MOST_CHARACTERS])
