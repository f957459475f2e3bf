"""How fast data comes, and what steps wait for it: python -m benchmarks.data_pipeline [--alternations N] [--json PATH]

Makes MP4 and GIF files of finger-spelled words, or takes yours (--clips FOLDER), and measures clips a second on one
core against PyAV doing nothing but decoding; then batches a second from the loader; then what the steps of real
training runs wait for data, opened with a cold and with a warm cache. Opening a folder for the first time decodes every
video into the cache, so that its steps find it warm. A third run finds a folder that was inspected and a cache whose
clips were deleted: it decodes during the steps, as finger-spelled words are rendered during the steps. Freed memory is
kept as in a run of main.py. Further options are main.py's.
"""

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.clip_files import ClipSize, write_clip_folders
from benchmarks.clip_rates import ClipRate, VideoFiles, find_videos, measure_clip_rates
from benchmarks.data_wait import DataWait, RunPlan, measure_data_wait
from benchmarks.loader_rates import LoaderRate, measure_loader_rates
from benchmarks.machine import MEMORY_NOTE, machine_line
from benchmarks.option_types import at_least_one, output_file
from benchmarks.output import save_figures, say
from benchmarks.spread import Spread
from common.errors import UserError
from common.settings import load_settings
from compute.memory import keep_freed_memory
from config import PRESETS, Config

NUM_WORKERS = (0, 1, 2)
MOST_WAIT_PERCENT = 2.0
EMPTIED = "emptied"


@dataclasses.dataclass(frozen=True)
class Extent:
    """How much is measured."""

    clips: int
    clip_size: ClipSize
    spelled_clips: int
    loader_batches: int
    steps_per_block: int
    options: tuple[str, ...]  # of main.py, before the user's


FULL = Extent(24, ClipSize(320, 240, 60), 100, 12, 10, ())
QUICK = Extent(
    clips=8,
    clip_size=ClipSize(64, 48, 12),
    spelled_clips=8,
    loader_batches=2,
    steps_per_block=4,
    options=(
        *("--image-size=16", "--num-frames=4", "--batch-size=2", "--model-channels=16", "--spatial-attention-sizes=8"),
        *("--attention-head-channels=16", "--text-channels=16", "--text-layers=1", "--text-heads=1"),
        *("--validation-clips=2", "--sampling-steps=1", "--recogniser-steps=0"),
    ),
)


@dataclasses.dataclass(frozen=True)
class Figures:
    """Everything that was measured."""

    machine: str
    clips: tuple[ClipRate, ...]
    loader: tuple[LoaderRate, ...]
    waits: tuple[DataWait, ...]


def main(arguments: Sequence[str]) -> int:
    """Measure and print; return the exit code."""
    options, training_options = _parser().parse_known_args(arguments)
    keep_freed_memory()
    extent = QUICK if options.quick else FULL
    alternations = options.alternations if options.alternations is not None else 2 if options.quick else 5
    machine = machine_line()
    try:
        with tempfile.TemporaryDirectory() as folder:
            figures = measure(
                extent, alternations, options.clips, [*extent.options, *training_options], machine, Path(folder)
            )
        print("\n".join(report(figures, alternations)))
        save_figures(options.json, dataclasses.asdict(figures))
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def measure(
    extent: Extent, alternations: int, clips: Path | None, options: Sequence[str], machine: str, folder: Path
) -> Figures:
    """Measure everything in `folder`, which is empty.

    Raises:
        UserError: an option cannot work, or the folder `clips` holds too few videos.
    """
    config = load_settings(Config, PRESETS, list(options), program="main.py").config
    if clips is None:
        say(f"writing {extent.clips} clips")
        roots = write_clip_folders(folder, extent.clips, extent.clip_size)
    else:
        roots = {"clips": clips}
    videos = [find_videos(kind, root, config, folder / f"found-{kind}") for kind, root in roots.items()]
    say("clips a second")
    clip_rates = measure_clip_rates(videos, extent.spelled_clips, alternations, config, folder / "rates")
    say("batches a second")
    loader_rates = measure_loader_rates(
        videos[0], extent.loader_batches, NUM_WORKERS, alternations, config, folder / "loader"
    )
    plan = RunPlan(extent.steps_per_block, alternations)
    return Figures(machine, clip_rates, loader_rates, tuple(_waits(videos[0], plan, options, folder)))


def _waits(videos: VideoFiles, plan: RunPlan, options: Sequence[str], folder: Path) -> list[DataWait]:
    """Train on both kinds of data: the first run fills the cache that the second finds, and a third finds emptied."""
    waits = []
    sources = {"finger-spelling": "--data-root=none", f"folder of {videos.kind}": f"--data-root={videos.root}"}
    for number, (name, option) in enumerate(sources.items()):
        cache_folder = folder / f"run-{number}"
        for cache in ("cold", "warm") if option == "--data-root=none" else ("cold", "warm", EMPTIED):
            if cache == EMPTIED:
                for clip in cache_folder.rglob("*.npy"):
                    clip.unlink()
            say(f"training: {name}, {cache} cache")
            run = folder / f"run-{number}-{cache}"
            waits.append(measure_data_wait(name, cache, plan, run, [*options, option], cache_folder=cache_folder))
    return waits


def report(figures: Figures, alternations: int) -> list[str]:
    """Return the lines to print, in Markdown."""
    worst = max(wait.clocked_percent.largest for wait in figures.waits if wait.cache == "warm")
    verdict = "kept" if worst < MOST_WAIT_PERCENT else "missed"
    return [
        figures.machine,
        "",
        f"Median (smallest to largest) of {alternations} alternations, or blocks of steps. {MEMORY_NOTE}",
        "",
        "| one process, one core | clips a second | ratio to bare PyAV |",
        "|---|---|---|",
        *(f"| {r.source} | {_cell(r.clips_per_second)} | {_cell(r.to_bare_pyav)} |" for r in figures.clips),
        "",
        "| loader | NUM_WORKERS | batches a second | ratio to NUM_WORKERS 0 |",
        "|---|---|---|---|",
        *(
            f"| {r.source} | {r.num_workers} | {_cell(r.batches_per_second)} | {_cell(r.to_no_workers)} |"
            for r in figures.loader
        ),
        "",
        "| training on | cache when opened | opened in | step | Data_Wait_Percent | by an own clock | longest wait |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {w.data} | {w.cache} | {w.opening_seconds:.2f} s | {w.step_seconds.text(0, 'ms', 1000)} | "
            f"{w.logged_percent.text(2, '%')} | {w.clocked_percent.text(2, '%')} | "
            f"{1000 * w.longest_wait_seconds:.1f} ms |"
            for w in figures.waits
        ),
        "",
        "Opening a folder for the first time decodes every video into the cache, so its steps have a warm one. Where "
        f"the cache was {EMPTIED}, the videos are known to be good and are decoded during the steps, once each. "
        "Finger-spelled words are rendered during the steps.",
        f"With a warm cache, steps wait for data less than {MOST_WAIT_PERCENT:g} % of their time: {verdict} (worst "
        f"block {worst:.2f} %).",
    ]


def _cell(spread: Spread) -> str:
    """Return median and extremes with three significant digits or whole numbers."""
    digits = 0 if spread.median >= 100 else 1 if spread.median >= 10 else 2
    return spread.text(digits)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data_pipeline", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--alternations", type=at_least_one, metavar="N", help="rounds, and blocks of steps (default 5)"
    )
    parser.add_argument("--clips", type=Path, help="folder of your own videos with captions")
    parser.add_argument("--quick", action="store_true", help="a small try: small clips, a small network")
    parser.add_argument("--json", type=output_file, metavar="PATH", help="also write all figures to this file")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
