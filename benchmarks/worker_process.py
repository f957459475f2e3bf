"""Worker processes that answer in lines of JSON and are ended when they take more memory or time than they may."""

import argparse
import contextlib
import json
import queue
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import psutil

GIBIBYTE = 2**30
MEMORY_LIMIT_GIB = 16.0
CHECK_SECONDS = 0.5  # between two looks at its memory, because every look takes time from the process
END_SECONDS = 10.0  # between the end of the output and that of the process
_STATUS = Path("/proc/self/status")

Bound = Literal["seconds", "memory"]


class WorkerError(Exception):
    """A worker ended without an answer. The message fits into a table."""

    bound: ClassVar[Bound | None] = None
    """The limit that it went past; None for a failure."""


class MemoryLimitError(WorkerError):
    """More memory than allowed."""

    bound = "memory"


class TimeLimitError(WorkerError):
    """No answer in time."""

    bound = "seconds"


class WorkerProcess:
    """A process that answers requests, one line of JSON a request, within limits of memory and time.

    Its standard error is that of the caller. Ctrl-C reaches the caller alone, which ends the process. Leaving the
    context ends it too.
    """

    def __init__(self, command: Sequence[str], *, memory_gib: float = MEMORY_LIMIT_GIB) -> None:
        """Start `command`; the limit holds for the resident sets of the process and its children together."""
        self._memory_gib = memory_gib
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def ask(self, request: str, *, seconds: float) -> dict[str, Any]:
        """Send a line and return the answer to it.

        Raises:
            WorkerError: too much memory or time, or no answer. The process has been ended.
        """
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # of a process that has ended, which `answer` reports
            self._process.stdin.write(request + "\n")
            self._process.stdin.flush()
        return self.answer(seconds=seconds)

    def answer(self, *, seconds: float) -> dict[str, Any]:
        """Return the next line that is a JSON object; skip others.

        Raises:
            WorkerError: as for :meth:`ask`.
        """
        end = time.monotonic() + seconds
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, min(CHECK_SECONDS, end - time.monotonic())))
            except queue.Empty:
                line = ""
            if line is None:
                self._lines.put(None)  # for the next question
                raise self._ended()
            found = _json_object(line)
            if found is not None:
                return found
            if self.used_gib() > self._memory_gib:
                self.stop()
                raise MemoryLimitError(f"more than {self._memory_gib:g} GiB")
            if time.monotonic() > end:
                self.stop()
                raise TimeLimitError(f"more than {seconds:g} s")

    def used_gib(self) -> float:
        """Return the resident sets of the process and its children, now; 0 after the end."""
        total = 0
        for member in self._members():
            with contextlib.suppress(psutil.NoSuchProcess):
                total += member.memory_info().rss
        return total / GIBIBYTE

    def stop(self) -> None:
        """End the process and its children at once; harmless after the end."""
        for member in self._members():
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):  # a request that was never read
                pipe.close()

    def _members(self) -> list[psutil.Process]:
        try:
            process = psutil.Process(self._process.pid)
            return [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def _ended(self) -> WorkerError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_SECONDS)
        self.stop()
        code = self._process.returncode
        return WorkerError(f"ended by signal {-code}" if code < 0 else f"ended with exit code {code}")


def run_worker(command: Sequence[str], *, seconds: float, memory_gib: float = MEMORY_LIMIT_GIB) -> dict[str, Any]:
    """Run a command that prints one JSON object, and return it.

    Raises:
        WorkerError: too much memory or time, or no answer.
    """
    with WorkerProcess(command, memory_gib=memory_gib) as process:
        return process.answer(seconds=seconds)


def worker_command(module: str, plan: Mapping[str, object], launcher: Sequence[str] = ()) -> list[str]:
    """Return the command of a worker, whose one argument is its plan as JSON; `launcher` are options of Python."""
    return [sys.executable, *launcher, "-m", module, json.dumps(plan)]


def read_plan(arguments: Sequence[str], description: str | None) -> dict[str, Any]:
    """Read a worker's one argument."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=json.loads, help="a JSON object")
    plan: dict[str, Any] = parser.parse_args(arguments).plan
    return plan


def peak_memory_gib() -> float:
    """Return the most memory (resident set) that this process ever had.

    `getrusage` would do, but on Linux a new process starts with the peak of the one that started it.
    """
    if _STATUS.exists():
        for line in _STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / GIBIBYTE
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIBIBYTE


def _json_object(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except json.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None
