"""Clips a second from each kind of source, on one core, next to what PyAV takes for nothing but decoding."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
import torch

from benchmarks.spread import Spread, ratio_of, spread_of
from common.errors import UserError
from config import Config
from data.build import build_data, inspect_data
from data.cache import ClipCache
from data.clip_set import name_skipped
from data.inspection import ClipReader, InspectedClip
from data.media.decode import decode_media
from data.media.resample import ClipShape
from data.records import DataSplits

WARM_ROUNDS = 10  # a clip from the cache takes so little that one round could not be timed well
CACHE_BYTES = 10**12  # nothing is ever evicted
FLOOR = "bare PyAV, all frames to RGB, not resized"


@dataclass(frozen=True)
class VideoFiles:
    """The usable files of one kind."""

    kind: str  # for people
    root: Path
    files: tuple[InspectedClip, ...]


@dataclass(frozen=True)
class ClipRate:
    """How fast clips come from one source."""

    source: str
    clips_per_second: Spread
    to_bare_pyav: Spread  # ratio of clips a second, above 1 where the source is faster


@dataclass(frozen=True)
class _Way:
    """One way to get clips: call `run` to get all of them once."""

    source: str
    floor: str  # the source that it is compared with
    clips: int
    run: Callable[[], None]


def find_videos(kind: str, root: Path, config: Config, folder: Path) -> VideoFiles:
    """Look for the usable videos of a folder; `folder` is a place for a cache.

    Raises:
        UserError: there is none.
    """
    changes = {"DATA_ROOT": root, "DATA_FORMAT": "auto", "CACHE_DIR": folder, "CACHE_LIMIT_GB": CACHE_BYTES / 1e9}
    inspection, reader = inspect_data(config.model_copy(update=changes))
    videos = tuple(
        clip for clip in inspection.usable if clip.row.media.kind == "video" and clip.row.media.member is None
    )
    if not videos:
        raise UserError(f"{root}: no video can be used: {name_skipped(inspection.skipped)}")
    return VideoFiles(kind, reader.root, videos)


def clip_shape(config: Config) -> ClipShape:
    """Return the shape of the clips that a training with this config has."""
    return ClipShape(config.NUM_FRAMES, config.IMAGE_SIZE, config.CLIP_FIT)


def measure_clip_rates(
    videos: Sequence[VideoFiles], spelled_clips: int, alternations: int, config: Config, folder: Path
) -> tuple[ClipRate, ...]:
    """Time every source in turn, `alternations` times after one round to warm up.

    Args:
        videos: at least one kind of files; finger-spelling is compared with bare PyAV on the first.
        spelled_clips: finger-spelled clips in one round.
        alternations: at least 1.
        config: NUM_FRAMES, IMAGE_SIZE and what describes the finger-spelling.
        folder: an empty folder for caches.
    """
    rates: dict[str, list[float]] = {}
    with one_core():
        for alternation in range(alternations + 1):
            ways = _ways(videos, spelled_clips, config, folder / str(alternation))
            for way in ways:
                start = time.perf_counter()
                way.run()
                seconds = time.perf_counter() - start
                if alternation > 0:
                    rates.setdefault(way.source, []).append(way.clips / seconds)
    return tuple(
        ClipRate(
            way.source,
            spread_of(rates[way.source]),
            ratio_of(rates[way.source], rates[way.floor]),
        )
        for way in ways
    )


@contextmanager
def one_core() -> Iterator[None]:
    """Keep this process to one core, where the system can do that, and PyTorch to one thread.

    FFmpeg and its converter of colours otherwise start a thread a core, and the floor would not be that of one thread.
    """
    threads = torch.get_num_threads()
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_setaffinity") else None
    torch.set_num_threads(1)
    try:
        if cores is not None:
            os.sched_setaffinity(0, {max(cores)})
        yield
    finally:
        if cores is not None:
            os.sched_setaffinity(0, cores)
        torch.set_num_threads(threads)


def bare_pyav(path: Path) -> int:
    """Decode all frames to uint8 [H, W, 3] and throw them away; return how many there were."""
    frames = 0
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            frame.to_ndarray(format="rgb24")
            frames += 1
    return frames


def spelling(config: Config, folder: Path) -> DataSplits:
    """Open the finger-spelled words of a config with the cache in `folder`."""
    changes = {"DATA_ROOT": None, "CACHE_DIR": folder, "CACHE_LIMIT_GB": CACHE_BYTES / 1e9}
    return build_data(config.model_copy(update=changes))


def _ways(videos: Sequence[VideoFiles], spelled_clips: int, config: Config, folder: Path) -> list[_Way]:
    """Return all ways in order. A way that reads from the cache comes after the one that fills it."""
    ways = [way for kind in videos for way in _file_ways(kind, config, folder / kind.kind)]
    splits = spelling(config, folder / "spelling")
    rows = [splits.training.row(0, index % len(splits.training)) for index in range(spelled_clips)]
    floor = f"{videos[0].kind}: {FLOOR}"

    def load(rounds: int) -> None:
        for _ in range(rounds):
            for row in rows:
                splits.training.load(row)

    ways.append(_Way("finger-spelling: cold cache (render, write)", floor, len(rows), lambda: load(1)))
    warm = len(rows) * WARM_ROUNDS
    ways.append(_Way("finger-spelling: warm cache", floor, warm, lambda: load(WARM_ROUNDS)))
    return ways


def _file_ways(videos: VideoFiles, config: Config, folder: Path) -> list[_Way]:
    reader = ClipReader(videos.root, clip_shape(config), ClipCache(folder, CACHE_BYTES))
    paths = [videos.root / clip.row.media.path for clip in videos.files]
    count, floor = len(paths), f"{videos.kind}: {FLOOR}"

    def bare() -> None:
        for path in paths:
            bare_pyav(path)

    def decode() -> None:
        for clip in videos.files:
            decode_media(videos.root, clip.row.media, reader.shape)

    def read(rounds: int) -> None:
        for _ in range(rounds):
            for file in videos.files:
                reader.clip(file)

    kinds: Mapping[str, tuple[int, Callable[[], None]]] = {
        FLOOR: (count, bare),
        "decode, resample, resize": (count, decode),
        "cold cache (the same, write)": (count, lambda: read(1)),
        "warm cache": (count * WARM_ROUNDS, lambda: read(WARM_ROUNDS)),
    }
    return [_Way(f"{videos.kind}: {name}", floor, clips, run) for name, (clips, run) in kinds.items()]
