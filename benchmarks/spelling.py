"""What guidance and the sampler do to spelling: python -m benchmarks.spelling --run logs/NAME

Has `python -m evaluation` generate the same words from the same noises: with the run's own sampler and each guidance
scale, then with the run's own guidance and each sampler and number of steps. Options: --guidance-scales X ...,
--samplers NAME:STEPS ..., --samples-per-word N, --seed N, --jobs N (evaluations at a time, each on its share of the
cores), --json PATH.
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from benchmarks.compared_rows import measure_rows
from benchmarks.evaluation_process import (
    Failure,
    Figure,
    evaluate_run,
    figure_of,
    percent,
    threads_of_each,
)
from benchmarks.machine import machine_line
from benchmarks.option_types import at_least_one, output_file, seed
from benchmarks.output import say
from common.field_types import LARGEST_GUIDANCE_SCALE
from diffusion.samplers import SamplerName
from evaluation.clips import LETTERS, NEW

GUIDANCE_SCALES = (1.0, 1.5, 2.5, 4.0)
SAMPLERS = ("ddim:50", "dpm_solver++:6", "dpm_solver++:10", "ddim:10", "euler:12", "heun:6")
LOOKS = {
    "motion_energy_ratio": "motion energy",
    "hold_ratio": "holds",
    "sharpness_ratio": "sharpness",
    "chroma_ratio": "colour strength",
}

SamplerSetting = tuple[str, ...]
"""A way to sample, as options of `python -m evaluation`."""
OWN: SamplerSetting = ()


@dataclass(frozen=True)
class SpellingFigures:
    """What came of a setting.

    Attributes:
        sampler, steps, guidance_scale: as the evaluation says that it sampled.
        letters, words: letter error rates with their 95 % intervals, of single letters and of words that training did
            not show.
        text_sensitivity: of single letters.
        looks: ratios to real clips of the same words, by their names in the report; 1 is right.
    """

    sampler: str
    steps: int
    guidance_scale: float
    letters: Figure
    words: Figure
    text_sensitivity: float | None
    looks: Mapping[str, float | None]


@dataclass(frozen=True)
class FailedSetting:
    """A setting that could not be evaluated, with the last line that was said."""

    options: str
    reason: str


def main(arguments: Sequence[str]) -> int:
    """Evaluate and print; return the exit code."""
    options = _parser().parse_args(arguments)
    scales = [(f"--guidance-scale={scale:g}",) for scale in options.guidance_scales]
    samplers = [(f"--sampler={name}", f"--steps={steps}") for name, steps in options.samplers]
    with tempfile.TemporaryDirectory() as folder:

        def run(setting: SamplerSetting) -> SpellingFigures | FailedSetting:
            say(f"{' '.join(setting) or 'as the run samples'} ...")
            return _evaluate(options, setting, Path(folder))

        return measure_rows(
            OWN,
            [*scales, *samplers],
            run,
            lambda rows: _report(rows, options),
            FailedSetting,
            lambda failure: failure.reason.removeprefix("error: "),
            jobs=options.jobs,
            json_path=options.json,
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.spelling", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, help="folder of a trained run, such as logs/my_run")
    parser.add_argument(
        "--guidance-scales",
        type=_guidance_scale,
        nargs="*",
        default=GUIDANCE_SCALES,
        metavar="X",
        help=f"default {' '.join(format(scale, 'g') for scale in GUIDANCE_SCALES)}",
    )
    parser.add_argument(
        "--samplers",
        type=_sampler_and_steps,
        nargs="*",
        default=[_sampler_and_steps(text) for text in SAMPLERS],
        metavar="NAME:STEPS",
        help=f"default {' '.join(SAMPLERS)}",
    )
    parser.add_argument("--samples-per-word", type=at_least_one, default=1, metavar="N")
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="of words, noises and looks (default 0)")
    parser.add_argument("--jobs", type=at_least_one, default=2, metavar="N", help="evaluations at a time (default 2)")
    parser.add_argument("--json", type=output_file, metavar="PATH", help="also write all figures to this file")
    return parser


def _guidance_scale(text: str) -> float:
    scale = float(text)
    if not 0 <= scale <= LARGEST_GUIDANCE_SCALE:
        raise argparse.ArgumentTypeError(f"must be from 0 to {LARGEST_GUIDANCE_SCALE:g}, not {text}")
    return scale


def _sampler_and_steps(text: str) -> tuple[str, int]:
    name, _, steps = text.rpartition(":")
    if name not in get_args(SamplerName):
        raise argparse.ArgumentTypeError(
            f"must be a sampler ({', '.join(get_args(SamplerName))}), a colon and its steps, not {text}"
        )
    return name, at_least_one(steps)


def _evaluate(options: argparse.Namespace, setting: SamplerSetting, folder: Path) -> SpellingFigures | FailedSetting:
    name = "_".join(setting).replace("=", "_") or "own"
    report = evaluate_run(
        options.run,
        folder / f"{name}.json",
        [f"--samples-per-word={options.samples_per_word}", f"--seed={options.seed}", *setting],
        threads_of_each(options.jobs),
    )
    described = " ".join(setting) or "none"
    if isinstance(report, Failure):
        return FailedSetting(described, report.reason)
    try:
        return read_figures(report)
    except (KeyError, TypeError) as error:
        return FailedSetting(described, f"the report lacks {error}")


def read_figures(report: Mapping[str, object]) -> SpellingFigures:
    """Read the report of an evaluation.

    Raises:
        KeyError, TypeError: a figure is absent, or null.
    """
    sampler: dict[str, object] = report["sampler"]  # type: ignore[assignment]
    groups: dict[str, dict[str, object]] = report["groups"]  # type: ignore[assignment]
    sensitivity = groups[LETTERS]["text_sensitivity"]
    return SpellingFigures(
        sampler=str(sampler["name"]),
        steps=int(sampler["steps"]),  # type: ignore[call-overload]
        guidance_scale=float(sampler["guidance_scale"]),  # type: ignore[arg-type]
        letters=figure_of(groups[LETTERS], "letter_error_rate"),
        words=figure_of(groups[NEW], "letter_error_rate"),
        text_sensitivity=None if sensitivity is None else float(sensitivity),  # type: ignore[arg-type]
        looks={name: report[name] for name in LOOKS},  # type: ignore[misc]
    )


def _report(rows: Sequence[SpellingFigures | FailedSetting], options: argparse.Namespace) -> list[str]:
    lines = [
        machine_line(),
        "",
        f"{options.run}, {options.samples_per_word} clips a word, seed {options.seed}. The first row is the run's own "
        "way. Letter error rates with 95 % intervals over words; ratios are to real clips of the same words.",
        "",
        "| sampler | steps | guidance | letters misread | of new words | text sensitivity | "
        + " | ".join(f"{look} / real" for look in LOOKS.values())
        + " |",
        "|---" * (6 + len(LOOKS)) + "|",
    ]
    for row in rows:
        if isinstance(row, FailedSetting):
            lines.append(f"| {row.options} | failed: {row.reason} {'| ' * (4 + len(LOOKS))}|")
            continue
        cells = (
            row.sampler,
            str(row.steps),
            f"{row.guidance_scale:g}",
            percent(row.letters),
            percent(row.words),
            _ratio(row.text_sensitivity, 1),
            *(_ratio(value, 2) for value in row.looks.values()),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _ratio(value: float | None, decimals: int) -> str:
    return "" if value is None else f"{value:.{decimals}f}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
