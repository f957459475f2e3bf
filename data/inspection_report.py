"""What an inspection found, in words, in numbers and in a picture."""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy

from common.console import counted
from common.filmstrip import TILE_SIDE, filmstrips
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
from data.inspection import ClipReader, InspectedClip, Inspection, is_still
from data.lengths import ClipLengths
from data.media.resample import ClipShape, Fit, window
from data.records import ClipSource
from data.rows import Notice, UnusableClip
from models.tokens import Unread

LISTED_SKIPPED = 20  # clips that the text names; the JSON file names all
LISTED_KINDS = 5  # frame rates, resolutions, signers ...
LABEL_WIDTH = 14
CLIPS_SHOWN = 24
SHEET_LABEL_WIDTH = 260
BOX_LINE, BOX_COLOUR = 2, (255, 210, 0)  # pixels of the sheet; red, green, blue
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
    shape: ClipShape  # of the training

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
                report_line("trained as", _frames(clips, self.shape.lengths)),
                report_line("frame rates", _most_common(rates)),
                report_line("resolutions", _most_common(resolutions)),
                report_line("movement", _movement(clips, self.shape.fit)),
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
                    "trained_frames": self.shape.lengths.of(clip.facts.seconds),
                    "width": clip.facts.width,
                    "height": clip.facts.height,
                    "changes": clip.facts.changes,
                    "region": None if clip.facts.region is None else asdict(clip.facts.region),
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
    """Draw filmstrips of a random choice of usable clips: a PNG and how many it shows; None if there is no clip.

    Where clips are cut to the region in which they move, a strip above shows the whole pictures with a box around it.
    """
    rows: list[tuple[str, numpy.ndarray]] = []
    shown, is_cut = 0, reader.shape.fit == "signer"
    for clip in hash_order(clips, seed)[: CLIPS_SHOWN // 2 if is_cut else CLIPS_SHOWN]:
        try:
            if is_cut and clip.row.media.kind != "pose":
                rows.append((f"{clip.row.caption}\nas it is", _whole_with_box(clip, reader)))
            rows.append((f"{clip.row.caption}\n{clip.row.id[-LONGEST_NAME:]}", reader.clip(clip)))
            shown += 1
        except UnusableClip:  # gone in this moment: the picture shows the others
            continue
    return (encode_png(filmstrips(rows, SHEET_LABEL_WIDTH)), shown) if rows else None


def draw_rows(source: ClipSource) -> tuple[bytes, int]:
    """Draw filmstrips of the first clips of the first epoch: a PNG and how many it shows."""
    rows = [source.row(0, index) for index in range(min(CLIPS_SHOWN, len(source)))]
    return encode_png(filmstrips([(row.caption, source.load(row)) for row in rows], SHEET_LABEL_WIDTH)), len(rows)


def _whole_with_box(clip: InspectedClip, reader: ClipReader) -> numpy.ndarray:
    """Return a clip's whole pictures, as large as they are on a sheet, with a box around what the training sees."""
    shape, facts = reader.shape, clip.facts
    scale = -(-TILE_SIDE // shape.image_size[0])
    tall, wide = shape.image_size[0] * scale, shape.image_size[1] * scale
    whole = replace(reader, shape=replace(shape, image_size=(tall, wide), fit="pad"))
    pixels_THWC = whole.clip(clip).copy()
    top, left, rows, columns = window(facts.height, facts.width, shape, facts.region)
    scale_down = min(tall / facts.height, wide / facts.width)
    first = (tall - facts.height * scale_down) / 2 + top * scale_down
    second = (wide - facts.width * scale_down) / 2 + left * scale_down
    corners = [first, first + rows * scale_down - BOX_LINE, second, second + columns * scale_down - BOX_LINE]
    most = [side - BOX_LINE for side in (tall, tall, wide, wide)]
    edges = [round(min(max(edge, 0), last)) for edge, last in zip(corners, most, strict=True)]
    for edge in edges[:2]:
        pixels_THWC[:, edge : edge + BOX_LINE, edges[2] : edges[3] + BOX_LINE] = BOX_COLOUR
    for edge in edges[2:]:
        pixels_THWC[:, edges[0] : edges[1] + BOX_LINE, edge : edge + BOX_LINE] = BOX_COLOUR
    return pixels_THWC


def _movement(clips: Sequence[InspectedClip], fit: Fit) -> str:
    """Say in how large a part of the picture clips move, and how many are cut to it."""
    shares = [clip.facts.region.share for clip in clips if clip.facts.region is not None]
    still = sum(map(is_still, clips))
    drawn = len(clips) - len(shares) - still
    texts = []
    if shares:
        span = f"{min(shares):.0%} to {max(shares):.0%} of the picture"
        texts.append(f"within {span}, median {statistics.median(shares):.0%}")
    if still:
        texts.append(f"none in {counted(still, 'clip')}")
    if drawn:
        texts.append(f"{counted(drawn, 'clip is', 'clips are')} drawn")
    if fit == "signer":
        texts.append(f"{len(shares)} cut to it and {still} to the centre")
    return "; ".join(texts)


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
