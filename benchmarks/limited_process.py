"""Programs in processes of their own, ended at once when they take more memory or time than they may."""

import contextlib
import json
import queue
import subprocess
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import IO, Self

import psutil

from benchmarks.machine import GIBIBYTE

MEMORY_LIMIT_GIB = 16.0  # of the benchmarks
CHECK_SECONDS = 0.5  # apart, because every look takes time from the process that is watched
END_SECONDS = 10.0  # between the end of the output and that of the process


class LimitError(Exception):
    """A process went past a limit, or ended without an answer. The message is fit for a table."""

    is_crash = True
    """It ended by itself, which is no answer to how much it takes."""


class MemoryLimitError(LimitError):
    """More memory than allowed."""

    is_crash = False


class TimeLimitError(LimitError):
    """No answer in time."""

    is_crash = False


class LimitedProcess:
    """A process that answers requests, one line of JSON a request, under limits of memory and time.

    Its standard error is that of the caller. Ctrl-C reaches the caller alone, in whose hands it is to end the process.
    Use it as a context manager: leaving ends the process.
    """

    def __init__(self, command: Sequence[str], *, memory_gib: float) -> None:
        """Start `command`; the limit holds for the resident sets of the process and its children together."""
        self._memory_gib = memory_gib
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests: IO[str] = self._process.stdin
        self._output: IO[str] = self._process.stdout
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def ask(self, request: str, *, seconds: float) -> dict[str, object]:
        """Send a line and return the answer to it.

        Raises:
            LimitError: too much memory or time, or no answer; the process is ended then.
        """
        if self._process.poll() is not None:
            raise self._without_answer()
        try:
            self._requests.write(request + "\n")
            self._requests.flush()
        except BrokenPipeError:
            raise self._without_answer() from None
        return self.answer(seconds=seconds)

    def answer(self, *, seconds: float) -> dict[str, object]:
        """Return the next line that is a JSON object; other lines are passed over.

        Raises:
            LimitError: as for :meth:`ask`.
        """
        end = time.monotonic() + seconds
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, min(CHECK_SECONDS, end - time.monotonic())))
            except queue.Empty:
                line = ""
            if line is None:
                raise self._without_answer()
            found = _json_object(line)
            if found is not None:
                return found
            self._check(end, seconds)

    def memory_gib(self) -> float:
        """Return the resident sets of the process and its children, now; 0 after the end."""
        total = 0
        try:
            own = psutil.Process(self._process.pid)
            for member in [own, *own.children(recursive=True)]:
                total += member.memory_info().rss
        except psutil.NoSuchProcess:
            return total / GIBIBYTE
        return total / GIBIBYTE

    def stop(self) -> None:
        """End the process and its children at once; harmless after the end."""
        try:
            members = psutil.Process(self._process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            members = []
        self._process.kill()
        for member in members:
            try:
                member.kill()
            except psutil.NoSuchProcess:
                continue
        self._process.wait()
        self._reader.join()
        self._output.close()
        with contextlib.suppress(BrokenPipeError):  # a request that was never read
            self._requests.close()

    def _read(self) -> None:
        for line in self._output:
            self._lines.put(line)
        self._lines.put(None)

    def _check(self, end: float, seconds: float) -> None:
        if self.memory_gib() > self._memory_gib:
            self.stop()
            raise MemoryLimitError(f"more than {self._memory_gib:g} GiB")
        if time.monotonic() > end:
            self.stop()
            raise TimeLimitError(f"more than {seconds:g} s")

    def _without_answer(self) -> LimitError:
        try:
            code = self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            code = None
        self.stop()
        if code is None:
            return LimitError("closed its output without an answer")
        return LimitError(f"ended by signal {-code}" if code < 0 else f"ended with exit code {code}")


def run_limited(command: Sequence[str], *, memory_gib: float, seconds: float) -> dict[str, object] | LimitError:
    """Run a command that prints one JSON object, and return it, or why there is none.

    Args:
        command: program and arguments. Its standard error is that of the caller.
        memory_gib: limit of the resident sets of the process and its children together.
        seconds: limit from start to answer.
    """
    with LimitedProcess(command, memory_gib=memory_gib) as process:
        try:
            return process.answer(seconds=seconds)
        except LimitError as error:
            return error


def _json_object(line: str) -> dict[str, object] | None:
    try:
        found = json.loads(line)
    except json.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None
