"""Clips that people bring, in any format, divided for the trainer."""

import hashlib
import math
from collections import Counter
from collections.abc import Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path, PurePosixPath

import numpy

from common.console import command, counted
from common.errors import UserError
from config import Config
from data.captions import (
    NO_CAPTION,
    caption_measures,
    caption_notices,
    check_captions,
    normalise_caption,
    shown_caption,
)
from data.clip_splits import (
    ClipSplit,
    asks_for_unknown_words,
    caption_key,
    captioned_differently,
    hash_order,
    split_clips,
    split_notices,
)
from data.composing import ComposedSplits, Composition, compose
from data.inspection import ClipReader, InspectedClip, Inspection
from data.records import ClipRow, DataSplits, DataSummary
from data.rows import Notice, SkippedRow, UnusableClip
from models.tokens import Tokenizer, as_read, unread

LARGEST_UNUSABLE_SHARE = 0.5
NAMED_CLIPS = 5  # skipped clips that a message names
PROMPTS_OF_EACH_KIND = 3


@dataclass(frozen=True)
class InspectedClips:
    """Some of a data set's clips, the same in every epoch."""

    reader: ClipReader
    clips: tuple[InspectedClip, ...]

    def __len__(self) -> int:
        return len(self.clips)

    def row(self, epoch: int, index: int) -> ClipRow:
        if not 0 <= index < len(self.clips):
            raise IndexError(index)
        clip = self.clips[index]
        return ClipRow(clip.row.id, clip.row.caption, self.reader.frames(clip), clip.facts.seconds)

    def lengths(self) -> numpy.ndarray:
        return numpy.array([self.reader.frames(clip) for clip in self.clips], dtype=numpy.int64)

    def groups(self) -> tuple[tuple[int, ...], ...] | None:
        """Return the clips of each shard, if the data set comes in shards."""
        if not self.clips or any(clip.row.media.member is None for clip in self.clips):
            return None
        indices: dict[str, list[int]] = {}
        for index, clip in enumerate(self.clips):
            indices.setdefault(clip.row.media.path, []).append(index)
        return tuple(tuple(indices[path]) for path in sorted(indices))

    @cached_property
    def _clip_by_id(self) -> dict[str, InspectedClip]:
        return {clip.row.id: clip for clip in self.clips}

    def load(self, row: ClipRow) -> numpy.ndarray:
        return self.reader.load(self._clip_by_id[row.id])


@dataclass(frozen=True)
class ClipSetSplits(DataSplits):
    """The training, validation and real clips of DATA_ROOT; `open_clip_set` makes it."""

    reader: ClipReader
    split: ClipSplit
    tokenizer: Tokenizer

    @cached_property
    def _clips_by_caption(self) -> dict[str, list[InspectedClip]]:
        """The clips of each caption, those that training does not show first."""
        clips: dict[str, list[InspectedClip]] = {}
        for clip in (*self._unseen, *self.split.training):
            clips.setdefault(caption_key(clip.row.caption), []).append(clip)
        return clips

    @property
    def _unseen(self) -> tuple[InspectedClip, ...]:
        return () if self.split.is_shared else self.split.held_out

    @cached_property
    def _unseen_captions(self) -> frozenset[str]:
        return frozenset(caption_key(clip.row.caption) for clip in self._unseen)

    @cached_property
    def _training_captions(self) -> frozenset[Hashable]:
        return frozenset(key for clip in self.split.training for key in self._keys(clip.row.caption))

    def _keys(self, caption: str) -> tuple[Hashable, ...]:
        return caption_key(caption), as_read(self.tokenizer, caption)

    def is_held_out(self, caption: str) -> bool:
        """Return whether no training clip has this caption, nor one that the model cannot tell from it."""
        return self._training_captions.isdisjoint(self._keys(normalise_caption(caption)))

    def real_clips(self, caption: str, most: int) -> list[numpy.ndarray]:
        """Return clips with this caption, capitals or not, held-out ones first; none that has gone."""
        found: list[numpy.ndarray] = []
        for clip in self._clips_by_caption.get(caption_key(normalise_caption(caption)), []):
            if len(found) < most:
                with suppress(UnusableClip):
                    found.append(self.reader.clip(clip))
        return found

    def has_unseen_clip(self, caption: str) -> bool:
        """Return whether there is a clip with this caption that training does not show."""
        return caption_key(normalise_caption(caption)) in self._unseen_captions


def check_usable(path: Path, inspection: Inspection, is_reported: bool = False) -> None:
    """Refuse a data set of which too little can be used.

    Args:
        path: DATA_ROOT.
        inspection: what it holds.
        is_reported: the notices and the clips with what is wrong with them have just been printed.

    Raises:
        UserError: it holds no usable clip, or most of its clips cannot be used.
    """
    bad, total = len(inspection.unusable), len(inspection.usable) + len(inspection.unusable)
    if inspection.usable and bad <= LARGEST_UNUSABLE_SHARE * total:
        return
    if not total:
        raise UserError(
            f"DATA_ROOT={str(path)!r}: it lists {counted(len(inspection.skipped), 'clip')}, and none is there. "
            f"{name_skipped(inspection.skipped)}. Put the videos below it, or correct the list."
        )
    notes = "".join(f" Note: {notice.text}." for notice in inspection.notices if notice.topic != "pictures")
    notes = "" if is_reported else notes
    if bad == total and all(row.reason.startswith(NO_CAPTION) for row in inspection.unusable):
        clip = PurePosixPath(inspection.unusable[0].id)
        raise UserError(
            f"DATA_ROOT={str(path)!r}: no clip has a caption: write {clip.with_suffix('.txt')} beside {clip}, and so "
            f"on.{notes}"
        )
    named = "" if is_reported else f" {name_skipped(inspection.unusable)}."
    more = "" if is_reported else f"; {_inspect_command(path)} names them all"
    raise UserError(
        f"DATA_ROOT={str(path)!r}: {bad} of {counted(total, 'clip')} cannot be used, which looks like a mistake."
        f"{named}{notes} Put them right or take them away{more}."
    )


def open_clip_set(config: Config, inspection: Inspection, reader: ClipReader, tokenizer: Tokenizer) -> DataSplits:
    """Turn the inspected clips of DATA_ROOT into what is trained on and what is held out. Clips are never mirrored.

    Raises:
        UserError: too little of the data set can be used or read, or it cannot be divided as asked.
    """
    path = config.DATA_ROOT
    assert path is not None
    check_usable(path, inspection)
    captions = [clip.row.caption for clip in inspection.usable]
    lost = unread(tokenizer, captions)
    check_captions(config, lost, len(captions))
    split = split_as_configured(config, inspection, tokenizer)
    notices = (
        *inspection_notices(inspection),
        *_contradictions(inspection),
        *caption_notices(config, lost, tokenizer, captions),
        *split_notices(split),
        *_cache_notices(split, reader),
    )
    details, measures = f"More: {_inspect_command(path)}", caption_measures(lost, len(captions))
    if config.COMPOSE_SIGNS > 1:
        composed = compose(config, split, reader, tokenizer)
        description = f"{path}: {inspection.recognised}; {composed.text} ({split.rule})"
        report = _report(config, inspection, split, ()) | _composed_report(composed)
        return ComposedSplits(
            summary=DataSummary(description, report, notices, details, measures),
            training=composed.training,
            validation=composed.validation,
            validation_of_trained=None,
            symbols=None,
            default_prompts=composed.default_prompts,
            split=composed.split,
        )
    validation = hash_order(split.held_out, config.SEED)[: config.VALIDATION_CLIPS]
    trained = None
    if asks_for_unknown_words(split):
        trained = InspectedClips(reader, hash_order(split.training, config.SEED)[: config.VALIDATION_CLIPS])
    return ClipSetSplits(
        summary=DataSummary(
            description=_description(path, inspection, split, len(validation)),
            report=_report(config, inspection, split, validation),
            notices=notices,
            details=details,
            measures=measures,
        ),
        training=InspectedClips(reader, split.training),
        validation=InspectedClips(reader, validation),
        validation_of_trained=trained,
        symbols=None,
        default_prompts=_default_prompts(split.training, validation),
        reader=reader,
        split=split,
        tokenizer=tokenizer,
    )


def split_as_configured(config: Config, inspection: Inspection, tokenizer: Tokenizer) -> ClipSplit:
    """Divide the usable clips; see `split_clips`."""
    return split_clips(
        inspection.usable,
        config.SPLIT_BY,
        config.VALIDATION_FRACTION,
        config.SEED,
        partial(as_read, tokenizer),
        are_signs=config.COMPOSE_SIGNS > 1,
    )


def inspection_notices(inspection: Inspection) -> tuple[Notice, ...]:
    """Return what is said of the files: how they were read, which are left out and why."""
    notices = list(inspection.notices)
    if bad := inspection.unusable:
        notices.append(Notice("clips", f"{len(bad)} cannot be used: {name_skipped(bad)}"))
    if absent := [row for row in inspection.skipped if row.is_absent]:
        count = counted(len(absent), "that is listed has", "that are listed have")
        notices.append(Notice("clips", f"{count} no file, such as {absent[0].id}"))
    return tuple(notices)


def _contradictions(inspection: Inspection) -> tuple[Notice, ...]:
    """Return what is said of files that show the same under several captions; a list may give one file several."""
    of_files = {clip.row.media: clip for clip in inspection.usable}
    groups = captioned_differently(of_files.values())
    if not groups:
        return ()
    named = " and ".join(f"{clip.row.id} ({shown_caption(clip.row.caption)})" for clip in groups[0][:2])
    count = counted(sum(map(len, groups)), "shows", "show")
    return (Notice("clips", f"{count} the same as another with another caption, such as {named}: correct one"),)


def _inspect_command(path: Path) -> str:
    return command("python", "-m", "data", "inspect", path)


def name_skipped(skipped: Sequence[SkippedRow]) -> str:
    """Return the first skipped clips with their reasons, and how many more there are."""
    named = ", ".join(f"{row.id} {row.reason}" for row in skipped[:NAMED_CLIPS])
    more = len(skipped) - NAMED_CLIPS
    return f"{named} and {more} more" if more > 0 else named


def _description(path: Path, inspection: Inspection, split: ClipSplit, validation: int) -> str:
    test = f", {len(split.test)} for testing" if split.test else ""
    held_out = (
        f"{validation} of {len(split.held_out)} held-out ones" if validation < len(split.held_out) else validation
    )
    return (
        f"{path}: {inspection.recognised}; {counted(len(split.training), 'clip')} for training, {held_out} for "
        f"validation{test} ({split.rule})"
    )


def _cache_notices(split: ClipSplit, reader: ClipReader) -> tuple[Notice, ...]:
    limit = reader.cache.limit_bytes
    needed = sum(map(reader.frames, split.training)) * math.prod(reader.shape.image_size) * 3
    if needed <= limit:
        return ()
    text = (
        f"the decoded clips take {needed / 1e9:.1f} GB, more than CACHE_LIMIT_GB ({limit / 1e9:g}): "
        "what does not fit is decoded again in every epoch"
    )
    return (Notice("cache", text),)


def _report(
    config: Config, inspection: Inspection, split: ClipSplit, validation: Sequence[InspectedClip]
) -> dict[str, object]:
    """Return the split in full, for the run folder."""

    def listed(clips: Sequence[InspectedClip]) -> list[dict[str, object]]:
        return [
            {
                "clip": clip.row.id,
                "caption": clip.row.caption,
                "signer": clip.row.signer,
                "sha256": clip.digest,
                "span": [clip.row.media.span.start, clip.row.media.span.end],
            }
            for clip in clips
        ]

    seen = {caption_key(clip.row.caption) for clip in split.training}
    captions = {clip.row.caption for clip in inspection.usable}
    return {
        "data": inspection.format_name,
        "root": str(config.DATA_ROOT),
        "seed": config.SEED,
        "rule": split.rule,
        "validation_shares_training_clips": split.is_shared,
        "held_out_captions": sorted(caption for caption in captions if caption_key(caption) not in seen),
        "training": listed(split.training),
        "validation": listed(validation),
        "held_out": listed(split.held_out),
        "test": listed(split.test),
        "left_out": listed(split.left_out),
        "skipped": [{"clip": row.id, "reason": row.reason} for row in inspection.skipped],
    }


def _composed_report(composed: Composition) -> dict[str, object]:
    """Return what the report of composed sentences has of its own."""
    composer = composed.validation.composer
    rows = [(row, composer.clips(row)) for row in composed.validation.rows]
    return {
        "compose_signs": composed.split.max_signs,
        "signs": dict(sorted(composed.split.signs.sign_of.items())),
        "held_out_sentence_fraction": composed.split.held_out_sentence_fraction,
        "held_out_pair_fraction": composed.split.held_out_pair_fraction,
        "validation": [
            {
                "clip": row.id,
                "caption": row.caption,
                "signer": None,
                "sha256": hashlib.sha256("".join(each.clip.digest for each in signs).encode()).hexdigest(),
                "span": [0.0, None],
                "signs": [each.clip.row.id for each in signs],
            }
            for row, signs in rows
        ],
    }


def _default_prompts(training: Sequence[InspectedClip], validation: Sequence[InspectedClip]) -> tuple[str, ...]:
    numbers = Counter(clip.row.caption for clip in training)
    frequent = [caption for caption, _ in numbers.most_common(PROMPTS_OF_EACH_KIND)]
    first = list(dict.fromkeys(clip.row.caption for clip in validation))[:PROMPTS_OF_EACH_KIND]
    return tuple(dict.fromkeys([*frequent, *first]))
