"""Seconds a clip and quality of every sampler: python -m benchmarks.sampling --run logs/NAME

Takes the averaged weights of a trained run. Times every sampler at several numbers of steps from pure noise, in turn,
and compares what comes out with real clips; then lets each of them clean real held-out clips that were noised to 80 %
of the timesteps, and reports the error. Freed memory is kept as in a run of main.py. Options: --steps N ...,
--alternations N, --clips N (held-out clips), --quick, --device NAME, --json PATH, --plot PATH.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from benchmarks.machine import MEMORY_NOTE, machine_line
from benchmarks.option_types import at_least_one, output_file, picture_file
from benchmarks.output import save_figures, say
from benchmarks.sampling_measures import (
    CLIPS_AT_ONCE,
    Denoising,
    Generation,
    GuidanceCost,
    OneShot,
    measure_denoising,
    measure_generation,
    measure_guidance,
    measure_one_shot,
)
from benchmarks.sampling_run import START_SHARE, Cell, SampledRun, open_run
from common.errors import UserError
from compute.device import DeviceName
from compute.memory import keep_freed_memory
from diffusion.samplers import SamplerName
from sampling.trained_run import MAKE_A_RUN

QUICK_STEPS, QUICK_ALTERNATIONS, QUICK_CLIPS = (2, 4), 2, 2
MILLISECONDS = 1000.0


@dataclass(frozen=True)
class SamplingFigures:
    """All that one run of the benchmark found out."""

    machine: str
    run: str
    generations: list[Generation]
    denoisings: list[Denoising]  # the same cells in the same order
    one_shot: list[OneShot]  # the last where the denoising starts
    guidance: GuidanceCost | None  # None where the run samples without guidance


def main(arguments: Sequence[str]) -> int:
    """Measure and print; return the exit code."""
    options = _parser().parse_args(arguments)
    if options.quick:
        options.steps, options.alternations, options.clips = QUICK_STEPS, QUICK_ALTERNATIONS, QUICK_CLIPS
    keep_freed_memory()
    try:
        run = _open(options.run, options.device, options.clips)
        figures = _measure(run, _cells(run, options.steps), options.alternations, options.run)
        print("\n".join(_report(run, figures, options.alternations)))
        save_figures(options.json, dataclasses.asdict(figures))
        if options.plot is not None:
            from benchmarks.sampling_plot import plot_sampling

            plot_sampling(
                figures.generations, figures.denoisings, run.default, run.settings.guidance.scale, options.plot
            )
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sampling", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, help="folder of a trained run, such as logs/my_run")
    parser.add_argument("--steps", type=at_least_one, nargs="+", default=(4, 8, 12, 25, 50), metavar="N")
    parser.add_argument("--alternations", type=at_least_one, default=5, metavar="N", help="rounds of all cells")
    parser.add_argument("--clips", type=at_least_one, default=8, metavar="N", help="held-out clips (default 8)")
    parser.add_argument("--quick", action="store_true", help="a small try: few steps, clips and alternations")
    parser.add_argument("--device", choices=get_args(DeviceName), default="auto")
    parser.add_argument("--json", type=output_file, metavar="PATH", help="also write all figures to this file")
    parser.add_argument(
        "--plot", type=picture_file, metavar="PATH", help="also draw quality against seconds (png, svg or pdf)"
    )
    return parser


def _open(folder: Path | None, device: DeviceName, held_out_clips: int) -> SampledRun:
    if folder is None:
        raise UserError(f"--run is missing, because samplers need a trained network: {MAKE_A_RUN}")
    return open_run(folder, device, held_out_clips)


def _cells(run: SampledRun, steps: Sequence[int]) -> list[Cell]:
    """Return every sampler with every number of steps, the run's own number included."""
    wanted = sorted({*steps, run.default.steps})
    most = run.start_timestep + 1
    if wanted[-1] > most:
        raise UserError(f"--steps {wanted[-1]}: at most {most}, which is {START_SHARE:.0%} of NUM_TRAIN_TIMESTEPS")
    return [Cell(sampler, count) for sampler in get_args(SamplerName) for count in wanted]


def _measure(run: SampledRun, cells: Sequence[Cell], alternations: int, folder: Path) -> SamplingFigures:
    say(f"step {run.step} of {folder}: {len(cells)} ways to sample, from pure noise, {alternations} times each")
    generations = measure_generation(run, cells, alternations)
    say(f"cleaning {len(run.clips.captions)} held-out clips in every way, without guidance and with it")
    denoisings = measure_denoising(run, cells)
    say("one-shot estimates, and the cost of guidance")
    return SamplingFigures(
        machine=machine_line(),
        run=f"{folder}, step {run.step}",
        generations=generations,
        denoisings=denoisings,
        one_shot=measure_one_shot(run),
        guidance=None if run.settings.guidance.scale == 1 else measure_guidance(run, alternations),
    )


def _report(run: SampledRun, figures: SamplingFigures, alternations: int) -> list[str]:
    config, scale = run.config, run.settings.guidance.scale
    clips = len(run.clips.captions)
    return [
        figures.machine,
        "",
        f"Clips of 3 x {config.NUM_FRAMES} x {config.IMAGE_SIZE} x {config.IMAGE_SIZE}, guidance {scale:g}, "
        f"{run.compute.precision}, {CLIPS_AT_ONCE} clips at once, {alternations} alternations. {MEMORY_NOTE} "
        "Median (smallest to largest); a call with guidance has every clip twice. The ratio is to "
        f"the run's own choice ({run.default}), pair by pair. x0 errors: {clips} held-out clips, noised to timestep "
        f"{run.start_timestep} of {config.NUM_TRAIN_TIMESTEPS} and cleaned again.",
        "",
        *_cell_table(figures, scale),
        "",
        "Error of the network's clean estimate from one call, on the same clips:",
        "",
        *_one_shot_table(figures.one_shot),
        "",
        *_guidance_lines(figures.guidance, run.default),
    ]


def _cell_table(figures: SamplingFigures, scale: float) -> list[str]:
    lines = [
        "| sampler | steps | network calls | ms a clip | ratio | motion energy / real | sharpness / real "
        f"| x0 MSE, no guidance | x0 MSE, guidance {scale:g} | distance to heun, most steps |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for generation, denoising in zip(figures.generations, figures.denoisings, strict=True):
        columns = (
            generation.cell.sampler,
            str(generation.cell.steps),
            str(generation.network_calls),
            generation.seconds_spread.text(0, factor=MILLISECONDS),
            generation.ratio_to_default.text(2),
            _number(generation.motion_energy_ratio),
            _number(generation.sharpness_ratio),
            f"{denoising.x0_mse:.4f}",
            f"{denoising.x0_mse_guided:.4f}",
            f"{denoising.distance_to_reference:.4f}",
        )
        lines.append(f"| {' | '.join(columns)} |")
    return lines


def _number(value: float | None) -> str:
    return "real clips are flat" if value is None else f"{value:.2f}"


def _one_shot_table(estimates: Sequence[OneShot]) -> list[str]:
    return [
        "| timestep | " + " | ".join(str(estimate.timestep) for estimate in estimates) + " (start) |",
        "|---" * (len(estimates) + 1) + "|",
        "| x0 MSE | " + " | ".join(f"{estimate.x0_mse:.4f}" for estimate in estimates) + " |",
    ]


def _guidance_lines(cost: GuidanceCost | None, default: Cell) -> list[str]:
    if cost is None:
        return ["Guidance was not timed: the run's GUIDANCE_SCALE is 1, which is no guidance."]
    return [
        f"| {default} | ms a clip |",
        "|---|---|",
        f"| no guidance: one caption a call | {cost.without.text(0, factor=MILLISECONDS)} |",
        f"| guidance: with and without caption in one call | {cost.guided.text(0, factor=MILLISECONDS)} |",
        f"| ratio | {cost.ratio.text(2)} |",
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
