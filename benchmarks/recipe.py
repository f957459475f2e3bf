"""What each choice of the recipe does to spelling: python -m benchmarks.recipe

Trains the default preset as it is, and once for each change, one change at a time, with the same seed and the same
number of steps, and has the words of each read by the same recogniser (another seed trains another one). Further
options are main.py's, for all trainings.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import runner
from benchmarks.evaluated_rows import ONE_SAMPLE, Figures, evaluate_run, figure_of, measure_rows, percent, run_process
from common.console import program
from evaluation.spelled import LETTERS, NEW

QUIET = (
    *("--no-enable-gradient-histograms", "--no-enable-parameter-tracking"),
    *("--no-enable-video-logging", "--no-enable-noise-visualization"),
)
DEFAULT = "default"
VARIANTS: dict[str, tuple[str, ...]] = {
    DEFAULT: (),
    "other data, weights and words": ("--seed=1000",),  # what differs by chance
    "predict the noise": ("--prediction-type=epsilon", "--no-zero-terminal-snr", "--loss-weighting=uniform"),
    "predict velocity": ("--prediction-type=v_prediction",),
    "uniform weighting": ("--loss-weighting=uniform",),
    "min-SNR weighting": ("--loss-weighting=min_snr",),
    "motion not weighed": ("--motion-weight=0",),
    "no schedule shift": ("--noise-schedule-shift=1",),
    "schedule shift of 1.5": ("--noise-schedule-shift=1.5",),
    "32 pixels, patches of 2": ("--image-size=32", "--patch-size=2"),
    "narrow at the finest level": ("--model-channels=32,96,192",),
    "wide": ("--model-channels=96,128,192",),
    "attention at 8 and 4": ("--spatial-attention-sizes=8,4",),
    "attention at 4": ("--spatial-attention-sizes=4",),
    # Of N steps, the warm-up of the average keeps the decay below (1 + N) / (10 + N): larger ones change nothing.
    "faster average": ("--ema-decay=0.9",),
    "half the learning rate": ("--learning-rate=4e-4",),
    "twice the learning rate": ("--learning-rate=1.6e-3",),
    "half the batch": ("--batch-size=1",),
    "no caption dropout, no guidance": ("--caption-dropout=0", "--guidance-scale=1"),
}


HEAD = (
    *("change", "million parameters", "s a step", "validation loss", "another caption adds", "letters misread"),
    *("of new words", "text sensitivity", "letters mostly misread"),
)


@program
def main(arguments: Sequence[str]) -> int:
    """Train, evaluate and print; return the exit code."""
    parser = runner.build_parser("recipe", __doc__)
    parser.add_argument("--steps", type=runner.at_least_one, default=300, metavar="N", help="(default 300)")
    parser.add_argument("--seed", type=runner.seed, default=0, metavar="N")
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS)[1:])
    parser.add_argument("--folder", type=Path, default=None, metavar="PATH", help="keep the runs here")
    options, for_training = parser.parse_known_args(arguments)
    return _run(options, for_training)


def _run(options: argparse.Namespace, for_training: Sequence[str]) -> int:
    common = [f"--max-steps={options.steps}", "--max-minutes=none", f"--seed={options.seed}", *for_training]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) if options.folder is None else options.folder.resolve()
        return measure_rows(
            [name for name in VARIANTS if name == DEFAULT or not options.only or name in options.only],
            lambda name: run_variant(name, common, folder),
            HEAD,
            _cells,
            f"{options.steps} steps, seed {options.seed}. Letter error rates with 95 % intervals over words.",
            options.json,
        )


def run_variant(name: str, common: Sequence[str], folder: Path) -> Figures:
    """Train and evaluate, in `folder`, with the `common` options of main.py and then those of the variant.

    Raises:
        UserError: one of them failed.
    """
    run = folder / name.replace(" ", "_").replace("/", "_")
    places = (f"--log-dir={folder}", f"--experiment-name={run.name}", f"--cache-dir={folder / 'cache'}")
    run_process(["main.py", *QUIET, *common, *places, *VARIANTS[name]])
    return read_figures(run, evaluate_run(run, folder / f"{run.name}.json", [ONE_SAMPLE]))


def read_figures(run: Path, report: Mapping[str, Any]) -> Figures:
    """Read a run's metrics and the report of its evaluation."""
    values, groups = runner.points_of(run), report["groups"]
    return {
        "parameters": int(values["08_Model_Architecture/Total_Parameters"][-1]),
        "step_seconds": statistics.median(values["05_Performance/Step_Time_Seconds"]),
        # Of the network's own target: compares only between variants with the same target and noise.
        "validation_loss": values["02_Loss_Components/Validation/Loss"][-1],
        "text_gap": values["02_Loss_Components/Validation/Text_Gap_Shuffled"][-1],
        "letters": figure_of(groups[LETTERS], "letter_error_rate"),
        "words": figure_of(groups[NEW], "letter_error_rate"),  # that training did not show
        "real_words": figure_of(groups[NEW], "real_ceiling")[0],
        "text_sensitivity": figure_of(groups[LETTERS], "text_sensitivity")[0],
        "worst_letters": [letter for letter, of in report["letters"].items() if of["read"] < 0.5],
    }


def _cells(name: str, figures: Figures) -> list[str]:
    return [
        *(name, f"{figures['parameters'] / 1e6:.2f}", f"{figures['step_seconds']:.2f}"),
        *(f"{figures['validation_loss']:.4f}", f"{figures['text_gap']:.4f}", percent(figures["letters"])),
        *(percent(figures["words"]), f"{figures['text_sensitivity']:.1f}"),
        " ".join(figures["worst_letters"]) or "none",
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
