"""What each choice of the recipe does to spelling: python -m benchmarks.recipe

Trains the default preset as it is, and once for each change, one change at a time, with the same seed and the same
number of steps, and has the words of each read by the same recogniser (another seed trains another one). Options:
--steps N, --seed N, --only NAME ..., --jobs N (trainings at a time, each on its share of the cores),
--samples-per-word N, --folder PATH (keeps the runs), --list, --json PATH; further options are main.py's, for all
trainings.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.compared_rows import measure_rows
from benchmarks.evaluation_process import percent, threads_of_each
from benchmarks.machine import machine_line
from benchmarks.option_types import at_least_one, output_file, seed
from benchmarks.output import say
from benchmarks.recipe_runs import FailedVariant, RecipeFigures, Variant, run_variant

DEFAULT = Variant("default")
VARIANTS = (
    Variant("other data, weights and words", ("--seed=1000",)),  # what differs by chance
    Variant("predict the noise", ("--prediction-type=epsilon", "--no-zero-terminal-snr")),
    Variant("predict the clean clip", ("--prediction-type=sample",)),
    Variant("min-SNR weighting", ("--loss-weighting=min_snr",)),
    Variant("no schedule shift", ("--noise-schedule-shift=1",)),
    Variant(
        "patches of 4, twice as wide", ("--patch-size=4", "--model-channels=128,192", "--spatial-attention-sizes=8")
    ),
    Variant("narrow at the finest level", ("--model-channels=32,96,192",)),
    Variant("wide", ("--model-channels=96,128,192",)),
    Variant("attention at 8 and 4", ("--spatial-attention-sizes=8,4",)),
    Variant("attention at 4", ("--spatial-attention-sizes=4",)),
    # Of N steps, the warm-up of the average keeps the decay below (1 + N) / (10 + N): larger ones change nothing.
    Variant("faster average", ("--ema-decay=0.9",)),
    Variant("half the learning rate", ("--learning-rate=4e-4",)),
    Variant("twice the learning rate", ("--learning-rate=1.6e-3",)),
    Variant("half the batch", ("--batch-size=2",)),
    Variant("no caption dropout, no guidance", ("--caption-dropout=0", "--guidance-scale=1")),
)


def main(arguments: Sequence[str]) -> int:
    """Train, evaluate and print; return the exit code."""
    options, for_training = _parser().parse_known_args(arguments)
    if options.list:
        print("\n".join(f"{variant.name}: {' '.join(variant.training)}" for variant in VARIANTS))
        return 0
    chosen = [variant for variant in VARIANTS if not options.only or variant.name in options.only]
    common = [f"--max-steps={options.steps}", "--max-minutes=none", f"--seed={options.seed}", *for_training]
    threads = threads_of_each(options.jobs)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder if options.folder is not None else Path(temporary)

        def run(variant: Variant) -> RecipeFigures | FailedVariant:
            say(f"{variant.name} ...")
            return run_variant(variant, common, folder.resolve(), threads, options.samples_per_word)

        return measure_rows(
            DEFAULT,
            chosen,
            run,
            lambda rows: _report(rows, options.steps, options.seed),
            FailedVariant,
            lambda failure: f"the default fails: {failure.reason}",
            jobs=options.jobs,
            json_path=options.json,
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.recipe",
        usage="%(prog)s [options] [main.py options]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--steps", type=at_least_one, default=300, metavar="N", help="of every training (default 300)")
    parser.add_argument("--seed", type=seed, default=0, metavar="N")
    parser.add_argument("--only", nargs="+", choices=[variant.name for variant in VARIANTS], metavar="NAME")
    parser.add_argument("--jobs", type=at_least_one, default=2, metavar="N", help="trainings at a time (default 2)")
    parser.add_argument("--samples-per-word", type=at_least_one, default=1, metavar="N")
    parser.add_argument("--folder", type=Path, default=None, metavar="PATH", help="keep the runs here")
    parser.add_argument("--list", action="store_true", help="name the variants with their options, and end")
    parser.add_argument("--json", type=output_file, metavar="PATH", help="also write all figures to this file")
    return parser


def _report(rows: Sequence[RecipeFigures | FailedVariant], steps: int, seed: int) -> list[str]:
    lines = [
        machine_line(),
        "",
        f"{steps} steps, seed {seed}. Letter error rates with 95 % intervals over words.",
        "",
        "| change | million parameters | s a step | validation loss | another caption adds | letters misread "
        "| of new words | text sensitivity | letters mostly misread |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if isinstance(row, FailedVariant):
            lines.append(f"| {row.variant} | failed: {row.reason} | | | | | | | |")
            continue
        cells = (
            row.variant,
            f"{row.parameters / 1e6:.2f}",
            f"{row.step_seconds:.2f}",
            f"{row.validation_loss:.4f}",
            f"{row.text_gap:.4f}",
            percent(row.letters),
            percent(row.words),
            f"{row.text_sensitivity:.1f}",
            " ".join(row.worst_letters) or "none",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
