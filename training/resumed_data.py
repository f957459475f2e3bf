"""Whether a resumed run still has the clips that it began with."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.errors import UserError

NAMED = 3


def data_differences(split_file: Path, report: Mapping[str, Any]) -> tuple[str, ...]:
    """Compare the split of a data set's clips with the one that the last launch wrote.

    Args:
        split_file: split.json of the run; where there is none, or of data that are made and not brought, nothing is
            compared.
        report: of the data set as it is today.

    Returns:
        One sentence for people, or none where the clips are the same.

    Raises:
        UserError: a clip or caption that was trained on would count as held out from now on; or the file is damaged.
    """
    then = _read(split_file)
    if "training" not in then or "training" not in report:
        return ()
    if any("sha256" not in entry for entry in then["training"]):
        return ("data: an earlier version did not write down what its clips hold, so they cannot be compared",)
    _check_held_out(split_file, then, report)
    before, now = _clips(then), _clips(report)
    if before == now:
        return ()
    return (
        f"data: {len(now - before)} of the training clips are new or have changed, {len(before - now)} of the last "
        "launch's are gone or have changed; the order of the clips is another one from here on",
    )


def _read(split_file: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(split_file.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(
            f"{split_file} cannot be read ({error}): what was held out is not known. Restore it."
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{split_file} is not a JSON object: what was held out is not known. Restore it.")
    return content


def _clips(report: Mapping[str, Any]) -> set[tuple[str, str, str]]:
    return {(entry["clip"], entry["caption"], entry["sha256"]) for entry in report["training"]}


def _check_held_out(split_file: Path, then: Mapping[str, Any], report: Mapping[str, Any]) -> None:
    if report["validation_shares_training_clips"]:
        return  # and says so
    trained_clips = {entry["clip"] for entry in then["training"]}
    trained_captions = {entry["caption"] for entry in then["training"]}
    clips = [entry["clip"] for entry in report["validation"] if entry["clip"] in trained_clips]
    captions = [repr(caption) for caption in report["held_out_captions"] if caption in trained_captions]
    if clips or captions:
        seen = [*clips, *captions]
        more = f" and {len(seen) - NAMED} more" if len(seen) > NAMED else ""
        raise UserError(
            f"the data set has changed since {split_file} was written: {', '.join(seen[:NAMED])}{more} would count as "
            "held out, but was trained on. Put the data back as it was, or start a new run with another "
            "--experiment-name."
        )
