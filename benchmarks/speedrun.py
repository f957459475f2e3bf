"""How soon a default run reads: python -m benchmarks.speedrun

Trains with a few seeds and, every 50 steps, has the recogniser read clips of words that training never shows. A run
reads from the first such step on at which it misreads at most 2 points more letters than in real clips of the same
words. What counts is the time of training steps until then; making and reading the clips is left out.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy

from benchmarks import runner
from benchmarks.evaluated_rows import Figures, measure_rows, run_process
from common.console import program
from common.errors import UserError
from logging_system.files.scalar_history import ScalarHistory, read_history

EVERY = 50  # steps
CLOSE_ENOUGH = 0.02
LARGEST_CEILING = 0.1  # of a recogniser that can say whether anything is read
WORDS = 32
OPTIONS = (
    *("--max-minutes=none", f"--validation-clips={WORDS}", f"--sample-every-steps={EVERY}", "--log-every-steps=10"),
    *("--no-enable-gradient-histograms", "--no-enable-parameter-tracking", "--no-enable-noise-visualization"),
)
HEAD = ("seed", "minutes to reading", "steps", "letters misread then", "of real clips")
RATE, CEILING = (f"12_Generated_Samples/{name}" for name in ("Letter_Error_Rate", "Real_Ceiling"))
STEP_TIME = "05_Performance/Step_Time_Seconds"


@program
def main(arguments: Sequence[str]) -> int:
    """Train and print; return the exit code."""
    parser = runner.build_parser("speedrun", __doc__)
    parser.add_argument("--steps", type=runner.at_least_one, default=600, metavar="N", help="at most (default 600)")
    parser.add_argument("--seeds", type=runner.seed, nargs="+", default=[0, 1, 2], metavar="N")
    options, for_training = parser.parse_known_args(arguments)
    with tempfile.TemporaryDirectory() as folder:

        def train(seed: str) -> Figures:
            places = (f"--log-dir={folder}", f"--experiment-name=seed_{seed}")
            run_process(["main.py", *OPTIONS, f"--max-steps={options.steps}", f"--seed={seed}", *places, *for_training])
            return time_to_reading(read_history(Path(folder) / f"seed_{seed}" / "metrics.jsonl").history)

        return measure_rows(
            list(map(str, options.seeds)),
            train,
            HEAD,
            _cells,
            f"At most {options.steps} steps; {WORDS} words that training never shows, every {EVERY} steps.",
            options.json,
        )


def time_to_reading(history: ScalarHistory) -> Figures:
    """Return when a run first reads, and how well it does then; without a step where it never did.

    Raises:
        UserError: nobody read its clips, or the recogniser cannot.
    """
    rates, ceilings, seconds = (history.series(tag) for tag in (RATE, CEILING, STEP_TIME))
    if not len(rates):
        raise UserError(f"the run has no {RATE}")
    if ceilings.values.max() > LARGEST_CEILING:
        raise UserError(f"the recogniser misreads {ceilings.values.max():.0%} in real clips; raise RECOGNISER_STEPS")
    reads = numpy.flatnonzero(rates.values <= ceilings.values + CLOSE_ENOUGH)
    at = int(reads[0]) if len(reads) else -1
    until = seconds.steps <= rates.steps[at]  # each point is the mean of the steps since the one before
    counted = numpy.diff(seconds.steps[until], prepend=0)
    return {
        "step": int(rates.steps[at]) if len(reads) else None,
        "minutes": float((counted * seconds.values[until]).sum() / 60),
        "letter_error_rate": float(rates.values[at]),
        "real_ceiling": float(ceilings.values[at]),
    }


def _cells(name: str, figures: Figures) -> list[str]:
    step = figures["step"]
    return [
        *(name, f"{'' if step else 'not in '}{figures['minutes']:.1f}", str(step or "")),
        *(f"{100 * figures['letter_error_rate']:.1f} %", f"{100 * figures['real_ceiling']:.1f} %"),
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
