"""How fast data comes, and what clips of mixed lengths cost: python -m benchmarks.data_pipeline [--lengths]

Makes MP4 files of finger-spelled words and measures clips a second on one core against PyAV doing nothing but decoding.

With --lengths, it runs main.py on a list of clips of 1 to 8 seconds with --max-frames=96 and --batch-size=8. There are
as many shorter clips as give every length as many steps. The first epoch, one step of each length, is not counted.
Further options are main.py's.
"""

import argparse
import csv
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import av
import torch

from benchmarks import runner
from benchmarks.evaluated_rows import run_process
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
from data.order import BatchCounts
from data.records import ClipSource

SIGNED_LANGUAGE = "ase"  # its symbols are single letters, so any of them together make a word
LETTERS = (3, 6)  # of the shortest and the longest word
FRAMES_PER_SECOND = 25.0
WARM_ROUNDS = 10  # a clip from the cache takes so little that one round could not be timed well
BARE, DECODED = "MP4: bare PyAV, all frames to RGB, not resized", "MP4: decode, resample, resize"
WARM_MP4, RENDERED = "MP4: warm cache", "finger-spelling: render"
FULL, QUICK = (24, 320, 240, 60), (8, 64, 48, 12)
"""Clips, their width and height in even numbers, no higher than wide, and their frames."""
SECONDS = range(1, 9)  # of the clips of the list
SPREAD = 4  # frames of a file that a clip is longer or shorter at most: nearly as much as leaves its length in training
LIST_SIZE = (64, 48)
LIST_OPTIONS = ("--max-frames=96", "--batch-size=8")
QUIET = (
    *("--no-enable-video-logging", "--no-enable-noise-visualization", "--max-minutes=none", "--log-every-steps=1"),
    *("--validate-every-steps=1000000", "--save-every-steps=1000000"),
)
POINTS = "05_Performance/"


@program
def main(arguments: Sequence[str]) -> int:
    """Measure and print; return the exit code."""
    parser = runner.build_parser("data_pipeline", __doc__, alternations=5, quick="small clips")
    parser.add_argument("--lengths", action="store_true", help="measure training on clips of mixed lengths instead")
    options, training_options = parser.parse_known_args(arguments)
    keep_freed_memory()
    return _run(options, training_options)


def _run(options: argparse.Namespace, training_options: Sequence[str]) -> int:
    with tempfile.TemporaryDirectory() as name:
        if options.lengths:
            cost = measure_lengths(Path(name), options.alternations, [*LIST_OPTIONS, *training_options])
            lines, figures = report_lengths(cost), asdict(cost)
        else:
            config = load_settings(Config, PRESETS, list(training_options), program="main.py").config
            clips, *size, frames = QUICK if options.quick else FULL
            folder = write_clips(Path(name) / "clips", [frames] * clips, *size)
            rates = measure_clip_rates(folder, options.alternations, config, Path(name) / "rates")
            lines, figures = report(rates), {"clips_per_second": rates}
    runner.publish(runner.machine_line(), lines, figures, options.json)
    return 0


def write_clips(folder: Path, frames_of_clips: Sequence[int], width: int, height: int) -> Path:
    """Write finger-spelled words as H.264 MP4, each with its caption, into a new folder; return the folder."""
    folder.mkdir()
    _, letters = load_letters(SIGNED_LANGUAGE)
    symbols = sorted(letters)
    top = (width - height) // 2
    for number, frames in enumerate(frames_of_clips):
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


@dataclass(frozen=True)
class Step:
    """A training step, as a run's 05_Performance has it."""

    frames: int  # of each clip
    clips: int
    seconds: float  # waiting for data included
    waited: float  # seconds


@dataclass(frozen=True)
class LengthsCost:
    """What clips of mixed lengths cost."""

    frames: int  # that the clips of an epoch have
    stretched: float  # of these, how many are more or fewer than the clips' durations would take
    steps: list[Step]


def measure_lengths(folder: Path, epochs: int, options: Sequence[str]) -> LengthsCost:
    """Train on a list of clips of SECONDS: an epoch that is not counted, and as many as asked for.

    `folder` is a place for clips, caches and logs, and `options` are main.py's.
    """
    command = [*options, f"--data-root={folder / 'clips/manifest.csv'}", f"--cache-dir={folder / 'cache'}"]
    config = load_settings(Config, PRESETS, command, program="main.py").config
    _write_list(folder / "clips", config)
    training = build_data(config).training
    rows = [training.row(0, index) for index in range(len(training))]
    steps_of_epoch = BatchCounts(training.lengths(), config.frames_per_step).until_end_of(0)
    runner.say(f"{(1 + epochs) * steps_of_epoch} steps on {len(rows)} clips")
    where = (f"--log-dir={folder / 'logs'}", "--experiment-name=run", f"--max-steps={(1 + epochs) * steps_of_epoch}")
    run_process(["main.py", *command, *where, *QUIET])
    return LengthsCost(
        frames=sum(row.frames for row in rows),
        stretched=sum(abs(row.frames - row.seconds * config.FRAMES_PER_SECOND) for row in rows),
        steps=steps_of(runner.points_of(folder / "logs/run"))[steps_of_epoch:],
    )


def _write_list(folder: Path, config: Config) -> None:
    """Write clips of which each length fills a batch, one more of each length to hold out, and their list."""
    lengths = clip_lengths(config)
    train = [seconds for seconds in SECONDS for _ in range(config.frames_per_step // lengths.of(seconds))]
    frames = [
        round(seconds * FRAMES_PER_SECOND) + number % (2 * SPREAD + 1) - SPREAD
        for number, seconds in enumerate([*train, *SECONDS])
    ]
    paths = sorted(write_clips(folder, frames, *LIST_SIZE).glob("*.mp4"))
    with (folder / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "text", "split"])
        for number, path in enumerate(paths):
            split = "train" if number < len(train) else "val"
            rows.writerow([path.name, path.with_suffix(".txt").read_text(encoding="utf-8").strip(), split])


def steps_of(points: Mapping[str, Sequence[float]]) -> list[Step]:
    """Return the steps of a run that logged every one of them, from its points by tag."""
    names = ("Step_Time_Seconds", "Data_Wait_Percent", "Samples_Per_Second", "Frames_Per_Second")
    return [
        Step(round(frames / clips), round(clips * seconds), seconds, seconds * waited / 100)
        for seconds, waited, clips, frames in zip(*(points[POINTS + name] for name in names), strict=True)
    ]


def report_lengths(cost: LengthsCost) -> list[str]:
    """Return what mixed lengths cost, and the step of each length as a table in Markdown."""
    by_length = {
        frames: [step for step in cost.steps if step.frames == frames]
        for frames in sorted({step.frames for step in cost.steps})
    }
    medians = [statistics.median(step.seconds for step in steps) for steps in by_length.values()]
    sizes = [frames * steps[0].clips for frames, steps in by_length.items()]
    waited, lasted = sum(step.waited for step in cost.steps), sum(step.seconds for step in cost.steps)
    rows = []
    for frames, steps in by_length.items():
        numbers = (frames, steps[0].clips, frames * steps[0].clips, len(steps))
        rows.append([*map(str, numbers), runner.spread_of([step.seconds for step in steps]).text(2, "s")])
    return [
        f"padding: none; stretched: {100 * cost.stretched / cost.frames:.2f} % of {cost.frames} frames",
        f"waiting for data: {100 * waited / lasted:.2f} % of {lasted:.0f} s",
        f"the longest median step above the shortest: {100 * (max(medians) / min(medians) - 1):.1f} % in time, "
        f"{100 * (max(sizes) / min(sizes) - 1):.1f} % in frames",
        "",
        *runner.table(["frames of a clip", "clips", "frames of a step", "steps", "step"], rows),
    ]


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
