"""What all programs say to the person at the console: how they print, fail, count and name commands."""

import functools
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, TextIO, TypeVar, cast

from tqdm import tqdm

from common.errors import UserError

Arguments = ParamSpec("Arguments")
Item = TypeVar("Item")

BAR_DELAY = 2.0  # seconds
SECONDS_BETWEEN_LINES = 10.0


def program(main: Callable[Arguments, int | None]) -> Callable[Arguments, int]:
    """Let the main function of a program print to any console, and return its exit code.

    A UserError becomes ``error: ...`` on stderr and 1, Ctrl-C ``interrupted`` and 130, and no code of its own 0.
    """

    @functools.wraps(main)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> int:
        with forgiving_output():
            try:
                return main(*args, **kwargs) or 0
            except UserError as error:
                print(f"error: {error}", file=sys.stderr)
                return 1
            except KeyboardInterrupt:
                print("interrupted", file=sys.stderr)
                return 130

    return run


def counted(count: int, one: str, several: str | None = None) -> str:
    """Return "1 clip" or "2 clips" for "clip"; several differ by more than an s in "1 clip is", "2 clips are"."""
    return f"{count} {one if count == 1 else several or f'{one}s'}"


def with_progress(items: Iterable[Item], label: str, total: int | None = None) -> Iterator[Item]:
    """Pass the items on, and show how many are done on stderr: a bar in a terminal, elsewhere a line now and then.

    What is done soon shows nothing.

    Args:
        items: each takes some time to make, or to use.
        label: what is being done, such as "decoding clips".
        total: how many there are, where they have no length.
    """
    bar = tqdm(items, label, total, file=sys.stderr, leave=False, disable=None, delay=BAR_DELAY)
    spoken = time.monotonic()
    for done, item in enumerate(bar):
        if bar.disable and time.monotonic() - spoken >= SECONDS_BETWEEN_LINES:
            print(f"{label}: {done}{'' if bar.total is None else f' of {bar.total}'}", file=sys.stderr, flush=True)
            spoken = time.monotonic()
        yield item


def command(*words: str | Path) -> str:
    """Return a command on one line that can be pasted into a shell: names with blanks and the like are quoted."""
    texts = [str(word) for word in words]
    return subprocess.list2cmdline(texts) if os.name == "nt" else " ".join(map(_quoted, texts))


def _quoted(word: str) -> str:
    if word.isprintable():
        return shlex.quote(word)
    # Line breaks, other control characters and bytes that are not UTF-8, as bash and zsh take them.
    shown = (
        character if character.isprintable() else "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))
        for character in word.replace("\\", "\\\\").replace("'", "\\'")
    )
    return f"$'{''.join(shown)}'"


def _say_interrupted(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


if sys.excepthook is sys.__excepthook__:  # programs import for seconds, in which Ctrl-C would be a traceback
    sys.excepthook = _say_interrupted


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
