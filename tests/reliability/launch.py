"""Real training processes that start within a second, and faults that are put into them.

A server process imports everything once and forks a process for each launch, so what is launched is main.py's `main`
in a process of its own, without the seconds that importing PyTorch takes. Faults are functions that the new process
calls first; each puts something wrong around a part of the product.
"""

import multiprocessing
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.distributed import TCPStore

import main

SMALLEST = (
    "--image-size=16",
    "--patch-size=2",
    "--max-frames=4",
    "--model-channels=16",
    "--spatial-attention-sizes=8",
    "--attention-head-channels=16",
    "--text-channels=16",
    "--text-layers=1",
    "--text-heads=1",
    "--batch-size=2",
    "--max-word-letters=2",
    "--validation-clips=2",
    "--sampling-steps=1",
    "--recogniser-steps=0",
    "--sample-prompts=A",
    "--lr-schedule=constant",
    "--log-every-steps=1",
    "--num-workers=0",
    "--device=cpu",
)
TINY = (
    *SMALLEST,
    "--epoch-size=12",
    "--parameter-tracking-max-layers=4",
    "--max-steps=100000",
    "--max-minutes=none",
    "--validate-every-steps=100000",
    "--sample-every-steps=100000",
    "--save-every-steps=100000",
    "--diagnostic-log-every-steps=100000",
    "--experiment-name=run",
)
Fault = Callable[[], None]

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([__name__, "tests.reliability.faults"])
_started: list[Any] = []
_stores: list[TCPStore] = []


@dataclass(frozen=True)
class Launch:
    """A training that was started."""

    process: Any  # multiprocessing.context.ForkServerProcess
    output: Path
    run: Path

    @property
    def said(self) -> str:
        """What it has said so far, on both streams."""
        return self.output.read_text("utf-8", errors="replace").replace("\r", "\n")

    def wait_for(self, text: str, seconds: float = 100.0) -> None:
        """Wait until it says something."""
        deadline = time.monotonic() + seconds
        while text not in self.said:
            assert self.process.is_alive(), f"it ended without {text!r}: {self.said}"
            assert time.monotonic() < deadline, f"it never said {text!r}: {self.said}"
            time.sleep(0.01)

    def send(self, number: int) -> None:
        """Send a signal to it."""
        os.kill(self.process.pid, number)

    def end(self, seconds: float = 100.0) -> int:
        """Wait for its end and return the exit code, negative after an unhandled signal."""
        self.process.join(seconds)
        assert self.process.exitcode is not None, f"it did not end: {self.said}"
        return int(self.process.exitcode)

    @property
    def saved_steps(self) -> list[int]:
        """The checkpoints that it said had reached the disk."""
        return [int(step) for step in re.findall(r"Step (\d+): checkpoint ", self.said)]


def launch(
    folder: Path,
    *arguments: str,
    faults: Sequence[Fault] = (),
    program: str = "main",
    environment: Mapping[str, str] | None = None,
) -> Launch:
    """Start main.py (or another module with a `main`) with logs and cache in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    output = folder / f"output_{time.monotonic_ns()}.txt"
    output.touch()
    if program == "main":
        arguments = (*TINY, f"--log-dir={folder / 'logs'}", f"--cache-dir={folder / 'cache'}", *arguments)
    process = _context.Process(target=_run, args=(program, arguments, output, tuple(faults), environment or {}))
    process.start()
    _started.append(process)
    return Launch(process, output, folder / "logs" / "run")


def launch_ranks(
    folder: Path,
    world_size: int,
    *arguments: str,
    faults: Mapping[int, Sequence[Fault]] | None = None,
    store: TCPStore | None = None,
) -> list[Launch]:
    """Start main.py in several processes that train together, as torchrun does, but within a second.

    Args:
        faults: of some ranks.
        store: of an earlier start, in the place of whose processes these are; a new one by default.
    """
    store = new_store() if store is None else store
    shared = {
        "WORLD_SIZE": world_size,
        "LOCAL_WORLD_SIZE": world_size,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": store.port,
        "TORCHELASTIC_RUN_ID": "test",
        "TORCHELASTIC_USE_AGENT_STORE": True,
    }
    return [
        launch(
            folder,
            *arguments,
            faults=(faults or {}).get(rank, ()),
            environment={name: str(value) for name, value in {**shared, "RANK": rank, "LOCAL_RANK": rank}.items()},
        )
        for rank in range(world_size)
    ]


def new_store() -> TCPStore:
    """Start what processes of one run find each other with, as torchrun keeps one; it lives until `end_all`."""
    _stores.append(TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False))
    return _stores[-1]


def train_ranks(folder: Path, world_size: int, *arguments: str, **options: Any) -> list[Launch]:
    """Train to the end with several processes, which must all end with exit code 0."""
    launched = launch_ranks(folder, world_size, *arguments, **options)
    assert [each.end() for each in launched] == [0] * world_size, "\n".join(each.said for each in launched)
    return launched


def end_all() -> None:
    """Kill whatever a test has left running."""
    _stores.clear()
    while _started:
        process = _started.pop()
        if process.is_alive():
            process.kill()
        process.join()


def train(folder: Path, *arguments: str, faults: Sequence[Fault] = (), exit_code: int = 0) -> Launch:
    """Train to the end, which must be with this exit code."""
    launched = launch(folder, *arguments, faults=faults)
    assert launched.end() == exit_code, launched.said
    return launched


def _run(
    program: str, arguments: Sequence[str], output: Path, faults: Sequence[Fault], environment: Mapping[str, str]
) -> None:
    os.setsid()  # a group of its own, as a scheduler gives each job
    target = os.open(output, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(target, stream)
    os.close(target)
    torch.set_num_threads(1)
    os.environ.update(environment)
    for fault in faults:
        fault()
    module = main if program == "main" else __import__(program, fromlist=["main"])
    sys.exit(module.main(list(arguments)))
