"""Real training processes that start within a second, and faults that are put into them.

A server process imports everything once and forks a process for each launch, so what is launched is main.py's `main`
in a process of its own, without the seconds that importing PyTorch takes. Faults are functions that the new process
calls first; each puts something wrong around a part of the product.
"""

import dataclasses
import functools
import multiprocessing
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import main
from common import files
from data.fingerspelling.source import TrainingWords
from training.sampling import ClipSampler
from training.step import TrainStep
from training.validation import Validator

TINY = (
    "--image-size=16",
    "--num-frames=4",
    "--model-channels=16",
    "--spatial-attention-sizes=8",
    "--attention-head-channels=16",
    "--text-channels=16",
    "--text-layers=1",
    "--text-heads=1",
    "--batch-size=2",
    "--epoch-size=12",
    "--max-word-letters=2",
    "--validation-clips=2",
    "--sampling-steps=1",
    "--recogniser-steps=0",
    "--sample-prompts=A",
    "--parameter-tracking-max-layers=4",
    "--max-steps=100000",
    "--max-minutes=none",
    "--lr-schedule=constant",
    "--log-every-steps=1",
    "--validate-every-steps=100000",
    "--sample-every-steps=100000",
    "--save-every-steps=100000",
    "--diagnostic-log-every-steps=100000",
    "--num-workers=0",
    "--device=cpu",
    "--experiment-name=run",
)
Fault = Callable[[], None]

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([__name__])
_started: list[Any] = []


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


def launch(folder: Path, *arguments: str, faults: Sequence[Fault] = (), program: str = "main") -> Launch:
    """Start main.py (or another module with a `main`) with logs and cache in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    output = folder / f"output_{time.monotonic_ns()}.txt"
    output.touch()
    if program == "main":
        arguments = (*TINY, f"--log-dir={folder / 'logs'}", f"--cache-dir={folder / 'cache'}", *arguments)
    process = _context.Process(target=_run, args=(program, arguments, output, tuple(faults)))
    process.start()
    _started.append(process)
    return Launch(process, output, folder / "logs" / "run")


def end_all() -> None:
    """Kill whatever a test has left running."""
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


def _run(program: str, arguments: Sequence[str], output: Path, faults: Sequence[Fault]) -> None:
    os.setsid()  # a group of its own, as a scheduler gives each job
    target = os.open(output, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(target, stream)
    os.close(target)
    torch.set_num_threads(1)
    for fault in faults:
        fault()
    module = main if program == "main" else __import__(program, fromlist=["main"])
    sys.exit(module.main(list(arguments)))


def _replace(owner: object, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    original = getattr(owner, name)
    setattr(owner, name, functools.wraps(original)(make(original)))


def say(text: str) -> None:
    """Say something in the launched process, at once and whole."""
    os.write(1, f"{text}\n".encode())


# --- Faults


def ignore_hangups() -> None:
    """Do what nohup does before it starts a program."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def tell_steps() -> None:
    """Say the clips of each step when it begins, and when it is done."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def run(self: TrainStep, step: int, batch: Any) -> Any:
            say(f"begins {step} {' '.join(batch.ids)}")
            outcome = original(self, step, batch)
            say(f"done {step}")
            return outcome

        return run

    _replace(TrainStep, "run", make)


def stretch_saves(seconds: float) -> None:
    """Let every file of a checkpoint take so long to reach the disk."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def fsync(descriptor: int) -> None:
            time.sleep(seconds)
            original(descriptor)

        return fsync

    _replace(files.os, "fsync", make)


def kill_in_step(step: int, micro_batch: int) -> None:
    """SIGKILL itself when the network is asked about a micro-batch (1 for the first) of a step."""
    from models.text_to_video import TextToVideoModel

    position = {"step": 0, "micro_batch": 0}

    def make_run(original: Callable[..., Any]) -> Callable[..., Any]:
        def run(self: TrainStep, number: int, batch: Any) -> Any:
            position.update(step=number, micro_batch=0)
            outcome = original(self, number, batch)
            position["step"] = 0
            return outcome

        return run

    def make_forward(original: Callable[..., Any]) -> Callable[..., Any]:
        def forward(*arguments: Any) -> Any:
            position["micro_batch"] += 1
            if position == {"step": step, "micro_batch": micro_batch}:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments)

        return forward

    _replace(TrainStep, "run", make_run)
    _replace(TextToVideoModel, "forward", make_forward)


def never_end(place: str) -> None:
    """Say "in PLACE" and then hang, in building, loading (from the ninth clip on), validating or sampling."""
    from training import build

    owner, name = {
        "building": (build, "build_learner"),
        "loading": (TrainingWords, "load"),
        "validating": (Validator, "run"),
        "sampling": (ClipSampler, "sample"),
    }[place]
    calls = []

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def hang(*arguments: Any, **options: Any) -> Any:
            calls.append(1)
            if place == "loading" and len(calls) < 9:
                return original(*arguments, **options)
            say(f"in {place}")
            while True:
                time.sleep(0.001)

        return hang

    _replace(owner, name, make)


def poison(place: str, value: float, steps: Sequence[int]) -> None:
    """Multiply something of each of these steps by NaN or infinity: one pixel of the batch, the loss, or a gradient."""
    position = {"step": 0}

    def make_run(original: Callable[..., Any]) -> Callable[..., Any]:
        def run(self: TrainStep, step: int, batch: Any) -> Any:
            position["step"] = step
            handle = None
            if step in steps and place == "batch":
                batch.video_BCTHW[1, 0, 2, 3, 4] *= value
            if step in steps and place == "gradient":
                parameter = next(self._model.parameters())
                handle = parameter.register_hook(lambda gradient: gradient * value)
            outcome = original(self, step, batch)
            if handle is not None:
                handle.remove()
            return outcome

        return run

    def make_loss(original: Callable[..., Any]) -> Callable[..., Any]:
        def loss(*arguments: Any) -> Any:
            terms = original(*arguments)
            is_poisoned = place == "loss" and position["step"] in steps
            return dataclasses.replace(terms, loss=terms.loss * value) if is_poisoned else terms

        return loss

    _replace(TrainStep, "run", make_run)
    _replace(TrainStep, "_loss", make_loss)


def ask_for_too_much_memory(place: str, call: int) -> None:
    """Let the allocator fail for real: in the forward or backward pass, the update, validation or sampling."""
    from models.text_to_video import TextToVideoModel
    from training.ema import ExponentialMovingAverage

    owner, name = {
        "forward": (TextToVideoModel, "forward"),
        "backward": (TextToVideoModel, "forward"),
        "update": (ExponentialMovingAverage, "update"),
        "validating": (Validator, "run"),
        "sampling": (ClipSampler, "sample"),
    }[place]
    calls = []
    steps = []

    def make_run(original: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            steps.append(1)
            return original(*arguments)

        return run

    def too_much(gradient: torch.Tensor | None = None) -> None:
        torch.empty(2**50)

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def greedy(self: Any, *arguments: Any, **options: Any) -> Any:
            if owner is TextToVideoModel and not (steps and self.training):
                return original(self, *arguments, **options)  # before the first step, validation, samples
            calls.append(1)
            if len(calls) == call and place != "backward":
                too_much()
            result = original(self, *arguments, **options)
            if len(calls) == call and place == "backward":
                result.register_hook(too_much)
            return result

        return greedy

    _replace(TrainStep, "run", make_run)
    _replace(owner, name, make)


def make_room_after_a_failed_save(ballast: Path) -> None:
    """Remove a file that takes up the disk as soon as a checkpoint has found no room."""
    from training import checkpoint_saver

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def save_checkpoint(*arguments: Any) -> Path:
            try:
                return original(*arguments)
            except OSError:
                ballast.unlink(missing_ok=True)
                raise

        return save_checkpoint

    _replace(checkpoint_saver, "save_checkpoint", make)
