"""Batches a second from the loader, with different numbers of worker processes."""

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy

from benchmarks.clip_rates import CACHE_BYTES, VideoFiles, clip_shape, spelling
from benchmarks.spread import Spread, ratio_of, spread_of
from common.errors import UserError
from config import Config
from data.batches import PREFETCHED_BATCHES, training_batches
from data.cache import ClipCache
from data.clip_set import InspectedClips
from data.inspection import ClipReader
from data.media.decode import decode_media
from data.media.resample import ClipShape
from data.records import ClipRow, ClipSource
from data.rows import Media, UnusableClip
from models.build import build_tokenizer

RENDERED_FACTOR = 4  # so many times more batches of rendered words than of decoded files, which take longer ...
WARM_FACTOR = 40  # ... and of clips from the cache, so that each measurement takes long enough to be timed


@dataclass(frozen=True)
class LoaderRate:
    """How fast batches come from one source through so many workers."""

    source: str
    num_workers: int
    batches_per_second: Spread
    to_no_workers: Spread  # ratio of batches a second


@dataclass(frozen=True)
class UncachedClips:
    """Videos that are decoded at every load."""

    videos: VideoFiles
    shape: ClipShape

    def __len__(self) -> int:
        return len(self.videos.files)

    def row(self, epoch: int, index: int) -> ClipRow:
        row = self.videos.files[index].row
        return ClipRow(row.id, row.caption)

    def groups(self) -> None:
        return None

    @cached_property
    def _media(self) -> dict[str, Media]:
        return {clip.row.id: clip.row.media for clip in self.videos.files}

    def load(self, row: ClipRow) -> numpy.ndarray:
        try:
            return decode_media(self.videos.root, self._media[row.id], self.shape).pixels_THWC
        except UnusableClip as error:
            raise UserError(f"{self.videos.root / row.id} {error}") from error


def measure_loader_rates(
    videos: VideoFiles, batches: int, num_workers: Sequence[int], alternations: int, config: Config, folder: Path
) -> tuple[LoaderRate, ...]:
    """Time the loader over every source and every number of workers in turn.

    Args:
        videos: files that are decoded at every load, and read from the cache.
        batches: of BATCH_SIZE clips in one measurement of decoding; the others take the factors above more.
        num_workers: starts with 0, with which the others are compared.
        alternations: at least 1.
        config: NUM_FRAMES, IMAGE_SIZE, BATCH_SIZE, SEED and what describes the finger-spelling.
        folder: an empty folder for caches.

    Raises:
        UserError: there are fewer clips than one batch needs.
    """
    reader = ClipReader(videos.root, clip_shape(config), ClipCache(folder / "warm", CACHE_BYTES))
    for clip in videos.files:
        reader.clip(clip)
    uncached = UncachedClips(videos, clip_shape(config))
    rates: dict[tuple[str, int], list[float]] = {}
    for alternation in range(alternations):
        for workers in num_workers:
            fresh = spelling(config, folder / f"{alternation}-{workers}")  # nothing cached: every word is rendered
            sources: dict[str, tuple[int, ClipSource]] = {
                f"{videos.kind}, decoded at every load": (batches, uncached),
                f"{videos.kind}, warm cache": (batches * WARM_FACTOR, InspectedClips(reader, videos.files)),
                "finger-spelling, cold cache": (batches * RENDERED_FACTOR, fresh.training),
            }
            for name, (count, source) in sources.items():
                rates.setdefault((name, workers), []).append(_batches_per_second(source, count, workers, config))
    return tuple(
        LoaderRate(
            name,
            workers,
            spread_of(values),
            ratio_of(values, rates[name, num_workers[0]]),
        )
        for (name, workers), values in sorted(rates.items())
    )


def _batches_per_second(source: ClipSource, count: int, workers: int, config: Config) -> float:
    """Take batches as fast as they come; the first ones, for which the workers have to be started, do not count."""
    batches = training_batches(
        source,
        batch_size=config.BATCH_SIZE,
        seed=config.SEED,
        start_batch=0,
        num_workers=workers,
        tokenize=build_tokenizer(config, None),
    )
    with closing(batches):
        for _ in range(1 + PREFETCHED_BATCHES * workers):
            next(batches)
        start = time.perf_counter()
        for _ in range(count):
            next(batches)
        return count / (time.perf_counter() - start)
