"""What the host of a GPU does for a step beside launching kernels: prepare the batch, draw the noise, pin both.

It is measured here as a run does it, on one thread, as torchrun gives a process no more. What counts is the time that
this thread works, not the clock, so that other programs on the machine matter less. Pinning (`ComputeDevice.send`)
needs a GPU; a copy to memory that is there already stands in for it.
"""

import statistics
import time
from collections.abc import Callable

import numpy
import torch

from common.randomness import torch_generator
from common.settings import load_settings
from compute.memory import keep_freed_memory
from config import PRESETS, Config
from data.batches import load_batch
from data.records import ClipRow
from models.build import build_tokenizer

REPEATS = 7
_ROWS = "ABCDEFGH"


class _ReadyClips:
    """Clips that are in memory already: loading and decoding them is the work of other processes (NUM_WORKERS)."""

    def __init__(self, clip: numpy.ndarray, count: int) -> None:
        self._clip = clip
        self._count = count

    def __len__(self) -> int:
        return self._count

    def row(self, epoch: int, index: int) -> ClipRow:
        return ClipRow(str(index), _ROWS[index % len(_ROWS)])

    def groups(self) -> None:
        return None

    def load(self, row: ClipRow) -> numpy.ndarray:
        return self._clip


def host_seconds_a_clip(preset: str) -> float:
    """Measure what is done for a preset's batch, and return the seconds of a clip of it."""
    config = load_settings(Config, PRESETS, [f"--preset={preset}"], program="main.py").config
    tokenizer = build_tokenizer(config, None)
    shape = (config.NUM_FRAMES, config.IMAGE_SIZE, config.IMAGE_SIZE, 3)
    clip = numpy.random.default_rng(0).integers(0, 256, shape, numpy.uint8)
    source = _ReadyClips(clip, config.BATCH_SIZE)
    pinned = torch.empty(2, config.BATCH_SIZE, shape[-1], *shape[:-1])
    rows = [source.row(0, index) for index in range(len(source))]

    def work() -> None:
        video_BCTHW = load_batch(source, rows, tokenizer).video_BCTHW
        noise = torch.empty(video_BCTHW.shape)
        for place, own in enumerate(noise):
            own.normal_(generator=torch_generator(config.SEED, "training_noise", 1, place))
        for copy, tensor in zip(pinned, (video_BCTHW, noise), strict=True):
            copy.copy_(tensor)

    keep_freed_memory()
    return _typical_thread_seconds(work) / config.BATCH_SIZE


def _typical_thread_seconds(work: Callable[[], None]) -> float:
    """Return the median time that one thread works, after a first time that does not count."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        work()
        return statistics.median(_thread_seconds(work) for _ in range(REPEATS))
    finally:
        torch.set_num_threads(threads)


def _thread_seconds(work: Callable[[], None]) -> float:
    start = time.thread_time()
    work()
    return time.thread_time() - start
