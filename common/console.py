"""Output that may fail: a terminal that was closed, a pipe whose reader has gone, a log file on a full disk."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Any, TextIO, cast


@contextmanager
def forgiving_output() -> Iterator[None]:
    """Let no print in the ``with`` block raise because of where it goes; what cannot be shown is lost.

    A training that outlives its terminal would otherwise end at its next line. On leaving, a stream that cannot be
    flushed is pointed at the null device: Python would try again at exit and change the exit code.
    """
    streams = (sys.stdout, sys.stderr)
    sys.stdout, sys.stderr = (cast(TextIO, _ForgivingStream(stream)) for stream in streams)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = streams
        for stream in streams:
            try:
                stream.flush()
            except OSError:
                _point_at_null(stream)


@contextmanager
def quiet_output(is_quiet: bool) -> Iterator[None]:
    """Hide what is printed in the ``with`` block if `is_quiet`; errors and warnings are shown."""
    if not is_quiet:
        yield
        return
    with open(os.devnull, "w", encoding="utf-8") as null, redirect_stdout(null):
        yield


class _ForgivingStream:
    """A text stream, except that writing and flushing do not raise OSError."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            try:
                self._stream.write(text)
            except UnicodeEncodeError:  # a caption or a name in a script that the terminal does not know
                encoding = self._stream.encoding or "ascii"
                self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _point_at_null(stream: TextIO) -> None:
    with suppress(OSError, ValueError):  # a stream of a test may have no descriptor
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
