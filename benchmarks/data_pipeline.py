"""How fast data comes, and what steps wait for it: python -m benchmarks.data_pipeline

Makes MP4 files of finger-spelled words and measures clips a second on one core against PyAV doing nothing but decoding;
then what the steps of real training runs wait for data, opened with a cold and with a warm cache, as the dashboard's
05_Performance says. Opening a folder for the first time decodes every video into the cache, so that its steps find it
warm. A third run finds a folder that was inspected and a cache whose clips were deleted: it decodes during the steps,
as finger-spelled words are rendered during the steps. Freed memory is kept as in a run of main.py. Further options are
main.py's.
"""

import argparse
import dataclasses
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import av
import torch

from benchmarks import runner
from common.errors import UserError
from common.randomness import numpy_generator
from common.settings import load_settings
from common.video_encoding import encode_mp4
from compute.memory import keep_freed_memory
from config import PRESETS, Config
from data.build import build_data
from data.fingerspelling.drawing import compose_word, random_style, render_word
from data.fingerspelling.source import load_letters
from data.media.files import PlainFile
from data.media.resample import ClipShape
from data.media.video import decode_video
from data.records import ClipSource
from main import main as train

SIGNED_LANGUAGE = "ase"  # its symbols are single letters, so any of them together make a word
LETTERS = (3, 6)  # of the shortest and the longest word
FRAMES_PER_SECOND = 25.0
WARM_ROUNDS = 10  # a clip from the cache takes so little that one round could not be timed well
STEP_TAG = "05_Performance/Step_Time_Seconds"
WAIT_TAG = "05_Performance/Data_Wait_Percent"
BARE, DECODED = "MP4: bare PyAV, all frames to RGB, not resized", "MP4: decode, resample, resize"
WARM_MP4, WARM_WORDS = "MP4: warm cache", "finger-spelling: warm cache"
RENDERED = "finger-spelling: cold cache (render, write)"
NEVER = ("diagnostic-log", "tensorboard-flush", "validate", "save", "sample")


@dataclass(frozen=True)
class Extent:
    """How much is measured."""

    clips: int
    size: tuple[int, int, int]  # width and height in even numbers, no higher than wide, and frames
    steps_per_block: int
    options: tuple[str, ...] = ()  # of main.py, before the user's


FULL = Extent(24, (320, 240, 60), 10)
QUICK = Extent(
    8, (64, 48, 12), 4, (*runner.SMALL_NETWORK, "--batch-size=2", "--sampling-steps=1", "--recogniser-steps=0")
)


@dataclass(frozen=True)
class DataWait:
    """What one run waited, by blocks of steps; the first one, in which the run warms up, is left out."""

    data: str
    cache: str  # "cold", "warm" or "emptied" when the data set was opened
    step_seconds: list[float]
    wait_percent: list[float]


def main(arguments: Sequence[str]) -> int:
    """Measure and print; return the exit code."""
    parser = runner.build_parser("data_pipeline", __doc__, alternations=5, quick="small clips, a small network")
    options, training_options = parser.parse_known_args(arguments)
    keep_freed_memory()
    return runner.run_command(lambda: _run(options, training_options))


def _run(options: argparse.Namespace, training_options: Sequence[str]) -> int:
    extent = QUICK if options.quick else FULL
    all_options = [*extent.options, *training_options]
    config = load_settings(Config, PRESETS, all_options, program="main.py").config
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = write_clips(folder / "clips", extent.clips, extent.size)
        runner.say("clips a second")
        rates = measure_clip_rates(clips, options.alternations, config, folder / "rates")
        waits = _waits(clips, extent.steps_per_block, options.alternations, all_options, folder)
    figures = {"clips_per_second": rates, "waits": [dataclasses.asdict(wait) for wait in waits]}
    runner.publish(runner.machine_line(), report(rates, waits), figures, options.json)
    return 0


def write_clips(folder: Path, clips: int, size: tuple[int, int, int]) -> Path:
    """Write finger-spelled words as H.264 MP4, each with its caption, into a new folder; return the folder."""
    folder.mkdir()
    width, height, frames = size
    _, letters = load_letters(SIGNED_LANGUAGE)
    symbols = sorted(letters)
    top = (width - height) // 2
    for number in range(clips):
        generator = numpy_generator(0, "benchmark_clip", number)
        count = int(generator.integers(LETTERS[0], LETTERS[1] + 1))
        word = [symbols[place] for place in generator.integers(0, len(symbols), count).tolist()]
        motion = compose_word([letters[symbol] for symbol in word], frames)
        video_THWC = render_word(motion, width, random_style(generator))[:, top : top + height]
        (folder / f"clip_{number:03}.mp4").write_bytes(encode_mp4(video_THWC, FRAMES_PER_SECOND))
        (folder / f"clip_{number:03}.txt").write_text("".join(word) + "\n", encoding="utf-8")
    return folder


def measure_clip_rates(clips: Path, alternations: int, config: Config, folder: Path) -> dict[str, list[float]]:
    """Return the clips a second of every way to get them, one value an alternation, on one core.

    Args:
        clips: a folder of MP4.
        alternations: at least 1.
        config: NUM_FRAMES, IMAGE_SIZE and what describes the finger-spelling.
        folder: a place for caches.
    """
    paths = sorted(clips.glob("*.mp4"))
    shape = ClipShape(config.NUM_FRAMES, config.IMAGE_SIZE, config.CLIP_FIT)
    opened = _open_training(config, clips, folder / "clips")  # which decodes all into the cache
    words = _open_training(config, None, folder / "words")
    _load(words, len(paths))

    def measure(way: str, number: int) -> float:
        rendered = _open_training(config, None, folder / str(number))  # an empty cache: every word is rendered
        work: dict[str, Callable[[], object]] = {
            BARE: lambda: [decode_all_frames(path) for path in paths],
            DECODED: lambda: [decode_video(PlainFile(path), shape) for path in paths],
            WARM_MP4: lambda: _load(opened, len(paths), WARM_ROUNDS),
            RENDERED: lambda: _load(rendered, len(paths)),
            WARM_WORDS: lambda: _load(words, len(paths), WARM_ROUNDS),
        }
        rounds = WARM_ROUNDS if way in (WARM_MP4, WARM_WORDS) else 1
        return rounds * len(paths) / runner.seconds_of(work[way])

    # FFmpeg and its converter of colours otherwise start a thread a core.
    threads, cores = torch.get_num_threads(), os.sched_getaffinity(0)
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {max(cores)})
    try:
        return runner.alternate([BARE, DECODED, WARM_MP4, RENDERED, WARM_WORDS], alternations, measure).complete()
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


def _waits(clips: Path, steps: int, blocks: int, options: Sequence[str], folder: Path) -> list[DataWait]:
    """Train on both kinds of data: the first run fills the cache that the second finds, and a third finds emptied."""
    waits = []
    runs = [("finger-spelling", "none", ("cold", "warm")), ("folder of MP4", str(clips), ("cold", "warm", "emptied"))]
    for data, root, caches in runs:
        for cache in caches:
            cache_folder = folder / f"cache of {data}"
            if cache == "emptied":
                for clip in cache_folder.rglob("*.npy"):
                    clip.unlink()
            runner.say(f"training: {data}, {cache} cache")
            run = folder / f"{data}, {cache}"
            all_options = [*options, f"--data-root={root}", f"--cache-dir={cache_folder}"]
            waits.append(DataWait(data, cache, *measure_waits(run, steps, blocks, all_options)))
    return waits


def measure_waits(
    folder: Path, steps_per_block: int, blocks: int, options: Sequence[str]
) -> tuple[list[float], list[float]]:
    """Train with main.py's options in an empty folder; return seconds a step, and percent that it waits, by block.

    Raises:
        UserError: the run did not come to its end.
    """
    steps = (1 + blocks) * steps_per_block + 1  # the first block warms up, and the last step makes videos
    arguments = [
        *options,
        *(f"--{name}-every-steps={10**9}" for name in NEVER),
        *(f"--log-dir={folder}", "--experiment-name=run", f"--log-every-steps={steps_per_block}"),
        *(f"--max-steps={steps}", "--max-minutes=none", "--num-epochs=none", "--enable-performance-profiling"),
        *("--no-enable-video-logging", "--no-enable-noise-visualization"),  # these take long and are not measured
    ]
    with redirect_stdout(sys.stderr):  # what a run says is progress here
        if train(arguments) != 0:
            raise UserError("the training came to no end")
    lines = (folder / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    points = [json.loads(line) for line in lines]
    seconds, waits = (
        [point["value"] for point in points if point["tag"] == tag and point["step"] > steps_per_block][:blocks]
        for tag in (STEP_TAG, WAIT_TAG)
    )
    return seconds, waits


def report(rates: dict[str, list[float]], waits: Sequence[DataWait]) -> list[str]:
    """Return the tables, in Markdown."""
    rate_rows = [
        [way, runner.spread_of(values).text(1), runner.ratio_of(values, rates[BARE]).text(2)]
        for way, values in rates.items()
    ]
    wait_rows = [
        [
            *(wait.data, wait.cache, runner.spread_of(wait.step_seconds).text(0, "ms", 1000)),
            runner.spread_of(wait.wait_percent).text(2, "%"),
        ]
        for wait in waits
    ]
    worst = max(percent for wait in waits if wait.cache == "warm" for percent in wait.wait_percent)
    return [
        f"Median (smallest to largest) of alternations, or of blocks of steps. {runner.MEMORY_NOTE}",
        "",
        *runner.table(["one process, one core", "clips a second", "ratio to bare PyAV"], rate_rows),
        *runner.table(["training on", "cache when opened", "step", "Data_Wait_Percent"], wait_rows),
        f"With a warm cache, steps wait for data at most {worst:.2f} % of the time of a block.",
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
