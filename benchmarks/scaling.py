"""How a training step grows with frames, pixels, batch and channels: python -m benchmarks.scaling

Times the trainer's own step in a process of its own for every setting, all settings in turn, N times over; fits
seconds = factor * size ** exponent to each axis, and the same for peak memory; then profiles which part of a step takes
the time. One thing varies at a time, the rest is as in the default preset. Spatial attention stays at the level of
8 x 8, as in the preset; at 128 pixels, where no level is that small, it is at the coarsest, 16 x 16. For the channels,
attention heads have 16 channels at every width. Freed memory is kept as in a run of main.py. About ten minutes on two
cores; Ctrl-C ends it with a report of the complete alternations.
"""

import argparse
import dataclasses
import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import (
    MEMORY_NOTE,
    PALETTE,
    Alternations,
    Spread,
    alternate,
    build_parser,
    machine_line,
    publish,
    ratio_of,
    run_command,
    say,
    spread_of,
    table,
)
from benchmarks.scaling_profile import profile_step
from benchmarks.scaling_worker import Measurement
from benchmarks.worker_process import TimeLimitError, WorkerError, run_worker, worker_command
from config import PRESETS, Config
from training.allocator import keep_freed_memory
from training.device import choose_device

PROFILED_STEPS = 5
TIME_LIMIT_SECONDS = 180.0  # for a process, which makes at least two steps
SPATIAL_ATTENTION_SIDE = 8
HEAD_CHANNELS = 16
"""The narrowest head that divides the channels at every width; the preset's own would not divide half of 96."""
PRESET = next(iter(PRESETS))
FULL_OPTIONS = (f"--preset={PRESET}", "--device=cpu")
QUICK_OPTIONS = (*FULL_OPTIONS, "--num-frames=4", "--batch-size=1")
QUANTITIES = {
    "frames": "frames",
    "pixels": "pixels of a frame",
    "batch": "clips of a batch",
    "channels": "times the channels",
}
LINEAR_AXES = ("frames", "pixels")


@dataclass(frozen=True)
class Setting:
    """One point of an axis.

    Attributes:
        axis: a key of QUANTITIES.
        label: what a table calls it.
        size: the quantity that times and memory are fitted against.
        options: of main.py.
    """

    axis: str
    label: str
    size: float
    options: tuple[str, ...]


def settings_of(
    frames: Sequence[int], sides: Sequence[int], batches: Sequence[int], widths: Sequence[float], base: tuple[str, ...]
) -> list[Setting]:
    """Return the settings of all axes, each axis from its smallest size to its largest.

    Attention at a fixed share of the image would grow with the square of the pixels, which is not how larger presets
    are made either: so it stays at the level that is 8 pixels wide.
    """
    channels = Config().MODEL_CHANNELS
    settings = [Setting("frames", str(count), count, (*base, f"--num-frames={count}")) for count in frames]
    for side in sides:
        options = (*base, f"--image-size={side}", f"--spatial-attention-sizes={_attention_side(side)}")
        settings.append(Setting("pixels", f"{side} x {side}", side**2, options))
    settings += [Setting("batch", str(count), count, (*base, f"--batch-size={count}")) for count in batches]
    for factor in widths:
        wide = ",".join(str(round(width * factor)) for width in channels)
        options = (*base, f"--model-channels={wide}", f"--attention-head-channels={HEAD_CHANNELS}")
        settings.append(Setting("channels", f"x {factor:g}", factor, options))
    return settings


def _attention_side(side: int) -> int:
    config = Config()
    levels = [side // (config.PATCH_SIZE * 2**level) for level in range(len(config.MODEL_CHANNELS))]
    return SPATIAL_ATTENTION_SIDE if SPATIAL_ATTENTION_SIDE in levels else levels[-1]


FULL = settings_of((8, 16, 32, 64), (16, 32, 64, 128), (1, 2, 4, 8, 16), (0.5, 1.0, 1.5, 2.0), FULL_OPTIONS)
QUICK = settings_of((4, 8), (16, 32), (1, 2), (0.5, 1.0), QUICK_OPTIONS)


def main(arguments: Sequence[str]) -> int:
    """Measure and print; return the exit code."""
    parser = build_parser(
        "scaling", __doc__, alternations=5, quick="two small settings an axis, one alternation", plots=True
    )
    options = parser.parse_args(arguments)
    keep_freed_memory()  # for the profile, which is made in this process
    return run_command(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    machine = machine_line()
    settings, base, steps = (QUICK, QUICK_OPTIONS, 1) if options.quick else (FULL, FULL_OPTIONS, PROFILED_STEPS)
    say("profile")
    profile = profile_step(base, steps)
    rounds = measure_settings(settings, 1 if options.quick else options.alternations)
    figures = {
        "settings": [
            {
                **dataclasses.asdict(setting),
                "measurements": [dataclasses.asdict(each) for each in rounds.results.get(setting, [])],
                "skipped": str(rounds.failures[setting]) if setting in rounds.failures else None,
            }
            for setting in settings
        ],
        "profile": dataclasses.asdict(profile),
    }
    lines = [
        f"The trainer's own step, in {choose_device('cpu', Config().MIXED_PRECISION).precision}. {MEMORY_NOTE} Median "
        "(smallest to largest) of the alternations, each setting in a process of its own. The exponents of memory are "
        "of what lies above the start of the process.",
        "",
        *report(settings, rounds),
        *profile.table(),
    ]
    publish(machine, lines, figures, options.json)
    if options.plot is not None:
        plot(settings, rounds, options.plot)
    return rounds.exit_code


def measure_settings(settings: Sequence[Setting], alternations: int) -> Alternations[Setting, Measurement]:
    """Measure all settings in turn; those of an axis that are larger than a failed one are not tried."""
    failed: dict[str, Setting] = {}

    def measure(setting: Setting, number: int) -> Measurement:
        smaller = failed.get(setting.axis)
        if smaller is not None and setting.size > smaller.size:
            raise TimeLimitError(f"not tried: {smaller.label} was skipped")
        try:
            return measure_in_process(setting)
        except WorkerError:
            failed[setting.axis] = setting
            raise

    return alternate(settings, alternations, measure)


def measure_in_process(setting: Setting) -> Measurement:
    """Measure a setting in a process of its own.

    Raises:
        WorkerError: it took more than it may, or failed.
    """
    command = worker_command("benchmarks.scaling_worker", {"options": setting.options})
    return Measurement(**run_worker(command, seconds=TIME_LIMIT_SECONDS))


def exponent_of(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Return the exponent of the power law through some points, by least squares between the logarithms.

    Every point so counts by its relative error.

    Raises:
        ValueError: fewer than two different sizes, or one of the numbers is not above 0.
    """
    return statistics.linear_regression(list(map(math.log, sizes)), list(map(math.log, values))).slope


def exponents(sizes: Sequence[float], rows: Sequence[Sequence[float]]) -> tuple[Spread, Spread]:
    """Return the exponent over all sizes and that between the two largest, where constant costs weigh least.

    Args:
        sizes: from the smallest to the largest.
        rows: of each size one value an alternation.
    """
    by_alternation = list(zip(*rows, strict=True))
    every = [exponent_of(sizes, values) for values in by_alternation]
    largest = [exponent_of(sizes[-2:], values[-2:]) for values in by_alternation]
    return spread_of(every), spread_of(largest)


def report(settings: Sequence[Setting], rounds: Alternations[Setting, Measurement]) -> list[str]:
    """Return a table an axis, the exponents, and whether frames and pixels cost more than their share."""
    lines: list[str] = []
    growth: list[list[str]] = []
    verdicts: list[str] = []
    for axis in dict.fromkeys(setting.axis for setting in settings):
        quantity = QUANTITIES[axis]
        of_axis = [setting for setting in settings if setting.axis == axis]
        measured = [setting for setting in of_axis if setting in rounds.results]
        lines += _axis_table(of_axis, rounds)
        if len(measured) < 2:
            growth.append([quantity, "fewer than two settings could be measured"])
        else:
            sizes = [setting.size for setting in measured]
            seconds = [_seconds(rounds, setting) for setting in measured]
            memory = [[each.memory_gib for each in rounds.results[setting]] for setting in measured]
            found = (*exponents(sizes, seconds), *exponents(sizes, memory))
            growth.append([quantity, *(each.text(2) for each in found)])
        if axis in LINEAR_AXES:
            claim = f"Step time grows no faster than linearly with {quantity}"
            skipped = len(measured) < len(of_axis)
            outcome = "not known, because settings were skipped." if skipped else _verdict(sizes, seconds)
            verdicts.append(f"{claim}: {outcome}")
    head = ["size", "exponent of seconds", "of the two largest", "exponent of memory", "of the two largest"]
    return [*lines, *table(head, growth), *verdicts, ""]


def _axis_table(settings: Sequence[Setting], rounds: Alternations[Setting, Measurement]) -> list[str]:
    first = next((setting for setting in settings if setting in rounds.results), None)
    rows = []
    for setting in settings:
        if first is None or setting in rounds.failures:
            rows.append([setting.label, f"skipped: {rounds.failures[setting]}"])
            continue
        seconds = _seconds(rounds, setting)
        spread, measured = spread_of(seconds), rounds.results[setting]
        rows.append(
            [
                setting.label,
                f"{measured[0].parameters / 1e6:.2f} M",
                spread.text(2, "s") if spread.median >= 1 else spread.text(0, "ms", 1000),
                ratio_of(seconds, _seconds(rounds, first)).text(2),
                spread_of([each.memory_gib for each in measured]).text(2, "GiB"),
            ]
        )
    ratio = f"ratio to {settings[0].label}"
    return table([settings[0].axis, "parameters", "step", ratio, "peak memory above the start"], rows)


def _seconds(rounds: Alternations[Setting, Measurement], setting: Setting) -> list[float]:
    return [each.seconds for each in rounds.results[setting]]


def _verdict(sizes: Sequence[float], seconds: Sequence[Sequence[float]]) -> str:
    """Say whether step time grows no faster than the size.

    Neither over the whole axis nor, beyond what the alternations scatter, between the two largest settings, where
    growth that constant costs hide elsewhere would show.
    """
    growth, size = ratio_of(seconds[-1], seconds[0]).median, sizes[-1] / sizes[0]
    largest = exponents(sizes, seconds)[1]
    kept = round(growth, 2) <= round(size, 2) and round(largest.smallest, 2) <= 1
    return (
        f"{'kept' if kept else 'missed'} ({growth:.2f} times the time for {size:g} times the size; "
        f"exponent {largest.text(2)} between the two largest)."
    )


def plot(settings: Sequence[Setting], rounds: Alternations[Setting, Measurement], path: Path) -> None:
    """Draw one column an axis: seconds above, memory below, from smallest to largest, on logarithmic scales.

    A dotted line through the smallest setting shows proportional growth. Skipped settings have no dot.

    Raises:
        OSError: the file cannot be written.
    """
    from matplotlib.figure import Figure  # matplotlib is needed for this alone
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator

    figure = Figure(figsize=(3.2 * len(QUANTITIES), 6), layout="constrained")
    grid = figure.subplots(2, len(QUANTITIES), squeeze=False)
    for column, (axis, quantity) in enumerate(QUANTITIES.items()):
        shown = [setting for setting in settings if setting.axis == axis and setting in rounds.results]
        sizes = [setting.size for setting in shown]
        for place, name in enumerate(("seconds", "memory_gib")):
            spreads = [spread_of([getattr(each, name) for each in rounds.results[setting]]) for setting in shown]
            medians = [spread.median for spread in spreads]
            reach = [[spread.median - spread.smallest for spread in spreads]]
            reach.append([spread.largest - spread.median for spread in spreads])
            axes = grid[place][column]
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.errorbar(sizes, medians, yerr=reach, color=PALETTE[place], marker=".", linewidth=1, capsize=3)
            axes.plot(sizes, [medians[0] * size / sizes[0] for size in sizes], color="grey", linestyle=":")
            axes.set_xticks(sizes, [setting.label for setting in shown])
            axes.xaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
            axes.yaxis.set_minor_locator(NullLocator())
            axes.grid(visible=True, which="major", linewidth=0.3)
        grid[1][column].set_xlabel(quantity)
    grid[0][0].set_ylabel("seconds a training step")
    grid[1][0].set_ylabel("GiB above the start of the process")
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
