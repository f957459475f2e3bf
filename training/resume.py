"""Resuming: which constants come from the checkpoint, and whether the data still match it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checkpoints.checkpoint import Checkpoint
from checkpoints.run_folder import listed_clips, read_split
from common.console import counted
from common.errors import UserError
from common.settings import LoadedSettings, config_as_json, config_from_json
from config import ARCHITECTURE_FIELDS, SPLIT_FIELDS, Config

KEPT_FIELDS = ARCHITECTURE_FIELDS | SPLIT_FIELDS
MAX_NAMED = 3


def config_for_resume(loaded: LoadedSettings[Config], checkpoint: Checkpoint | None) -> tuple[Config, tuple[str, ...]]:
    """Take the architecture and the held-out split from the checkpoint, and everything else from today's config.

    Returns:
        The config to train with, and one sentence for each constant that differs from the checkpoint's.

    Raises:
        UserError: constants that come from the checkpoint were set to other values, on the command line, by the preset
            asked for, or in config.py since the checkpoint was written. The message lists all of them.
    """
    if checkpoint is None:
        return loaded.config, ()
    today = config_as_json(loaded.config)
    then = checkpoint.state.config
    changed = [name for name in today if name in then and today[name] != then[name]]
    edited = {name for name in today if loaded.file_values[name] != checkpoint.state.config_file.get(name)}
    set_now = {**dict.fromkeys(edited, "config.py"), **dict.fromkeys(loaded.explicitly_set, "command line or preset")}
    conflicts = [name for name in changed if name in KEPT_FIELDS and name in set_now]
    if conflicts:
        lines = [
            f"{name} is {today[name]!r} now ({set_now[name]}) and {then[name]!r} in the checkpoint"
            for name in conflicts
        ]
        raise UserError(
            "cannot resume with another architecture or another split into training and held-out data:\n  "
            + "\n  ".join(lines)
            + f"\nLeave these out, or set them back, to go on with {checkpoint.folder}; or start a new run with "
            "another --experiment-name."
        )
    kept = {name: then[name] for name in changed if name in KEPT_FIELDS}
    differences = [
        f"{name}: {then[name]!r} in the checkpoint, {today[name]!r} now; "
        + ("the checkpoint's is kept" if name in kept else "today's is used")
        for name in changed
    ]
    return config_from_json(Config, today | kept), tuple(differences)


@dataclass(frozen=True)
class DataComparison:
    """How a data set differs from that of the launch before."""

    differences: tuple[str, ...]  # a sentence each; empty if the clips are the same
    formerly_trained: tuple[Mapping[str, Any], ...]  # clips that earlier launches trained on, but this one does not


def compare_data(split_file: Path, report: Mapping[str, Any]) -> DataComparison:
    """Compare the split of a data set's clips with the one that the last launch wrote.

    Args:
        split_file: split.json of the run. If it is missing, or the data are synthetic, nothing is compared.
        report: the report of the data set as it is today.

    Raises:
        UserError: a clip or caption that was trained on would count as held out from now on; or the file is damaged.
    """
    then = read_split(split_file) if "training" in report else {}
    if "training" not in then:
        return DataComparison((), ())
    if "held_out" not in then:
        unknown = "data: an earlier version did not write down what its clips hold, so they cannot be compared"
        return DataComparison((unknown,), ())
    trained = [*then["training"], *then.get("formerly_trained", [])]
    _check_held_out(split_file, trained, then, report)
    today = set(map(_content, report["training"]))
    formerly = tuple(entry for entry in trained if _content(entry) not in today)
    return DataComparison(_differences(then, report), formerly)


def _check_held_out(
    split_file: Path, trained: Iterable[Mapping[str, Any]], then: Mapping[str, Any], report: Mapping[str, Any]
) -> None:
    if report["validation_shares_training_clips"]:
        return  # the data set announces that
    contents = set(map(_content, trained))
    captions = {entry["caption"].casefold() for entry in trained}
    clips = [entry["clip"] for entry in (*report["held_out"], *report["test"]) if _content(entry) in contents]
    known = set(then["held_out_captions"])  # held out then too: the last launch checked them
    seen = [
        repr(caption)
        for caption in report["held_out_captions"]
        if caption not in known and caption.casefold() in captions
    ]
    if clips or seen:
        raise UserError(
            f"the data set, MAX_CAPTION_LENGTH or the version has changed since {split_file} was written: "
            f"{named([*clips, *seen])} would count as held out, but was trained on. Put the data back as it was, or "
            "start a new run with another --experiment-name."
        )


def _differences(then: Mapping[str, Any], report: Mapping[str, Any]) -> tuple[str, ...]:
    before, now = listed_clips(then, "training"), listed_clips(report, "training")
    differences = []
    if before != now:
        changed = sorted({str(clip[0]) for clip in before ^ now})
        differences.append(
            f"data: {counted(len(now - before), 'training clip is', 'training clips are')} new or changed, "
            f"{counted(len(before - now), 'of the last launch is', 'of the last launch are')} gone or changed "
            f"({named(changed)}); the order of the clips is another one from here on"
        )
    held_out = {_content(entry) for entry in then["held_out"]}
    moved = [entry["clip"] for entry in report["training"] if _content(entry) in held_out]
    if moved and not then["validation_shares_training_clips"]:
        differences.append(
            f"data: {counted(len(moved), 'clip that was held out is', 'clips that were held out are')} trained on from "
            f"here on: {named(moved)}"
        )
    if listed_clips(then, "validation") != listed_clips(report, "validation"):
        differences.append(
            "data: validation is on other clips from here on; its losses do not compare with earlier ones"
        )
    return tuple(differences)


def _content(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return a key that clips with the same pictures share, whatever their names."""
    return (entry["sha256"], *entry["span"])


def named(names: Sequence[str]) -> str:
    """Return the first few names, and how many more there are, for a message."""
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more
