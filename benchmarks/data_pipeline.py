"""How fast data comes: python -m benchmarks.data_pipeline

Makes MP4 files of finger-spelled words and measures clips a second on one core against PyAV doing nothing but decoding.
What the steps of a run wait for data is on its dashboard (05_Performance/Data_Wait_Percent). Further options are
main.py's.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import av
import torch

from benchmarks import runner
from common.console import program
from common.randomness import numpy_generator
from common.settings import load_settings
from common.video_encoding import encode_mp4
from compute.memory import keep_freed_memory
from config import PRESETS, Config
from data.build import build_data
from data.fingerspelling.drawing import compose_word, random_style, render_word
from data.fingerspelling.source import load_letters
from data.fingerspelling.timing import spelled_time, time_letters
from data.lengths import clip_lengths
from data.media.files import PlainFile
from data.media.resample import ClipShape
from data.media.video import decode_video
from data.records import ClipSource

SIGNED_LANGUAGE = "ase"  # its symbols are single letters, so any of them together make a word
LETTERS = (3, 6)  # of the shortest and the longest word
FRAMES_PER_SECOND = 25.0
WARM_ROUNDS = 10  # a clip from the cache takes so little that one round could not be timed well
BARE, DECODED = "MP4: bare PyAV, all frames to RGB, not resized", "MP4: decode, resample, resize"
WARM_MP4, RENDERED = "MP4: warm cache", "finger-spelling: render"
FULL, QUICK = (24, 320, 240, 60), (8, 64, 48, 12)
"""Clips, their width and height in even numbers, no higher than wide, and their frames."""


@program
def main(arguments: Sequence[str]) -> int:
    """Measure and print; return the exit code."""
    parser = runner.build_parser("data_pipeline", __doc__, alternations=5, quick="small clips")
    options, training_options = parser.parse_known_args(arguments)
    keep_freed_memory()
    return _run(options, training_options)


def _run(options: argparse.Namespace, training_options: Sequence[str]) -> int:
    config = load_settings(Config, PRESETS, list(training_options), program="main.py").config
    with tempfile.TemporaryDirectory() as name:
        clips = write_clips(Path(name) / "clips", *(QUICK if options.quick else FULL))
        rates = measure_clip_rates(clips, options.alternations, config, Path(name) / "rates")
    runner.publish(runner.machine_line(), report(rates), {"clips_per_second": rates}, options.json)
    return 0


def write_clips(folder: Path, clips: int, width: int, height: int, frames: int) -> Path:
    """Write finger-spelled words as H.264 MP4, each with its caption, into a new folder; return the folder."""
    folder.mkdir()
    _, letters = load_letters(SIGNED_LANGUAGE)
    symbols = sorted(letters)
    top = (width - height) // 2
    for number in range(clips):
        generator = numpy_generator(0, "benchmark_clip", number)
        count = int(generator.integers(LETTERS[0], LETTERS[1] + 1))
        word = [symbols[place] for place in generator.integers(0, len(symbols), count).tolist()]
        timing = time_letters(spelled_time(word, letters), frames)
        motion = compose_word([letters[symbol] for symbol in word], timing)
        video_THWC = render_word(motion, (width, width), random_style(generator))[:, top : top + height]
        (folder / f"clip_{number:03}.mp4").write_bytes(encode_mp4(video_THWC, FRAMES_PER_SECOND))
        (folder / f"clip_{number:03}.txt").write_text("".join(word) + "\n", encoding="utf-8")
    return folder


def measure_clip_rates(clips: Path, alternations: int, config: Config, folder: Path) -> dict[str, list[float]]:
    """Return the clips a second of every way to get them, one value an alternation, on one core.

    `clips` is a folder of MP4, and `folder` a place for caches.
    """
    paths = sorted(clips.glob("*.mp4"))
    shape = ClipShape(clip_lengths(config), config.IMAGE_SIZE, config.CLIP_FIT)
    opened = _open_training(config, clips, folder / "clips")  # which decodes all into the cache
    words = _open_training(config, None, folder / "words")

    def measure(way: str, number: int) -> float:
        work: dict[str, Callable[[], object]] = {
            BARE: lambda: [decode_all_frames(path) for path in paths],
            DECODED: lambda: [decode_video(PlainFile(path), shape) for path in paths],
            WARM_MP4: lambda: _load(opened, len(paths), WARM_ROUNDS),
            RENDERED: lambda: _load(words, len(paths)),
        }
        rounds = WARM_ROUNDS if way == WARM_MP4 else 1
        return rounds * len(paths) / runner.seconds_of(work[way])

    # FFmpeg and its converter of colours otherwise start a thread a core.
    threads, cores = torch.get_num_threads(), os.sched_getaffinity(0)
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {max(cores)})
    try:
        return runner.alternate([BARE, DECODED, WARM_MP4, RENDERED], alternations, measure).complete()
    finally:
        os.sched_setaffinity(0, cores)
        torch.set_num_threads(threads)


def _open_training(config: Config, root: Path | None, cache: Path) -> ClipSource:
    changes = {"DATA_ROOT": root, "CACHE_DIR": cache}
    return build_data(config.model_copy(update=changes)).training


def _load(source: ClipSource, count: int, rounds: int = 1) -> None:
    """Load the first clips of a source, as many as asked for, once a round."""
    for _ in range(rounds):
        for index in range(count):
            source.load(source.row(0, index % len(source)))


def decode_all_frames(path: Path) -> int:
    """Decode all frames to uint8 [H, W, 3] and throw them away; return how many there were."""
    frames = 0
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            frame.to_ndarray(format="rgb24")
            frames += 1
    return frames


def report(rates: Mapping[str, Sequence[float]]) -> list[str]:
    """Return the table, in Markdown."""
    rows = [
        [way, runner.spread_of(values).text(1), runner.ratio_of(values, rates[BARE]).text(2)]
        for way, values in rates.items()
    ]
    return [
        f"Median (smallest to largest) of alternations. {runner.MEMORY_NOTE}",
        "",
        *runner.table(["one process, one core", "clips a second", "ratio to bare PyAV"], rows),
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
