"""Seconds a clip and sharpness of every sampler: python -m benchmarks.sampling --run logs/NAME

Takes the averaged weights of a trained run. Times every sampler at several numbers of steps from pure noise, in turn,
compares what comes out with real held-out clips, and times what guidance costs.
"""

import argparse
import dataclasses
import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from torch import Tensor

from benchmarks import runner
from common.console import program
from compute.device import DeviceName
from compute.memory import keep_freed_memory
from data.build import build_data
from data.records import FixedClips
from diffusion.guidance import Guidance
from diffusion.samplers import SamplerName
from measures.clips import motion_energy, ratio_to_real, sharpness
from sampling.sampler import ClipSampler, SamplingSettings
from sampling.trained_run import SamplingRequest, TrainedRun, open_trained_run
from training.validation import load_fixed_clips

STEPS, QUICK_STEPS = (4, 8, 12, 25, 50), (2, 4)
HELD_OUT_CLIPS = 8
CLIPS_AT_ONCE = 2
NO_GUIDANCE = Guidance(1.0)


@dataclass(frozen=True)
class Cell:
    """One way to sample."""

    sampler: SamplerName
    steps: int
    is_guided: bool = True

    def __str__(self) -> str:
        return f"{self.sampler}, {self.steps} steps"


@dataclass(frozen=True)
class SampledRun:
    """The averaged weights of a run's newest checkpoint, with held-out clips of its data."""

    trained: TrainedRun
    settings: SamplingSettings  # what the run's own config says about sampling
    clips: FixedClips

    @property
    def default(self) -> Cell:
        return Cell(self.settings.sampler, self.settings.num_steps)

    def generate(self, cell: Cell, first: int, count: int) -> list[Tensor]:
        """Sample clips from pure noise, as long as the real ones: [3, T, H, W] float32 on the CPU each.

        Clip number `first` and those after it have noises of their own, and the captions of the held-out clips in turn.
        """
        guidance = self.settings.guidance if cell.is_guided else NO_GUIDANCE
        settings = dataclasses.replace(self.settings, sampler=cell.sampler, num_steps=cell.steps, guidance=guidance)
        sampler = ClipSampler(settings, self.trained.tokenizer, self.trained.compute)
        rows = [self.clips.rows[index] for index in self.real_indices(first, count)]
        noises = [sampler.initial_noise(row.frames, 0, first + place) for place, row in enumerate(rows)]
        return sampler.sample(self.trained.model, [row.caption for row in rows], noises, seed=first)

    def real_indices(self, first: int, count: int) -> list[int]:
        """Return which held-out clips have the captions of the generated ones."""
        return [index % len(self.clips.rows) for index in range(first, first + count)]


@dataclass(frozen=True)
class Generation:
    """Clips from pure noise, made in one way."""

    cell: Cell
    network_calls: int  # a clip; with guidance each is one with twice the clips, not two
    seconds: list[float]  # a clip, one an alternation
    motion_energy_ratio: float | None  # to real clips: 1 is right, None where those are flat
    sharpness_ratio: float | None


@program
def main(arguments: Sequence[str]) -> int:
    """Measure and print; return the exit code."""
    parser = runner.build_parser("sampling", __doc__, alternations=5, quick="few steps, two alternations")
    parser.add_argument("--run", type=Path, required=True, help="folder of a trained run, such as logs/my_run")
    parser.add_argument("--steps", type=runner.at_least_one, nargs="+", default=STEPS, metavar="N")
    parser.add_argument("--device", choices=get_args(DeviceName), default="auto")
    options = parser.parse_args(arguments)
    if options.quick:
        options.steps, options.alternations = QUICK_STEPS, 2
    keep_freed_memory()
    return _run(options)


def _run(options: argparse.Namespace) -> int:
    run = open_run(options.run, options.device, HELD_OUT_CLIPS)
    steps = sorted({*options.steps, run.default.steps})
    cells = [Cell(sampler, count) for sampler in get_args(SamplerName) for count in steps]
    runner.say(f"step {run.trained.step} of {options.run}: {len(cells)} ways to sample")
    unguided = dataclasses.replace(run.default, is_guided=False)
    generations = measure(run, [*cells, unguided], options.alternations)
    config, precision = run.trained.config, run.trained.compute.precision
    height, width = config.IMAGE_SIZE
    lines = [
        f"Clips of 3 x {config.MAX_FRAMES} x {height} x {width}, guidance "
        f"{run.settings.guidance.scale:g}, {precision}, {CLIPS_AT_ONCE} clips at once, {options.alternations} "
        f"alternations. {runner.MEMORY_NOTE} Median (smallest to largest); a call with guidance has every clip twice. "
        f"The ratio is to the run's own choice ({run.default}), pair by pair; the last row is that choice without "
        "guidance.",
        "",
        *cell_table(generations, run.default),
    ]
    figures = {
        "run": f"{options.run}, step {run.trained.step}",
        "generations": [dataclasses.asdict(generation) for generation in generations],
    }
    runner.publish(runner.machine_line(), lines, figures, options.json)
    return 0


def open_run(folder: Path, device: DeviceName, held_out_clips: int) -> SampledRun:
    """Load a run, with as many of its held-out clips as asked for, or all if it has fewer."""
    run = open_trained_run(SamplingRequest(run=folder, device=device))
    validation = build_data(run.config).validation
    return SampledRun(run, run.sampler.settings, load_fixed_clips(validation, run.tokenizer, held_out_clips))


def measure(run: SampledRun, cells: Sequence[Cell], alternations: int) -> list[Generation]:
    """Sample from pure noise with every cell in turn, the run's own default among them, `alternations` times.

    Every alternation takes further captions and noises, the same ones for every cell.
    """
    calls: dict[Cell, int] = {}
    made: dict[Cell, list[list[Tensor]]] = {cell: [] for cell in cells}
    called: list[None] = []  # an entry for every call of the network, whatever a sampler does in a step

    def sample(cell: Cell, number: int) -> float:
        called.clear()
        first = number * CLIPS_AT_ONCE
        seconds = runner.seconds_of(lambda: made[cell].append(run.generate(cell, first, CLIPS_AT_ONCE)))
        calls[cell] = len(called)
        return seconds / CLIPS_AT_ONCE

    run.generate(run.default, 0, CLIPS_AT_ONCE)  # a first call prepares memory and kernels
    handle = run.trained.model.register_forward_hook(lambda *_: called.append(None))
    seconds = runner.alternate(cells, alternations, sample).complete()
    handle.remove()
    generations = []
    for cell, found in seconds.items():
        clips = list(itertools.chain.from_iterable(made[cell][: len(found)]))
        real = [run.clips.videos[index] for index in run.real_indices(0, len(clips))]
        looks = (ratio_to_real(motion_energy, clips, real), ratio_to_real(sharpness, clips, real))
        generations.append(Generation(cell, calls[cell], found, *looks))
    return generations


def cell_table(generations: Sequence[Generation], default: Cell) -> list[str]:
    """Return one row a way to sample; ratios of seconds are to `default`, pair by pair."""
    seconds = next(generation.seconds for generation in generations if generation.cell == default)
    head = ["sampler", "steps", "guided", "network calls", "ms a clip", "ratio", "motion energy / real"]
    rows = [
        [
            generation.cell.sampler,
            str(generation.cell.steps),
            "yes" if generation.cell.is_guided else "no",
            str(generation.network_calls),
            runner.spread_of(generation.seconds).text(0, factor=1000),
            runner.ratio_of(generation.seconds, seconds).text(2),
            *(_ratio(value) for value in (generation.motion_energy_ratio, generation.sharpness_ratio)),
        ]
        for generation in generations
    ]
    return runner.table([*head, "sharpness / real"], rows)


def _ratio(value: float | None) -> str:
    return "real clips are flat" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
