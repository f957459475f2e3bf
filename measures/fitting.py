"""Trains the networks that judge clips, and keeps what it has trained next to the cached clips."""

import hashlib
import json
import logging
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from common.console import SECONDS_BETWEEN_LINES
from common.files import write_atomically
from common.randomness import derive_seed, numpy_generator
from data.batches import prepared
from data.records import ClipRow, ClipSource, as_video, to_pixels
from measures.recogniser import whole_frames

LEARNING_RATE = 2e-3
WARMUP_STEPS = 50
WEIGHT_DECAY = 0.01
LARGEST_GRADIENT = 1.0
FOLDER = "recognisers"  # in CACHE_DIR
MOST_BYTES = 256e6  # of the clips that are kept in memory: those of a larger data set are drawn
CPU = torch.device("cpu")

Network = TypeVar("Network", bound=nn.Module)
Item = TypeVar("Item")

_log = logging.getLogger(__name__)


def fit(
    network: Network,
    items: Dataset[Item],
    loss: Callable[[Network, int, Item], Tensor],
    steps: int,
    seed: int,
    on_step: Callable[[int, float], None] | None = None,
    *,
    num_workers: int = 0,
) -> Network:
    """Train a network by AdamW and return it in evaluation mode; PyTorch's global generator is left as it was.

    Args:
        network: with its first weights, on its device.
        items: what each step is trained on, by its number from 1 on.
        loss: of the network, the step and its item; a scalar.
        steps: how long.
        seed: of the processes that make items.
        on_step: receives (step, loss), step 1 first.
        num_workers: processes that make the items of the next steps; the items do not depend on it.
    """
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    numbers = range(1, steps + 1)
    with closing(prepared(items, numbers, num_workers, seed)) as batches:
        for step, item in zip(numbers, batches, strict=True):
            found = loss(network, step, item)
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(found)
            nn.utils.clip_grad_norm_(network.parameters(), LARGEST_GRADIENT)
            optimizer.step()
            schedule.step()
            if on_step is not None:
                on_step(step, found.item())
    return network.eval().requires_grad_(False)


def _rate(step: int, steps: int) -> float:
    """Rise over the warm-up, then fall to zero along a straight line."""
    warmup = min(WARMUP_STEPS, steps)
    return min((step + 1) / warmup, (steps - step) / max(1, steps - warmup))


def first_weights(build: Callable[[], Network], seed: int, purpose: str) -> Network:
    """Return a network whose weights the seed and the purpose draw; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, purpose))
        return build()


def progress(steps: int, name: str, beginning: str) -> Callable[[int, float], None]:
    """Return what says on the console why a run does not begin yet: receives (step, loss)."""
    reported = time.monotonic()

    def report(step: int, loss: float) -> None:
        nonlocal reported
        if step == 1:
            print(f"{beginning}; it is kept in CACHE_DIR for later runs.")
        elif time.monotonic() - reported > SECONDS_BETWEEN_LINES or step == steps:
            print(f"{name}: step {step} of {steps}, loss {loss:.3f}", flush=True)
        else:
            return
        reported = time.monotonic()

    return report


def key_of(*parts: object) -> str:
    """Return a file name that depends on JSON-compatible values: all that a network depends on."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def open_fitted(
    name: str,
    key: str,
    build: Callable[[], Network],
    train: Callable[[], Network],
    cache_folder: Path,
    device: torch.device,
) -> Network:
    """Return a network in evaluation mode on the device, from the cache or freshly trained.

    One that the CPU has trained is used everywhere. One that another device has trained is used there alone, so that
    what a run on the CPU measures does not depend on what else has filled the cache. Where the cache cannot be written,
    this is logged, and the next run trains again.

    Args:
        name: for people, such as "recogniser".
        key: everything that it depends on, from `key_of`.
        build: returns it with any weights.
        train: trains it on the device.
        cache_folder: CACHE_DIR.
        device: where it is trained and used.
    """
    names = [key] if device.type == "cpu" else [key, f"{key}-{device.type}"]
    paths = [cache_folder / FOLDER / f"{each}.safetensors" for each in names]
    for path in paths:
        stored = _read(name, path, build)
        if stored is not None:
            return stored.to(device)
    network = train()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, safetensors.torch.save(network.state_dict()))
    except OSError as error:
        _log.warning("The %s cannot be kept in %s (%s): the next run trains it again.", name, path.parent, error)
    return network


def _read(name: str, path: Path, build: Callable[[], Network]) -> Network | None:
    """Return a stored network; None if there is none or it is damaged."""
    with torch.device("meta"):  # without initial weights, which would be drawn from the global generator
        network = build()
    try:
        network.load_state_dict(safetensors.torch.load_file(path), assign=True)
    except FileNotFoundError:
        return None
    except (OSError, safetensors.SafetensorError, RuntimeError) as error:
        _log.warning("The stored %s %s cannot be used and is trained again: %s", name, path, error)
        return None
    return network.eval().requires_grad_(False)


@dataclass(frozen=True)
class SmallClips:
    """Clips of any source, averaged down to `measures.recogniser.WHOLE_SIDE`."""

    rows: tuple[ClipRow, ...]
    pixels: tuple[Tensor, ...]  # uint8 [T, h, w, 3] each

    @cached_property
    def digest(self) -> str:
        """What depends on every pixel and every caption."""
        found = hashlib.sha256()
        for row, clip in zip(self.rows, self.pixels, strict=True):
            found.update(json.dumps([row.caption, clip.shape]).encode())
            found.update(clip.numpy().tobytes())
        return found.hexdigest()


def small_clips(source: ClipSource, seed: int) -> SmallClips:
    """Load the clips of a source's first epoch, or so many, drawn by the seed, that they fit in MOST_BYTES.

    Raises:
        UserError: a clip's file has gone.
    """
    rows, pixels, size = [], [], 0
    for index in numpy_generator(seed, "small_clips").permutation(len(source)).tolist():
        row = source.row(0, index)
        frames_TCHW = whole_frames(as_video(torch.from_numpy(source.load(row))))
        clip = torch.from_numpy(to_pixels(frames_TCHW.transpose(0, 1)))
        rows.append(row)
        pixels.append(clip)
        size += clip.nbytes
        if size > MOST_BYTES:
            break
    return SmallClips(tuple(rows), tuple(pixels))
