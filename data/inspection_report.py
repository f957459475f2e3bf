"""What an inspection found, in words, in numbers and in a picture."""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy

from common.console import counted
from common.filmstrip import filmstrips
from common.video_encoding import encode_png
from data.clip_splits import (
    ClipSplit,
    caption_key,
    captioned_differently,
    content_key,
    hash_order,
    one_spelling,
    split_notices,
)
from data.inspection import ClipReader, InspectedClip, Inspection
from data.lengths import ClipLengths
from data.rows import Notice, UnusableClip
from models.tokens import Unread

LISTED_SKIPPED = 20  # clips that the text names; the JSON file names all
LISTED_KINDS = 5  # frame rates, resolutions, signers ...
LABEL_WIDTH = 14
CLIPS_SHOWN = 24
SHEET_LABEL_WIDTH = 260
LONGEST_NAME = 34


@dataclass(frozen=True)
class InspectionReport:
    """What is reported of a data set."""

    path: str
    inspection: Inspection
    text_encoder: str  # TEXT_ENCODER
    unread: Unread  # what the text encoder does not read of the captions
    caption_notices: tuple[Notice, ...]
    split: ClipSplit | None  # None if the clips cannot be divided
    lengths: ClipLengths  # of the training

    def lines(self) -> list[str]:
        """Return the lines to print."""
        inspection, clips = self.inspection, self.inspection.usable
        absent = len(inspection.skipped) - len(inspection.unusable)
        usable = f"{len(clips)} usable, {len(inspection.unusable)} unusable"
        lines = [
            f"{self.path}: {inspection.recognised}",
            report_line("clips", usable + (f", {absent} listed without a file" if absent else "")),
        ]
        if clips:
            signers = one_spelling(clips)
            rates = Counter(f"{clip.facts.frames / clip.facts.seconds:.3g} a second" for clip in clips)
            resolutions = Counter(f"{clip.facts.width} x {clip.facts.height}" for clip in clips)
            lines += [
                report_line("durations", _durations(clips)),
                report_line("trained as", _frames(clips, self.lengths)),
                report_line("frame rates", _most_common(rates)),
                report_line("resolutions", _most_common(resolutions)),
                *self._caption_lines(),
                report_line("signers", _named([clip.row.signer and signers[clip.row.signer] for clip in clips])),
                report_line("languages", _named([clip.row.language for clip in clips])),
                *_duplicate_lines(clips),
            ]
        if self.split is not None:
            test = f", test {len(self.split.test)}" if self.split.test else ""
            parts = f"training {len(self.split.training)}, held out {len(self.split.held_out)}{test}"
            lines.append(report_line("splits", f"{parts} ({self.split.rule})"))
            lines += [report_line("", notice.text) for notice in split_notices(self.split)]
        lines += [report_line("note", notice.text) for notice in inspection.notices]
        return lines + self._skipped_lines()

    def as_json(self) -> dict[str, object]:
        """Return everything that was found, as JSON-compatible values."""
        part_of = {}
        if self.split is not None:
            parts = {"training": self.split.training, "held_out": self.split.held_out, "test": self.split.test}
            part_of = {clip.row.id: name for name, part in parts.items() for clip in part}
        return {
            "path": self.path,
            "format": self.inspection.format_name,
            "recognised": self.inspection.recognised,
            "notes": [notice.text for notice in self.inspection.notices],
            "split_rule": None if self.split is None else self.split.rule,
            "text_encoder": self.text_encoder,
            "characters_left_out": dict(self.unread.characters),
            "captions_without_anything_left": len(self.unread.silent),
            "captions_cut_off": self.unread.cut_off,
            "captions_alike": len(self.unread.alike),
            "longest_caption": self.unread.longest,
            "clips": [
                {
                    "clip": clip.row.id,
                    "caption": clip.row.caption,
                    "signer": clip.row.signer,
                    "language": clip.row.language,
                    "split": part_of.get(clip.row.id),
                    "seconds": clip.facts.seconds,
                    "frames": clip.facts.frames,
                    "trained_frames": self.lengths.of(clip.facts.seconds),
                    "width": clip.facts.width,
                    "height": clip.facts.height,
                    "changes": clip.facts.changes,
                    "sha256": clip.digest,
                }
                for clip in self.inspection.usable
            ],
            "skipped": [
                {"clip": row.id, "reason": row.reason, "listed_without_a_file": row.is_absent}
                for row in self.inspection.skipped
            ],
        }

    def _caption_lines(self) -> list[str]:
        captions = {caption_key(clip.row.caption) for clip in self.inspection.usable}
        lengths = [len(clip.row.caption) for clip in self.inspection.usable]
        number = f"{len(captions)} different" if len(captions) > 1 else "1 only"
        span = f"{min(lengths)} to {max(lengths)} characters, median {statistics.median(lengths):g}"
        texts = [f"{number}; {span if min(lengths) < max(lengths) else counted(lengths[0], 'character')}"]
        texts += [notice.text for notice in self.caption_notices]
        return _labelled("captions", texts)

    def _skipped_lines(self) -> list[str]:
        """Name what is unusable before what is merely absent."""
        ordered = sorted(self.inspection.skipped, key=lambda row: row.is_absent)
        texts = [f"{row.id} {row.reason}" for row in ordered[:LISTED_SKIPPED]]
        if (more := len(ordered) - LISTED_SKIPPED) > 0:
            texts.append(f"and {more} more; --json FILE names all")
        return _labelled("skipped", texts)


def draw_sheet(clips: Sequence[InspectedClip], reader: ClipReader, seed: int) -> tuple[bytes, int] | None:
    """Draw filmstrips of a random choice of usable clips: a PNG and how many it shows; None if there is no clip."""
    rows: list[tuple[str, numpy.ndarray]] = []
    for clip in hash_order(clips, seed)[:CLIPS_SHOWN]:
        try:
            rows.append((f"{clip.row.caption}\n{clip.row.id[-LONGEST_NAME:]}", reader.clip(clip)))
        except UnusableClip:  # gone in this moment: the picture shows the others
            continue
    if not rows:
        return None
    return encode_png(filmstrips(rows, SHEET_LABEL_WIDTH)), len(rows)


def report_line(label: str, text: str) -> str:
    """Return a line of the report."""
    return f"{label:<{LABEL_WIDTH}}{text}"


def _labelled(label: str, texts: Sequence[str]) -> list[str]:
    """Return a line for each text, of which the first has the label."""
    return [report_line("" if number else label, text) for number, text in enumerate(texts)]


def _durations(clips: Sequence[InspectedClip]) -> str:
    seconds = [clip.facts.seconds for clip in clips]
    total = sum(seconds)
    in_all = f"{total:.0f} s" if total < 600 else f"{total / 3600:.1f} h"
    return f"{min(seconds):.1f} to {max(seconds):.1f} s, median {statistics.median(seconds):.1f} s; {in_all} in all"


def _frames(clips: Sequence[InspectedClip], lengths: ClipLengths) -> str:
    frames = [lengths.of(clip.facts.seconds) for clip in clips]
    if not lengths.is_natural:
        return f"{lengths.max_frames} frames each, by CLIP_TIMING"
    span = f"{min(frames)} to {max(frames)} frames, median {statistics.median(frames):g}"
    return f"{span}, {lengths.frames_per_second:g} a second"


def _named(names: Sequence[str | None]) -> str:
    known = Counter(name for name in names if name is not None)
    if not known:
        return "none named"
    listed = f"{len(known)}: {_most_common(known)}"
    nameless = names.count(None)
    return f"{listed}; {counted(nameless, 'clip names', 'clips name')} none" if nameless else listed


def _most_common(numbers: Counter[str]) -> str:
    return _listed(numbers.most_common(), LISTED_KINDS)


def _listed(numbers: Sequence[tuple[str, int]], most: int) -> str:
    listed = ", ".join(f"{value} ({number})" for value, number in numbers[:most])
    return f"{listed} and {counted(len(numbers) - most, 'other')}" if len(numbers) > most else listed


def _duplicate_lines(clips: Sequence[InspectedClip]) -> list[str]:
    """Say which clips show the same, and how many share a caption."""
    contents = Counter(map(content_key, clips))
    same = sum(number for number in contents.values() if number > 1)
    other_caption = captioned_differently(clips)
    captions = Counter(caption_key(clip.row.caption) for clip in clips)
    repeated = sum(number for number in captions.values() if number > 1)
    texts = [f"{counted(same, 'clip')} have the same content as another; {repeated} the same caption"]
    for group in other_caption[:LISTED_KINDS]:
        listed = ", ".join(f"{clip.row.id} ({clip.row.caption!r})" for clip in group[:3])
        texts.append(f"the same content with different captions: {listed}")
    if (more := len(other_caption) - LISTED_KINDS) > 0:
        texts.append(f"and {more} more; --json FILE gives the sha256 of all clips")
    return _labelled("duplicates", texts)
