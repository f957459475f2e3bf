"""Look at clips before training on them, and pack them for a cluster.

python -m data inspect PATH     what is in a data set, what is wrong with it, and how it will be divided
python -m data shard PATH OUT   the same clips as WebDataset shards

Further options are main.py's: what is inspected is what a training with these options would see.
"""

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from common.console import command, counted, program
from common.errors import UserError
from common.files import write_atomically
from common.interruption import Interrupted, signals_raise
from common.settings import load_settings
from config import PRESETS, Config
from data.build import inspect_data
from data.captions import caption_notices, check_captions
from data.clip_set import check_usable, name_skipped, split_as_configured
from data.clip_splits import ClipSplit
from data.composing import Composition, compose
from data.inspection_report import InspectionReport, draw_rows, draw_sheet, report_line
from data.media.files import printable
from data.recommendation import recommend, with_options
from data.rows import Manifest
from data.shards import check_new_folder, write_shards
from models.build import build_tokenizer
from models.tokens import Tokenizer, unread

PROGRAM = "python -m data"
MOST_SHARD_MEGABYTES = 100_000


@program
def main(arguments: Sequence[str]) -> int:
    """Run a command; return 0, or 128 + the number of a signal. Usage errors exit with 2."""
    options, training_options = _parse(arguments)
    try:
        with signals_raise():
            _run(options, training_options)
    except Interrupted as interruption:
        name = signal.Signals(interruption.signal_number).name
        print(f"{name}: stopped; what was read so far is kept in the cache", file=sys.stderr)
        return 128 + interruption.signal_number
    return 0


def _run(options: argparse.Namespace, training_options: Sequence[str]) -> None:
    arguments = [f"--data-root={_as_folder(options.path)}", *training_options]
    config = load_settings(Config, PRESETS, arguments, program=f"{PROGRAM} {options.command}").config
    # Before everything is inspected, which may take long:
    tokenizer = build_tokenizer(config, None)
    if options.command == "shard":
        check_new_folder(options.output)
        _shard(options, config)
    else:
        _check_output("--sheet", options.sheet, ".png")
        _check_output("--json", options.json, ".json")
        _inspect(options, config, tokenizer, training_options)


def _check_output(option: str, path: Path | None, suffix: str) -> None:
    if path is None:
        return
    if path.suffix.lower() != suffix:  # so that mistaking it for the clip loses no clip
        raise UserError(f"{option} {path}: give a file that ends in {suffix}.")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise UserError(f"{option} {path}: this is no file in a folder that exists.")


def _as_folder(path: Path) -> str:
    """Return a path as DATA_ROOT is typed: the word none alone would mean no folder."""
    return f"./{path}" if str(path).lower() == "none" else str(path)


def _inspect(
    options: argparse.Namespace, config: Config, tokenizer: Tokenizer, training_options: Sequence[str]
) -> None:
    inspection, reader = inspect_data(config)
    captions = [clip.row.caption for clip in inspection.usable]
    lost = unread(tokenizer, captions)
    split: ClipSplit | None = None
    composed: Composition | None = None
    problem: UserError | None = None
    try:
        check_usable(options.path, inspection, is_reported=True)
        check_captions(config, lost, len(captions))
        split = split_as_configured(config, inspection, tokenizer)
        if config.COMPOSE_SIGNS > 1:
            composed = compose(config, split, reader, tokenizer)
    except UserError as error:
        problem = error  # what was found comes first
    path = printable(str(options.path))
    notices = caption_notices(config, lost, tokenizer, captions)
    report = InspectionReport(path, inspection, config.TEXT_ENCODER, lost, notices, split, reader.shape)
    print("\n".join(report.lines()))
    if composed is not None:
        print(report_line("composed", composed.text))
    if options.json is not None:
        content = json.dumps(report.as_json(), indent=1, ensure_ascii=False)
        _write("--json", options.json, (content + "\n").encode())
    sheet = draw_sheet(inspection.usable, reader, config.SEED) if composed is None else draw_rows(composed.training)
    if sheet is not None:
        png, shown = sheet
        _write("--sheet", options.sheet, png)
        print(report_line("contact sheet", f"{options.sheet} ({counted(shown, 'clip')} as the training sees them)"))
    if problem is not None:
        raise problem
    seconds = [clip.facts.seconds for clip in inspection.usable] if composed is None else composed.training.seconds
    advice = recommend(config, inspection.usable, seconds)
    suits = "" if advice.options else ": these settings suit the clips"
    print(report_line("advice", "; ".join(advice.reasons) + suits))
    wanted = with_options(training_options, advice.options)
    print(report_line("train", command("python", "main.py", "--data-root", _as_folder(options.path), *wanted)))


def _write(option: str, path: Path, content: bytes) -> None:
    try:
        write_atomically(path, content)
    except OSError as error:
        raise UserError(f"{option} {path} cannot be written: {error.strerror}.") from error


def _shard(options: argparse.Namespace, config: Config) -> None:
    inspection, _ = inspect_data(config)
    check_usable(options.path, inspection)
    usable = Manifest(inspection.root, tuple(clip.row for clip in inspection.usable), ())
    report = write_shards(usable, options.output, shard_bytes=options.shard_megabytes * 1_000_000, seed=config.SEED)
    skipped = [*inspection.unusable, *report.skipped]
    print(f"{counted(report.clips, 'clip')} in {counted(report.shards, 'shard')}: {options.output}")
    if report.encoded:
        print(f"Encoded anew: {counted(report.encoded, 'clip')} (parts of longer files, or folders of frames)")
    if skipped:
        print(f"{len(skipped)} left out: {name_skipped(skipped)}")
    print(f"Train on them: {command('python', 'main.py', '--data-root', options.output)}")


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = _parser()
    options, training_options = parser.parse_known_args(arguments)
    paths = [options.path, *([options.output] if options.command == "shard" else [])]
    if list(map(Path, arguments[1 : 1 + len(paths)])) != paths:  # else the value of an option may pass for a path
        parser.error(f"what {options.command} works on comes first: {PROGRAM} {options.command} PATH [options]")
    if any(option.split("=")[0] == "--data-root" for option in training_options):
        parser.error("--data-root is what comes first already")
    return options, training_options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    rest = "Further options are those that `python main.py --help` lists, such as --clip-fit pad."
    inspect = commands.add_parser("inspect", help="say what a data set holds", epilog=rest, allow_abbrev=False)
    inspect.add_argument("path", type=_path, help="folder of clips, or a list of them: what DATA_ROOT would be")
    inspect.add_argument(
        "--sheet", type=Path, default=Path("inspection.png"), help="picture of some clips (default inspection.png)"
    )
    inspect.add_argument("--json", type=Path, metavar="FILE", help="also write all clips and reasons to this file")
    shard = commands.add_parser("shard", help="write a data set as WebDataset shards", epilog=rest, allow_abbrev=False)
    shard.add_argument("path", type=_path, help="what DATA_ROOT would be")
    shard.add_argument(
        "--shard-megabytes", type=_megabytes, default=256, metavar="N", help="size of a shard at most (default 256)"
    )
    shard.add_argument("output", type=Path, help="folder for the shards; it must not exist, or be empty")
    return parser


def _path(text: str) -> Path:
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty; . is this folder")
    return Path(text)


def _megabytes(text: str) -> int:
    try:
        value = int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from error
    if not 1 <= value <= MOST_SHARD_MEGABYTES:
        raise argparse.ArgumentTypeError(f"{value} is not between 1 and {MOST_SHARD_MEGABYTES}")
    return value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
