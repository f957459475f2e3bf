"""How a training step grows with frames, pixels, batch and channels: python -m benchmarks.scaling

Times the trainer's own step in a process of its own for every setting, all settings in turn, and fits seconds = factor
* size ** exponent to each axis, and the same for peak memory. One thing varies at a time; the rest is as in the default
preset. Spatial attention stays at 8 x 8, or at the coarsest level where no level is that small. Attention heads have 16
channels at every width. Ctrl-C reports the complete alternations.
"""

import argparse
import dataclasses
import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from tempfile import TemporaryDirectory

from benchmarks import runner
from benchmarks.step_worker import Work, WorkPlan
from benchmarks.worker_process import TimeLimitError, WorkerError, run_worker, worker_command
from common.console import program
from compute.device import choose_device
from config import Config

STEPS, QUICK_STEPS = 4, 1
TIME_LIMIT_SECONDS = 180.0  # for a process
SPATIAL_ATTENTION_SIDE = 8
HEAD_CHANNELS = 16
"""The narrowest head that divides the channels at every width; the preset's own would not divide half of 96."""
FRAMES, PIXELS, BATCH, CHANNELS = "frames", "pixels of a frame", "clips of a batch", "times the channels"


@dataclass(frozen=True)
class Setting:
    """One point of an axis."""

    axis: str  # what varies
    label: str
    size: float  # the quantity that times and memory are fitted against
    options: tuple[str, ...]  # of main.py


def settings_of(
    frames: Sequence[int], sides: Sequence[int], batches: Sequence[int], widths: Sequence[float], *base: str
) -> list[Setting]:
    """Return the settings of all axes, each axis from its smallest size to its largest."""
    config = Config()
    settings = [Setting(FRAMES, str(count), count, (*base, f"--max-frames={count}")) for count in frames]
    for side in sides:
        # Attention at a fixed share of the image would grow with the square of the pixels, which is not how larger
        # presets are made: so it stays at the level that is 8 pixels wide, or else at the coarsest.
        levels = [side // (config.PATCH_SIZE * 2**level) for level in range(len(config.MODEL_CHANNELS))]
        attention = SPATIAL_ATTENTION_SIDE if SPATIAL_ATTENTION_SIDE in levels else levels[-1]
        options = (*base, f"--image-size={side}", f"--spatial-attention-sizes={attention}")
        settings.append(Setting(PIXELS, f"{side} x {side}", side**2, options))
    settings += [Setting(BATCH, str(count), count, (*base, f"--batch-size={count}")) for count in batches]
    for factor in widths:
        wide = ",".join(str(round(width * factor)) for width in config.MODEL_CHANNELS)
        options = (*base, f"--model-channels={wide}", f"--attention-head-channels={HEAD_CHANNELS}")
        settings.append(Setting(CHANNELS, f"x {factor:g}", factor, options))
    return settings


FULL = settings_of((8, 16, 32, 64), (16, 32, 64, 128), (1, 2, 4, 8, 16), (0.5, 1.0, 1.5, 2.0))
QUICK = settings_of((4, 8), (16, 32), (1, 2), (0.5, 1.0), "--max-frames=4", "--batch-size=1")


@program
def main(arguments: Sequence[str]) -> int:
    """Measure and print; return the exit code."""
    parser = runner.build_parser("scaling", __doc__, alternations=5, quick="two small settings an axis, once")
    options = parser.parse_args(arguments)
    return _run(options)


def _run(options: argparse.Namespace) -> int:
    machine = runner.machine_line()
    settings = QUICK if options.quick else FULL
    steps, alternations = (QUICK_STEPS, 1) if options.quick else (STEPS, options.alternations)
    with TemporaryDirectory() as cache:
        rounds = measure_settings(settings, alternations, steps, ("--device=cpu", f"--cache-dir={cache}"))
    figures = {
        "measurements": [
            {**dataclasses.asdict(setting), "found": [dataclasses.asdict(each) for each in found]}
            for setting, found in rounds.results.items()
        ],
        "skipped": {f"{setting.axis}: {setting.label}": str(error) for setting, error in rounds.failures.items()},
    }
    lines = [
        f"The trainer's own step, in {choose_device('cpu', Config().MIXED_PRECISION).precision}. {runner.MEMORY_NOTE} "
        "Median (smallest to largest) of the alternations, each setting in a process of its own. The exponents of "
        "memory are of what lies above the start of the process.",
        "",
        *report(settings, rounds),
    ]
    runner.publish(machine, lines, figures, options.json)
    return rounds.exit_code


def measure_settings(
    settings: Sequence[Setting], alternations: int, steps: int, options: tuple[str, ...]
) -> runner.Alternations[Setting, Work]:
    """Measure all settings in turn; those of an axis that are larger than a failed one are not tried.

    `options` are main.py's, for all settings.
    """
    failed: dict[str, Setting] = {}

    def measure(setting: Setting, number: int) -> Work:
        smaller = failed.get(setting.axis)
        if smaller is not None and setting.size > smaller.size:
            raise TimeLimitError(f"not tried: {smaller.label} was skipped")
        try:
            return measure_in_process(WorkPlan((*options, *setting.options), steps, threads=None, is_pinned=False))
        except WorkerError:
            failed[setting.axis] = setting
            raise

    return runner.alternate(settings, alternations, measure)


def measure_in_process(plan: WorkPlan) -> Work:
    """Carry out a plan in a process of its own."""
    command = worker_command("benchmarks.step_worker", dataclasses.asdict(plan))
    return Work(**run_worker(command, seconds=TIME_LIMIT_SECONDS))


def exponent_of(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Return the exponent of the power law through some points, by least squares between the logarithms.

    Raises:
        ValueError: fewer than two different sizes, or one of the numbers is not above 0.
    """
    return statistics.linear_regression(list(map(math.log, sizes)), list(map(math.log, values))).slope


def exponents(sizes: Sequence[float], rows: Sequence[Sequence[float]]) -> tuple[runner.Spread, runner.Spread]:
    """Return the exponent over all sizes and that between the two largest, where constant costs weigh least.

    Sizes grow, and each row holds the values of one size, one an alternation.
    """
    by_alternation = list(zip(*rows, strict=True))
    every = [exponent_of(sizes, values) for values in by_alternation]
    largest = [exponent_of(sizes[-2:], values[-2:]) for values in by_alternation]
    return runner.spread_of(every), runner.spread_of(largest)


def report(settings: Sequence[Setting], rounds: runner.Alternations[Setting, Work]) -> list[str]:
    """Return a table an axis, and the exponents of all; 1 is proportional growth."""
    lines: list[str] = []
    growth: list[list[str]] = []
    for axis in dict.fromkeys(setting.axis for setting in settings):
        of_axis = [setting for setting in settings if setting.axis == axis]
        measured = [setting for setting in of_axis if setting in rounds.results]
        lines += _axis_table(of_axis, rounds)
        if len(measured) < 2:
            growth.append([axis, "fewer than two settings could be measured"])
        else:
            sizes = [setting.size for setting in measured]
            seconds = [_seconds(rounds, setting) for setting in measured]
            memory = [[each.learner_gib for each in rounds.results[setting]] for setting in measured]
            found = (*exponents(sizes, seconds), *exponents(sizes, memory))
            growth.append([axis, *(each.text(2) for each in found)])
    head = ["size", "exponent of seconds", "of the two largest", "exponent of memory", "of the two largest"]
    return [*lines, *runner.table(head, growth)]


def _axis_table(settings: Sequence[Setting], rounds: runner.Alternations[Setting, Work]) -> list[str]:
    first = next((setting for setting in settings if setting in rounds.results), None)
    rows = []
    for setting in settings:
        if first is None or setting in rounds.failures:
            rows.append([setting.label, f"skipped: {rounds.failures[setting]}"])
            continue
        seconds = _seconds(rounds, setting)
        spread, measured = runner.spread_of(seconds), rounds.results[setting]
        rows.append(
            [
                setting.label,
                f"{measured[0].parameters / 1e6:.2f} M",
                spread.text(2, "s") if spread.median >= 1 else spread.text(0, "ms", 1000),
                runner.ratio_of(seconds, _seconds(rounds, first)).text(2),
                runner.spread_of([each.learner_gib for each in measured]).text(2, "GiB"),
            ]
        )
    ratio = f"ratio to {settings[0].label}"
    return runner.table([settings[0].axis, "parameters", "step", ratio, "peak memory above the start"], rows)


def _seconds(rounds: runner.Alternations[Setting, Work], setting: Setting) -> list[float]:
    return [each.step_seconds for each in rounds.results[setting]]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
