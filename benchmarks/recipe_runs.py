"""One training and its evaluation, in processes of their own: a part of benchmarks.recipe."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.evaluation_process import Failure, Figure, evaluate_run, figure_of, run_process
from evaluation.clips import LETTERS, NEW

QUIET = (
    "--no-enable-gradient-histograms",
    "--no-enable-parameter-tracking",
    "--no-enable-video-logging",
    "--no-enable-noise-visualization",
)


@dataclass(frozen=True)
class Variant:
    """A change to the default preset, as options of main.py."""

    name: str
    training: tuple[str, ...] = ()


@dataclass(frozen=True)
class RecipeFigures:
    """What came of a variant.

    Attributes:
        parameters: of the network.
        step_seconds: median, beside as many other trainings as ran at the same time.
        validation_loss: of the network's own target; compares only between variants with the same target and noise.
        text_gap: what another clip's caption adds to it.
        letters, words: letter error rates with their 95 % intervals, of single letters and of words that training did
            not show.
        real_words: the recogniser's letter error rate on real clips of these words.
        text_sensitivity: of single letters.
        worst_letters: letters that are read in less than half of their places.
    """

    variant: str
    parameters: int
    step_seconds: float
    validation_loss: float
    text_gap: float
    letters: Figure
    words: Figure
    real_words: float
    text_sensitivity: float
    worst_letters: tuple[str, ...]


@dataclass(frozen=True)
class FailedVariant:
    """A variant that could not be trained or evaluated, with the last line it said."""

    variant: str
    reason: str


def run_variant(
    variant: Variant, common: Sequence[str], folder: Path, threads: int, samples_per_word: int
) -> RecipeFigures | FailedVariant:
    """Train and evaluate.

    Args:
        common: options of main.py that all variants share; the variant's own win.
        folder: for the run, by the variant's name, and for the cache.
        threads: of each process.
    """
    name = variant.name.replace(" ", "_").replace("/", "_")
    places = (f"--log-dir={folder}", f"--experiment-name={name}", f"--cache-dir={folder / 'cache'}")
    failure = run_process(["main.py", *QUIET, *common, *places, *variant.training], threads)
    if failure is not None:
        return FailedVariant(variant.name, failure.reason)
    options = [f"--samples-per-word={samples_per_word}"]
    report = evaluate_run(folder / name, folder / f"{name}.json", options, threads)
    if isinstance(report, Failure):
        return FailedVariant(variant.name, report.reason)
    try:
        return read_figures(variant.name, folder / name, report)
    except (KeyError, TypeError) as error:
        return FailedVariant(variant.name, f"the report lacks {error}")


def read_figures(name: str, run: Path, report: Mapping[str, object]) -> RecipeFigures:
    """Read a run's metrics and the report of its evaluation."""
    values: dict[str, list[float]] = {}
    for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        point = json.loads(line)
        values.setdefault(point["tag"], []).append(point["value"])
    groups: dict[str, dict[str, object]] = report["groups"]  # type: ignore[assignment]
    letters: dict[str, dict[str, float]] = report["letters"]  # type: ignore[assignment]
    return RecipeFigures(
        variant=name,
        parameters=int(values["08_Model_Architecture/Total_Parameters"][-1]),
        step_seconds=statistics.median(values["05_Performance/Step_Time_Seconds"]),
        validation_loss=values["02_Loss_Components/Validation/Loss"][-1],
        text_gap=values["02_Loss_Components/Validation/Text_Gap_Shuffled"][-1],
        letters=figure_of(groups[LETTERS], "letter_error_rate"),
        words=figure_of(groups[NEW], "letter_error_rate"),
        real_words=figure_of(groups[NEW], "real_ceiling")[0],
        text_sensitivity=figure_of(groups[LETTERS], "text_sensitivity")[0],
        worst_letters=tuple(letter for letter, of in letters.items() if of["read"] < 0.5),
    )
