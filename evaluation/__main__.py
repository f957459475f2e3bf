"""Does a trained run show what it is told? python -m evaluation [--run logs/NAME] --output report.json"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.console import counted, program
from common.errors import UserError
from compute.memory import keep_freed_memory
from data.captions import shortened
from evaluation.captioned import CAPTIONS_ASKED
from evaluation.evaluate import EvaluationRequest, evaluate
from evaluation.metrics import find_metric
from sampling.trained_run import add_sampling_options, add_weights_options

COLUMNS = {
    "letter_error_rate": "letter error rate",
    "word_error_rate": "word error rate",
    "real_ceiling": "its real ceiling",
    "shuffled_floor": "its shuffled floor",
    "exact_match": "read exactly",
    "still_frame": "still frame",
    "mean_clip": "mean clip",
    "retrieval_top1": "retrieved first",
    "retrieval_top5": "retrieved in five",
    "retrieval_real_ceiling": "retrieved first, real",
    "retrieval_shuffled_floor": "retrieved first, floor",
    "r_precision_1": "R-precision 1",
    "r_precision_1_real_ceiling": "R-precision 1, real",
    "r_precision_1_shuffled_floor": "R-precision 1, floor",
    "judges_agree": "judges agree",
    "kernel_distance": "kernel distance",
    "kernel_distance_real": "kernel distance, real",
    "motion_map_agreement": "motion maps agree",
    "motion_map_agreement_real": "maps agree, real",
    "moving_sharpness_ratio": "moving sharpness / real",
    "moving_frame_distance": "moving frames from real",
    "moving_frame_distance_real": "moving frames, real",
    "held_frame_distance": "held frames from real",
    "text_sensitivity": "text sensitivity",
    "motion_energy_ratio": "motion energy / real",
    "hold_ratio": "holds / real",
    "sharpness_ratio": "sharpness / real",
    "chroma_ratio": "colour strength / real",
    "memorisation": "memorisation",
    "memorisation_chance": "memorisation by chance",
    "language_obeyed": "language obeyed",
    "language_obeyed_real": "language obeyed, real",
}

NEARLY_ALL = 0.9
NAMED = 10  # captions that are not retrieved
LONGEST_PRINTED = 40  # characters of a caption
COLUMN = 29  # characters of a figure with its interval


@program
def main(arguments: Sequence[str]) -> None:
    """Evaluate and print."""
    keep_freed_memory()
    request = _parse(arguments)
    print("\n".join([*_lines(evaluate(request)), "", str(request.output), str(request.sheet)]))


def _parse(arguments: Sequence[str]) -> EvaluationRequest:
    parser = argparse.ArgumentParser(
        prog="python -m evaluation",
        description="Generate clips with a trained run, have them judged beside real clips, and report how well they "
        "show what was asked, with what a perfect model and one that ignores its text would score.",
    )
    add_weights_options(parser)
    parser.add_argument(
        "--captions",
        "--words",
        type=Path,
        default=None,
        help="file with one caption a line. Default: all letters and held-out words of each length; of your own clips, "
        f"up to {CAPTIONS_ASKED} held-out captions, or trained ones where no model can know the held-out ones",
    )
    part = parser.add_mutually_exclusive_group()
    for option, name, what in (
        ("--held-out", "held_out", "were held out"),
        ("--trained", "trained", "were trained on"),
    ):
        help_text = f"of your own clips, ask for captions of those that {what}"
        part.add_argument(option, dest="part", action="store_const", const=name, help=help_text)
    parser.add_argument(
        "--samples-per-caption",
        "--samples-per-word",
        dest="samples",
        type=_at_least_one,
        default=2,
        help="clips of each caption (default 2)",
    )
    parser.add_argument("--output", type=Path, required=True, help="JSON file for the report")
    parser.add_argument(
        "--contact-sheet", type=Path, default=None, help="PNG with real and generated clips. Default: beside the report"
    )
    parser.add_argument(
        "--metric",
        dest="metrics",
        type=find_metric,
        action="append",
        default=[],
        metavar="MODULE:FUNCTION[=WEIGHTS]",
        help="a further metric: a function of yours, such as FVD, with a local file of its weights "
        "(docs/evaluation.md); may be repeated",
    )
    parser.add_argument("--seed", type=int, default=0, help="of captions, noise and looks (default 0)")
    add_sampling_options(parser)
    options = parser.parse_args(arguments)
    names = [metric.name for metric in options.metrics]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"--metric {twice[0]}: named twice; the report needs two names: write a function for each")
    return EvaluationRequest(**vars(options))


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be a whole number of at least 1")
    return int(text)


def _first(texts: Sequence[str]) -> str:
    """Return the first texts, and how many more there are."""
    more = f" and {len(texts) - NAMED} more" if len(texts) > NAMED else ""
    return f"{', '.join(texts[:NAMED]) or 'none'}{more}"


def _signs(read: Sequence[Sequence[str]]) -> str:
    """Return what was read in the clips of a caption, each sign in brackets: it may have several words."""
    return ", ".join(dict.fromkeys("".join(f"[{sign}]" for sign in signs) or "nothing" for signs in read))


def _lines(report: Mapping[str, Any]) -> list[str]:
    """Return the figures as a table: a row for each, a column for all words and for each group."""
    columns = {"all": report, **report["groups"]}
    width = max(len(title) for title in COLUMNS.values())
    lines = [f"{report['run']}, step {report['step']}; value (95 % interval)"]
    lines.append(" " * width + "".join(f"  {name:>{COLUMN}}" for name in columns))
    for key, title in COLUMNS.items():
        cells = [_cell(key, figures) for figures in columns.values()]
        if any(cells):
            lines.append(f"{title:<{width}}" + "".join(f"  {cell:>{COLUMN}}" for cell in cells))
    for code, of in report.get("languages", {}).items():
        rates = f"letter error rate {_cell('letter_error_rate', of)}, real {_cell('real_ceiling', of)}"
        lines.append(f"{code}, {counted(of['words'], 'word')}: {rates}")
    if "letters" in report:
        missed = [f"{letter} {of['read']:.0%}" for letter, of in report["letters"].items() if of["read"] < NEARLY_ALL]
        lines.append(f"letters read in less than {NEARLY_ALL:.0%} of their places: {', '.join(missed) or 'none'}")
    failed = sorted((each for each in report["captions"] if each["retrieved"] < 1), key=lambda each: each["retrieved"])
    nearest = []
    for each in failed:
        found = (shortened(caption, LONGEST_PRINTED) for caption in dict.fromkeys(each["nearest"]))
        nearest.append(f"{shortened(each['caption'], LONGEST_PRINTED)} (nearest to {', '.join(found)})")
    lines.append(f"captions not retrieved: {_first(nearest)}")
    if misread := [each for each in report.get("signs_read", ()) if each["word_error_rate"] > 0]:
        read = [f"{shortened(each['caption'], LONGEST_PRINTED)} (read as {_signs(each['read'])})" for each in misread]
        lines.append(f"captions misread: {_first(read)}")
    for name, metric in report["metrics"].items():
        for figure, of in metric.items():
            shown = (
                f"{title}{'no number' if of[key] is None else format(of[key], '.4g')}"
                for key, title in (("value", ""), ("real_ceiling", "real "), ("shuffled_floor", "shuffled "))
            )
            lines.append(f"{name}: {figure} {', '.join(shown)}")
    if report.get("about_word_error_rate"):
        lines.append(f"word error rate: {report['about_word_error_rate']}")
    lines += [f"verdict: {verdict}" for verdict in report["verdict"]]
    return [*lines, *(f"note: {note}" for note in report["notes"])]


def _cell(key: str, figures: Mapping[str, Any]) -> str:
    if figures.get(key) is None:
        return ""
    interval = figures["intervals"][key]
    numbers = [figures[key], *(interval or ())]
    value, *ends = (f"{number:.1e}" if key.startswith("kernel") else f"{number:.3f}" for number in numbers)
    return value + (f" ({' to '.join(ends)})" if ends else "")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
