"""Worker processes that answer in JSON and are ended when they take more memory or time than they may."""

import argparse
import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import psutil

from common.errors import UserError

GIBIBYTE = 2**30
MEMORY_LIMIT_GIB = 16.0
CHECK_SECONDS = 0.5  # between two looks at its memory, because every look takes time from the process
LAST_SECONDS = 10.0  # in which a killed process ends, unless a driver holds it
_STATUS = Path("/proc/self/status")

Bound = Literal["seconds", "memory"]


class WorkerError(UserError):
    """A worker ended without an answer. The message fits into a table."""

    bound: ClassVar[Bound | None] = None
    """The limit that it went past; None for a failure."""


class MemoryLimitError(WorkerError):
    """More memory than allowed."""

    bound = "memory"


class TimeLimitError(WorkerError):
    """No answer in time."""

    bound = "seconds"


def run_worker(command: Sequence[str], *, seconds: float, memory_gib: float = MEMORY_LIMIT_GIB) -> dict[str, Any]:
    """Run a command that prints one JSON object among other lines, and return it.

    Its standard error is that of the caller. Ctrl-C reaches the caller alone, which ends the process. `memory_gib`
    bounds the resident sets of the process and its children together.

    Raises:
        WorkerError: too much memory or time, or no answer.
    """
    end = time.monotonic() + seconds
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, text=True, start_new_session=True)
        try:
            while process.poll() is None:
                if _used_gib(process) > memory_gib:
                    raise MemoryLimitError(f"more than {memory_gib:g} GiB")
                if time.monotonic() > end:
                    raise TimeLimitError(f"more than {seconds:g} s")
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, min(CHECK_SECONDS, end - time.monotonic())))
        finally:
            for member in _members(process):
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.kill()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # also those whose parent, the process itself, has died
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(LAST_SECONDS)
        output.seek(0)
        answers = [found for found in map(_json_object, output) if found is not None]
    code = process.returncode
    if code != 0 or not answers:
        raise WorkerError(f"ended by signal {-code}" if code < 0 else f"ended with exit code {code}")
    return answers[-1]


def _members(process: subprocess.Popen[str]) -> list[psutil.Process]:
    try:
        first = psutil.Process(process.pid)
        return [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _used_gib(process: subprocess.Popen[str]) -> float:
    total = 0
    for member in _members(process):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += member.memory_info().rss
    return total / GIBIBYTE


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
