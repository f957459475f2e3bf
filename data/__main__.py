"""Look at clips before training on them, and pack them for a cluster.

python -m data inspect PATH     what is in a data set, what is wrong with it, and how it will be divided
python -m data shard PATH OUT   the same clips as WebDataset shards

Further options are main.py's: what is inspected is what a training with these options would see.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from common.errors import UserError
from common.files import write_atomically
from common.settings import load_settings
from config import PRESETS, Config
from data.clip_reader import ClipReader
from data.clip_set import check_usable, name_skipped, split_inspected
from data.clip_splits import ClipSplit
from data.inspection import Inspection
from data.inspection_report import CaptionUse, report_json, report_lines
from data.inspection_sheet import write_sheet
from data.manifest import Manifest
from data.shards import check_new_folder, write_shards
from models.tokens import dropped_characters
from training.build_data import build_inspection, build_split_rule
from training.build_model import build_tokenizer

PROGRAM = "python -m data"
MOST_SHARD_MEGABYTES = 100_000


def main(arguments: Sequence[str]) -> int:
    """Run a command; return 0, or 1 after an error that the user can put right. Usage errors exit with 2."""
    options, training_options = _parser().parse_known_args(arguments)
    try:
        loaded = load_settings(
            Config, PRESETS, [f"--data-root={options.path}", *training_options], program=f"{PROGRAM} {options.command}"
        )
        if options.command == "shard":
            check_new_folder(options.output)  # before everything is inspected, which may take long
        inspection, reader = build_inspection(loaded.config)
        if options.command == "inspect":
            _inspect(options, loaded.config, inspection, reader)
        else:
            _shard(options, loaded.config, inspection)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _inspect(options: argparse.Namespace, config: Config, inspection: Inspection, reader: ClipReader) -> None:
    captions = _caption_use(config, inspection)
    split: ClipSplit | None = None
    problem: UserError | None = None
    try:
        check_usable(options.path, inspection)
        split = split_inspected(inspection, build_split_rule(config))
    except UserError as error:
        problem = error  # what was found comes first
    print("\n".join(report_lines(str(options.path), inspection, captions, split)))
    try:
        if shown := write_sheet(options.sheet, inspection.usable, reader, config.SEED):
            print(f"{'contact sheet':<14}{options.sheet} ({shown} clips as the training sees them)")
        if options.json is not None:
            content = report_json(str(options.path), inspection, captions, split)
            write_atomically(options.json, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
    except OSError as error:
        raise UserError(f"{error.filename or options.sheet} cannot be written: {error.strerror}.") from error
    if problem is not None:
        raise problem


def _caption_use(config: Config, inspection: Inspection) -> CaptionUse:
    tokenizer = build_tokenizer(config, None)
    captions = [clip.row.caption for clip in inspection.usable]
    return CaptionUse(
        encoder=config.TEXT_ENCODER,
        left_out=dropped_characters(tokenizer, captions),
        cut_off=sum(len(tokenizer.encode(caption)[0]) > tokenizer.max_length for caption in captions),
        most_tokens=tokenizer.max_length,
    )


def _shard(options: argparse.Namespace, config: Config, inspection: Inspection) -> None:
    check_usable(options.path, inspection)
    usable = Manifest(inspection.root, tuple(clip.row for clip in inspection.usable), ())
    report = write_shards(usable, options.output, shard_bytes=options.shard_megabytes * 1_000_000, seed=config.SEED)
    skipped = [*inspection.unusable, *report.skipped]
    print(f"{report.clips} clips in {report.shards} shards: {options.output}")
    if report.encoded:
        print(f"{report.encoded} of them were encoded anew: parts of longer files, or folders of frames")
    if skipped:
        print(f"{len(skipped)} left out: {name_skipped(skipped)}")
    print(f"Train on them: python main.py --data-root {options.output}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    inspect = commands.add_parser("inspect", help="say what a data set holds", allow_abbrev=False)
    inspect.add_argument("path", type=Path, help="folder of clips, or a list of them: what DATA_ROOT would be")
    inspect.add_argument(
        "--sheet", type=Path, default=Path("inspection.png"), help="picture of some clips (default inspection.png)"
    )
    inspect.add_argument("--json", type=Path, metavar="FILE", help="also write all clips and reasons to this file")
    shard = commands.add_parser("shard", help="write a data set as WebDataset shards", allow_abbrev=False)
    shard.add_argument("path", type=Path, help="what DATA_ROOT would be")
    shard.add_argument(
        "--shard-megabytes", type=_megabytes, default=256, metavar="N", help="size of a shard at most (default 256)"
    )
    shard.add_argument("output", type=Path, help="folder for the shards; it must not exist, or be empty")
    return parser


def _megabytes(text: str) -> int:
    value = int(text)
    if not 1 <= value <= MOST_SHARD_MEGABYTES:
        raise argparse.ArgumentTypeError(f"{value} is not between 1 and {MOST_SHARD_MEGABYTES}")
    return value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
