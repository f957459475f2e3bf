"""How a training step grows with frames, pixels, batch and channels: python -m benchmarks.scaling

Times the trainer's own step in a process of its own for every setting, all settings in turn, N times over; fits
seconds = factor * size ** exponent to each axis, and the same for peak memory; then profiles which part of a step takes
the time. One thing varies at a time, the rest is as in the default preset. Spatial attention stays at the level of
8 x 8, as in the preset; at 128 pixels, where no level is that small, it is at the coarsest, 16 x 16. For the channels,
attention heads have 16 channels at every width. Freed memory is kept as in a run of main.py. About ten minutes on two
cores; Ctrl-C ends it with a report of what there is so far.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.machine import MEMORY_NOTE, machine_line
from benchmarks.option_types import at_least_one, output_file, picture_file
from benchmarks.output import INTERRUPTED, save_figures, say
from benchmarks.scaling_axes import AXIS_NAMES, DEFAULT_PRESET, FULL_AXES, QUICK_AXES, QUICK_FRAMES, profile_options
from benchmarks.scaling_measure import AxisResult, measure_axes, result_as_json
from benchmarks.scaling_profile import Profile, profile_step
from benchmarks.scaling_report import axis_table, growth_table, profile_table, verdicts
from common.errors import UserError
from compute.device import choose_device
from compute.memory import keep_freed_memory
from config import Config

ALTERNATIONS, QUICK_ALTERNATIONS = 5, 1
PROFILED_STEPS, QUICK_PROFILED_STEPS = 5, 1


@dataclass(frozen=True)
class Figures:
    """All that one run of the benchmark found out."""

    machine: str
    axes: list[AxisResult]
    profiles: list[Profile]


def main(arguments: Sequence[str]) -> int:
    """Measure and print; return the exit code."""
    options = _parser().parse_args(arguments)
    if options.alternations is None:
        options.alternations = QUICK_ALTERNATIONS if options.quick else ALTERNATIONS
    chosen = [axis for axis in (QUICK_AXES if options.quick else FULL_AXES) if axis.name in options.axes]
    keep_freed_memory()  # for the profile, which is made in this process
    try:
        machine, profiles = machine_line(), _profiles(options.profile_image_size, quick=options.quick)
        axes, interrupted = measure_axes(chosen, options.alternations)
        figures = Figures(machine, axes, profiles)
        print("\n".join(_report(figures)))
        save_figures(options.json, _as_json(figures))
        if options.plot is not None:
            from benchmarks.scaling_plot import plot_scaling  # matplotlib is needed for this alone

            plot_scaling(figures.axes, options.plot)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # during the profile
        say("interrupted before any setting was measured")
        return INTERRUPTED
    if interrupted:
        return INTERRUPTED
    return 1 if any(point.is_crash for result in axes for point in result.points) else 0


def _profiles(side: int | None, *, quick: bool) -> list[Profile]:
    say("profile")
    steps = QUICK_PROFILED_STEPS if quick else PROFILED_STEPS
    title = f"one clip of {QUICK_FRAMES} frames" if quick else f"preset {DEFAULT_PRESET}"
    profiles = [profile_step(title, profile_options(None, quick=quick), steps)]
    if side is not None:
        profiles.append(profile_step(f"the same at {side} x {side}", profile_options(side, quick=quick), steps))
    return profiles


def _report(figures: Figures) -> list[str]:
    precision = choose_device("cpu", Config().MIXED_PRECISION).precision
    alternations = max((result.alternations for result in figures.axes), default=0)
    return [
        figures.machine,
        "",
        f"The trainer's own step, in {precision}. {MEMORY_NOTE} Median (smallest to largest) of {alternations} "
        "alternations, each setting in a process of its own. The power law of memory holds for what lies above the "
        "start of the process.",
        "",
        *(line for result in figures.axes for line in axis_table(result)),
        *growth_table(figures.axes),
        *verdicts(figures.axes),
        "",
        *profile_table(figures.profiles),
    ]


def _as_json(figures: Figures) -> dict[str, object]:
    return {
        "machine": figures.machine,
        "axes": [result_as_json(result) for result in figures.axes],
        "profiles": [dataclasses.asdict(profile) for profile in figures.profiles],
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--alternations", type=at_least_one, metavar="N", help="rounds of all settings (default 5)")
    parser.add_argument("--axes", nargs="+", choices=AXIS_NAMES, default=AXIS_NAMES, help="what to vary (default: all)")
    parser.add_argument("--profile-image-size", type=int, metavar="PIXELS", help="also profile the preset at this size")
    parser.add_argument("--quick", action="store_true", help="a small try: two small settings an axis, one alternation")
    parser.add_argument("--json", type=output_file, metavar="PATH", help="also write all figures to this file")
    parser.add_argument("--plot", type=picture_file, metavar="PATH", help="also draw the figures (png, svg or pdf)")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
