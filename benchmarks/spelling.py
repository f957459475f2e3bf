"""What guidance and the sampler do to spelling: python -m benchmarks.spelling --run logs/NAME

Has `python -m evaluation` generate the same words from the same noises: with the run's own sampler and each guidance
scale, then with the run's own guidance and each sampler and number of steps.
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import runner
from benchmarks.evaluated_rows import ONE_SAMPLE, Figures, evaluate_run, figure_of, measure_rows, percent
from common.console import program
from evaluation.spelled import LETTERS, NEW

GUIDANCE_SCALES = ("1", "1.5", "2.5", "4")
SAMPLERS = (("ddim", 50), ("dpm_solver++", 6), ("dpm_solver++", 10), ("ddim", 10), ("euler", 12), ("heun", 6))
LOOKS = {
    "motion_energy_ratio": "motion energy",
    "hold_ratio": "holds",
    "sharpness_ratio": "sharpness",
    "chroma_ratio": "colour strength",
}
HEAD = ("sampler", "steps", "guidance", "letters misread", "of new words", "text sensitivity")
OWN = "as the run samples"


@program
def main(arguments: Sequence[str]) -> int:
    """Evaluate and print; return the exit code."""
    parser = runner.build_parser("spelling", __doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder of a trained run, such as logs/my_run")
    parser.add_argument("--seed", type=runner.seed, default=0, metavar="N", help="of words, noises and looks")
    options = parser.parse_args(arguments)
    return _run(options)


def _run(options: argparse.Namespace) -> int:
    names = [OWN, *(f"--guidance-scale={scale}" for scale in GUIDANCE_SCALES)]
    names += [f"--sampler={name} --steps={steps}" for name, steps in SAMPLERS]
    common = [ONE_SAMPLE, f"--seed={options.seed}"]
    with tempfile.TemporaryDirectory() as folder:

        def evaluate(name: str) -> Figures:
            changes = [] if name == OWN else name.split()
            return read_figures(evaluate_run(options.run, Path(folder) / "report.json", [*common, *changes]))

        return measure_rows(
            names,
            evaluate,
            [*HEAD, *(f"{look} / real" for look in LOOKS.values())],
            _cells,
            f"{options.run}, 1 clips a word, seed {options.seed}. The first row is the run's "
            "own way. Letter error rates with 95 % intervals over words; ratios are to real clips of the same words.",
            options.json,
        )


def read_figures(report: Mapping[str, Any]) -> Figures:
    """Read the report of an evaluation; UserError if a letter error rate is absent."""
    sampler, letters = report["sampler"], report["groups"][LETTERS]
    return {
        "sampler": sampler["name"],
        "steps": sampler["steps"],
        "guidance_scale": sampler["guidance_scale"],
        "letters": figure_of(letters, "letter_error_rate"),
        "words": figure_of(report["groups"][NEW], "letter_error_rate"),  # that training did not show
        "text_sensitivity": letters["text_sensitivity"],
        "looks": {name: report[name] for name in LOOKS},  # ratios to real clips of the same words; 1 is right
    }


def _cells(name: str, figures: Figures) -> list[str]:
    return [
        *(figures["sampler"], str(figures["steps"]), f"{figures['guidance_scale']:g}"),
        *(percent(figures["letters"]), percent(figures["words"]), _number(figures["text_sensitivity"], 1)),
        *(_number(value, 2) for value in figures["looks"].values()),
    ]


def _number(value: float | None, decimals: int) -> str:
    return "" if value is None else f"{value:.{decimals}f}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
