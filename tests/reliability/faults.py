"""Faults that are put around parts of the product in a launched process: the things that go wrong."""

import dataclasses
import functools
import hashlib
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

import data.inspection
import training.step
from common import files
from data.fingerspelling.source import TrainingWords
from diffusion.loss import DiffusionObjective
from sampling.sampler import ClipSampler
from tests.held_clock import HeldClock
from training.step import TrainStep
from training.validation import Validator


def replace_part(owner: object, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    original = getattr(owner, name)
    setattr(owner, name, functools.wraps(original)(make(original)))


def say(text: str) -> None:
    """Say something in the launched process, at once and whole."""
    os.write(1, f"{text}\n".encode())


def ignore_hangups() -> None:
    """Do what nohup does before it starts a program."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def tell_steps() -> None:
    """Say the clips of each step when it begins, and when it is done."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def run(self: TrainStep, step: int, batch: Any, *request: int) -> Any:
            say(f"begins {step} {','.join(batch.ids)}")
            outcome = original(self, step, batch, *request)
            say(f"done {step}")
            return outcome

        return run

    replace_part(TrainStep, "run", make)


def tell_weights() -> None:
    """Say a hash of weights and averaged weights after each step."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def run(self: TrainStep, step: int, batch: Any, *request: int) -> Any:
            outcome = original(self, step, batch, *request)
            content = hashlib.sha256()
            for parameter in (*self._shared.model.parameters(), *self._ema.model.parameters()):
                content.update(parameter.detach().contiguous().numpy().tobytes())
            say(f"weights {step} {content.hexdigest()}")
            return outcome

        return run

    replace_part(TrainStep, "run", make)


def train_by_plain_gradient_descent() -> None:
    """Replace AdamW, which makes large differences of the smallest gradients, by plain SGD."""
    from training import learner as build_learner
    from training.optimizer import build_adamw

    def build(*arguments: Any) -> torch.optim.Optimizer:
        groups = build_adamw(*arguments).param_groups
        kept = [{key: group[key] for key in ("params", "name")} for group in groups]
        return torch.optim.SGD(kept, lr=0.1, fused=True)

    build_learner.build_adamw = build


def count_reductions() -> None:
    """Say, at each step's end, how often DDP sent a bucket of gradients in it."""
    from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
    from torch.nn.parallel import DistributedDataParallel

    sent = []

    def hook(group: Any, bucket: torch.distributed.GradBucket) -> torch.futures.Future[torch.Tensor]:
        sent.append(1)
        return allreduce_hook(group, bucket)

    def make_init(original: Callable[..., Any]) -> Callable[..., Any]:
        def init(self: DistributedDataParallel, *arguments: Any, **options: Any) -> None:
            original(self, *arguments, **options)
            self.register_comm_hook(None, hook)

        return init

    def make_run(original: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            sent.clear()
            outcome = original(*arguments)
            say(f"sent {len(sent)}")
            return outcome

        return run

    replace_part(DistributedDataParallel, "__init__", make_init)
    replace_part(TrainStep, "run", make_run)


def tell_graphs() -> None:
    """Say after each step how many graphs torch.compile has made of the network so far."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            outcome = original(*arguments)
            say(f"graphs {torch._dynamo.utils.counters['stats']['unique_graphs']}")
            return outcome

        return run

    replace_part(TrainStep, "run", make)


def add_option(option: str) -> None:
    """Start with another option than the other processes."""
    import main

    replace_part(
        main,
        "load_settings",
        lambda original: lambda *arguments, **options: original(*arguments[:2], [*arguments[2], option], **options),
    )


def see_other_clips() -> None:
    """Divide the data in another way than the others do."""
    from training import build

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def build_data(*arguments: Any) -> Any:
            splits = original(*arguments)
            report = {**splits.summary.report, "held_out_words": ["ELSEWHERE"]}
            return dataclasses.replace(splits, summary=dataclasses.replace(splits.summary, report=report))

        return build_data

    replace_part(build, "build_data", make)


def work_by_a_held_clock(seconds: float) -> None:
    """Let a forward pass of a step take these seconds, and everything else none, by the clock of a process."""
    from distributed import rank_times as stopwatch
    from distributed.models import ReplicatedModel
    from training import loop

    clock = HeldClock()
    loop.time = stopwatch.time = clock

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            clock.now += seconds
            return original(*arguments)

        return call

    replace_part(ReplicatedModel, "__call__", make)


def wait_after_steps(every: int, was_read: Path) -> None:
    """Say when every N-th step is done, and go on once the folder has a file with the step's number."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def run(self: TrainStep, step: int, batch: Any, *request: int) -> Any:
            outcome = original(self, step, batch, *request)
            if step % every == 0:
                say(f"waits after {step}")
                while not (was_read / str(step)).exists():
                    time.sleep(0.001)
            return outcome

        return run

    replace_part(TrainStep, "run", make)


def stretch_saves(seconds: float) -> None:
    """Let every file of a checkpoint take so long to reach the disk."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def fsync(descriptor: int) -> None:
            time.sleep(seconds)
            original(descriptor)

        return fsync

    replace_part(files.os, "fsync", make)


def kill_in_step(step: int, micro_batch: int) -> None:
    """SIGKILL itself when the network is asked about a micro-batch (1 for the first) of a step."""
    from models.unet3d import TextToVideoModel

    position = {"step": 0, "micro_batch": 0}

    def make_run(original: Callable[..., Any]) -> Callable[..., Any]:
        def run(self: TrainStep, number: int, batch: Any, *request: int) -> Any:
            position.update(step=number, micro_batch=0)
            outcome = original(self, number, batch, *request)
            position["step"] = 0
            return outcome

        return run

    def make_forward(original: Callable[..., Any]) -> Callable[..., Any]:
        def forward(*arguments: Any, **options: Any) -> Any:
            position["micro_batch"] += 1
            if position == {"step": step, "micro_batch": micro_batch}:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **options)

        return forward

    replace_part(TrainStep, "run", make_run)
    replace_part(TextToVideoModel, "forward", make_forward)


def never_end(place: str) -> None:
    """Say "in PLACE" and then hang: in building (early or late), loading (from the ninth clip on) and so on."""
    from training import build
    from training import dashboard as build_dashboard

    owner, name = {
        "building": (build, "build_learner"),
        "building the view": (build_dashboard, "Showcase"),
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

    replace_part(owner, name, make)


def poison(place: str, value: float, steps: Sequence[int]) -> None:
    """Multiply something of each of these steps by NaN or infinity: one pixel of a video, the loss, or a gradient."""
    assert place in ("video", "loss", "gradient"), place
    position = {"step": 0}

    def make_run(original: Callable[..., Any]) -> Callable[..., Any]:
        def run(self: TrainStep, step: int, batch: Any, *request: int) -> Any:
            position["step"] = step
            handle = None
            if step in steps and place == "gradient":
                parameter = next(self._shared.model.parameters())
                handle = parameter.register_hook(lambda gradient: gradient * value)
            outcome = original(self, step, batch, *request)
            position["step"] = 0  # validation has a loss of its own
            if handle is not None:
                handle.remove()
            return outcome

        return run

    def make_video(original: Callable[..., Any]) -> Callable[..., Any]:
        def video(clips: Any) -> Any:
            made = original(clips)
            if place == "video" and position["step"] in steps:
                made[1, 0, 2, 3, 4] *= value
            return made

        return video

    def make_loss(original: Callable[..., Any]) -> Callable[..., Any]:
        def loss(*arguments: Any) -> Any:
            terms = original(*arguments)
            is_poisoned = place == "loss" and position["step"] in steps
            return dataclasses.replace(terms, loss=terms.loss * value) if is_poisoned else terms

        return loss

    replace_part(TrainStep, "run", make_run)
    replace_part(training.step, "as_video", make_video)
    replace_part(DiffusionObjective, "loss", make_loss)


def poison_weight(name: str, steps: Sequence[int]) -> None:
    """Let one number of a parameter be NaN in these steps."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def run(self: TrainStep, step: int, batch: Any, *request: int) -> Any:
            if step in steps:
                with torch.no_grad():
                    parameter = self._shared.model.get_parameter(name)
                    parameter[(0,) * parameter.ndim] = float("nan")
            return original(self, step, batch, *request)

        return run

    replace_part(TrainStep, "run", make)


def ask_for_too_much_memory(place: str, call: int) -> None:
    """Let the allocator fail for real: in the forward or backward pass, the update, validation or sampling."""
    from models.unet3d import TextToVideoModel
    from training.optimizer import ExponentialMovingAverage

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
                result[0].register_hook(too_much)  # of the prediction
            return result

        return greedy

    replace_part(TrainStep, "run", make_run)
    replace_part(owner, name, make)


def make_room_after_a_failed_save(ballast: Path) -> None:
    """Remove a file that takes up the disk as soon as a checkpoint has found no room."""
    from checkpoints import saver as checkpoint_saver

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def save_checkpoint(*arguments: Any) -> Path:
            try:
                return original(*arguments)
            except OSError:
                ballast.unlink(missing_ok=True)
                raise

        return save_checkpoint

    replace_part(checkpoint_saver, "save_checkpoint", make)


def stretch_start_of_workers(seconds: float) -> None:
    """Take a while after each loader worker that is started, and say so."""
    from multiprocessing.process import BaseProcess

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def start(self: Any) -> None:
            original(self)
            say("started a worker")
            time.sleep(seconds)

        return start

    replace_part(BaseProcess, "start", make)


def fail_in_statistics(call: int) -> None:
    """Raise from a part of a step that has nothing to do with the weights."""
    calls = []

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def gather(*arguments: Any) -> Any:
            calls.append(1)
            if len(calls) == call:
                raise ValueError("a fault of the program itself")
            return original(*arguments)

        return gather

    replace_part(TrainStep, "_gather", make)


def fail_saves_slowly(seconds: float) -> None:
    """Let every checkpoint fail after a while."""
    from checkpoints import saver as checkpoint_saver

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def save(*arguments: Any) -> Any:
            time.sleep(seconds)
            raise OSError(5, "Input/output error")

        return save

    replace_part(checkpoint_saver, "save_checkpoint", make)


def encode_slowly(seconds: float) -> None:
    """Let every video take a while to encode."""
    from logging_system.files import writer

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def encode(*arguments: Any) -> Any:
            say("encodes")
            time.sleep(seconds)
            return original(*arguments)

        return encode

    replace_part(writer, "encode_gif", make)


def ask_for_too_much_memory_while_building() -> None:
    """Let the allocator fail for real before there is anything to train."""
    from training import learner as build_learner

    replace_part(build_learner, "build_adamw", lambda original: lambda *arguments, **options: torch.empty(2**50))


def slow_decoding(seconds: float, held_from: str = "", gate: Path | None = None) -> None:
    """Say which clip an inspection decodes, and take long for it; from one clip on, wait until there is a gate file."""
    is_held = threading.Event()

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def run(root: Path, media: Any, shape: Any) -> Any:
            say(f"decoding {media.path}")
            if media.path == held_from:
                is_held.set()
            while is_held.is_set() and gate is not None and not gate.exists():
                time.sleep(0.001)
            time.sleep(seconds)
            return original(root, media, shape)

        return run

    replace_part(data.inspection, "decode_media", make)


def remove_after_step(step: int, *paths: Path) -> None:
    """Remove files and folders when a step is done."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def run(self: TrainStep, number: int, batch: Any, *request: int) -> Any:
            outcome = original(self, number, batch, *request)
            if number == step:
                for path in paths:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            return outcome

        return run

    replace_part(TrainStep, "run", make)
