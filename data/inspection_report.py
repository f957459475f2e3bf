"""What an inspection found, in words and in numbers."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import imageio.v3
import numpy

from common.filmstrip import filmstrips
from data.clip_splits import ClipSplit, content_key, hash_order, split_notices
from data.inspection import ClipReader, InspectedClip, Inspection
from data.rows import SkippedRow, UnusableClip

LISTED_SKIPPED = 20  # clips that the text names; the JSON file names all


LISTED_KINDS = 5  # frame rates, resolutions, signers ...


LABEL_WIDTH = 14


@dataclass(frozen=True)
class CaptionUse:
    """What the text encoder makes of the captions."""

    encoder: str  # TEXT_ENCODER
    left_out: Mapping[str, int]  # characters that it does not know, and how often they occur
    silent: int  # captions of which nothing is left
    cut_off: int  # captions that are longer than MAX_CAPTION_LENGTH
    most_tokens: int  # MAX_CAPTION_LENGTH


def report_lines(path: str, inspection: Inspection, captions: CaptionUse, split: ClipSplit | None) -> list[str]:
    """Return the lines to print. `split` is None where the clips cannot be divided."""
    clips = inspection.usable
    absent = len(inspection.skipped) - len(inspection.unusable)
    counted = f"{len(clips)} usable, {len(inspection.unusable)} unusable"
    lines = [
        f"{path}: {inspection.recognised}",
        _line("clips", counted + (f", {absent} listed without a file" if absent else "")),
    ]
    if clips:
        lines += [
            _line("durations", _durations(clips)),
            _line("frame rates", _most_common(Counter(_frame_rate(clip) for clip in clips), " a second")),
            _line("resolutions", _most_common(Counter(_resolution(clip) for clip in clips))),
            *_caption_lines(clips, captions),
            _line("signers", _named(clips, "signer")),
            _line("languages", _named(clips, "language")),
            *_duplicate_lines(clips),
        ]
    if split is not None:
        test = f", test {len(split.test)}" if split.test else ""
        parts = f"training {len(split.training)}, held out {len(split.held_out)}{test}"
        lines.append(_line("splits", f"{parts} ({split.rule})"))
        lines += [_line("", notice) for notice in split_notices(split)]
    lines += [_line("note", note) for note in inspection.notes]
    return lines + _skipped_lines(inspection.skipped)


def report_json(path: str, inspection: Inspection, captions: CaptionUse, split: ClipSplit | None) -> dict[str, object]:
    """Return everything that was found, as JSON-compatible values."""
    part_of = {}
    if split is not None:
        parts = {"training": split.training, "held_out": split.held_out, "test": split.test}
        part_of = {clip.row.id: name for name, part in parts.items() for clip in part}
    return {
        "path": path,
        "format": inspection.format_name,
        "recognised": inspection.recognised,
        "notes": list(inspection.notes),
        "split_rule": None if split is None else split.rule,
        "text_encoder": captions.encoder,
        "characters_left_out": dict(captions.left_out),
        "captions_without_anything_left": captions.silent,
        "captions_cut_off": captions.cut_off,
        "clips": [
            {
                "clip": clip.row.id,
                "caption": clip.row.caption,
                "signer": clip.row.signer,
                "language": clip.row.language,
                "split": part_of.get(clip.row.id),
                "seconds": clip.facts.seconds,
                "frames": clip.facts.frames,
                "width": clip.facts.width,
                "height": clip.facts.height,
                "sha256": clip.digest,
            }
            for clip in inspection.usable
        ],
        "skipped": [
            {"clip": row.id, "reason": row.reason, "listed_without_a_file": row.is_absent} for row in inspection.skipped
        ],
    }


def _line(label: str, text: str) -> str:
    return f"{label:<{LABEL_WIDTH}}{text}"


def _durations(clips: Sequence[InspectedClip]) -> str:
    seconds = [clip.facts.seconds for clip in clips]
    total = sum(seconds)
    whole = f"{total:.0f} s" if total < 600 else f"{total / 3600:.1f} h"
    return f"{min(seconds):.1f} to {max(seconds):.1f} s, median {statistics.median(seconds):.1f} s; {whole} in all"


def _frame_rate(clip: InspectedClip) -> str:
    rate = clip.facts.frames / clip.facts.seconds
    return f"{rate:.3g}"


def _resolution(clip: InspectedClip) -> str:
    return f"{clip.facts.width} x {clip.facts.height}"


def _most_common(counted: Counter[str], unit: str = "") -> str:
    listed = ", ".join(f"{value}{unit} ({count})" for value, count in counted.most_common(LISTED_KINDS))
    more = len(counted) - LISTED_KINDS
    return f"{listed} and {more} others" if more > 0 else listed


def _caption_lines(clips: Sequence[InspectedClip], captions: CaptionUse) -> list[str]:
    lengths = [len(clip.row.caption) for clip in clips]
    different = len({clip.row.caption for clip in clips})
    lines = [
        _line(
            "captions",
            f"{different} different; {min(lengths)} to {max(lengths)} characters, "
            f"median {statistics.median(lengths):g}",
        )
    ]
    if captions.left_out:
        most = sorted(captions.left_out.items(), key=lambda item: (-item[1], item[0]))[:LISTED_SKIPPED]
        listed = ", ".join(f"{character!r} ({count})" for character, count in most)
        more = len(captions.left_out) - len(most)
        listed += f" and {more} others" if more > 0 else ""
        lines.append(_line("", f"left out, because TEXT_ENCODER={captions.encoder} does not know them: {listed}"))
    if captions.silent:
        text = f"nothing is left of {captions.silent}, which then look all the same: choose another TEXT_ENCODER"
        lines.append(_line("", text))
    if captions.cut_off:
        text = f"{captions.cut_off} are longer than MAX_CAPTION_LENGTH ({captions.most_tokens}) and will be cut off"
        lines.append(_line("", text))
    return lines


def _named(clips: Sequence[InspectedClip], field: str) -> str:
    names = Counter(clip.row.signer if field == "signer" else clip.row.language for clip in clips)
    nameless = names.pop(None, 0)
    if not names:
        return "none named"
    listed = f"{len(names)}: {_most_common(Counter({str(name): count for name, count in names.items()}))}"
    return f"{listed}; {nameless} clips name none" if nameless else listed


def _duplicate_lines(clips: Sequence[InspectedClip]) -> list[str]:
    """Say which clips show the same, and how many share a caption."""
    groups: dict[object, list[InspectedClip]] = {}
    for clip in clips:
        groups.setdefault(content_key(clip), []).append(clip)
    same = [group for group in groups.values() if len(group) > 1]
    other_caption = [group for group in same if len({clip.row.caption for clip in group}) > 1]
    counted = Counter(clip.row.caption for clip in clips)
    repeated = sum(count for count in counted.values() if count > 1)
    text = f"{sum(map(len, same))} clips have the same content as another; {repeated} the same caption"
    lines = [_line("duplicates", text)]
    for group in other_caption[:LISTED_KINDS]:
        listed = ", ".join(f"{clip.row.id} ({clip.row.caption!r})" for clip in group[:3])
        lines.append(_line("", f"the same content with different captions: {listed}"))
    return lines


def _skipped_lines(skipped: Sequence[SkippedRow]) -> list[str]:
    """Name what is unusable before what is merely absent."""
    ordered = sorted(skipped, key=lambda row: row.is_absent)
    lines = [
        _line("skipped" if number == 0 else "", f"{row.id} {row.reason}")
        for number, row in enumerate(ordered[:LISTED_SKIPPED])
    ]
    more = len(ordered) - LISTED_SKIPPED
    return [*lines, _line("", f"and {more} more; --json FILE names all")] if more > 0 else lines


CLIPS_SHOWN = 24


SHEET_LABEL_WIDTH = 260


LONGEST_NAME = 34


@dataclass(frozen=True)
class Sheet:
    """A picture of filmstrips."""

    png: bytes
    clips: int


def draw_sheet(clips: Sequence[InspectedClip], reader: ClipReader, seed: int) -> Sheet | None:
    """Draw filmstrips of a random choice of clips; None where there is no clip.

    Args:
        clips: usable ones.
        reader: decodes them, from the cache where they are in it.
        seed: of the choice.
    """
    rows: list[tuple[str, numpy.ndarray]] = []
    for clip in hash_order(clips, seed)[:CLIPS_SHOWN]:
        try:
            rows.append((f"{clip.row.caption}\n{clip.row.id[-LONGEST_NAME:]}", reader.clip(clip)))
        except UnusableClip:  # gone in this moment: the picture shows the others
            continue
    if not rows:
        return None
    return Sheet(imageio.v3.imwrite("<bytes>", filmstrips(rows, SHEET_LABEL_WIDTH), extension=".png"), len(rows))
