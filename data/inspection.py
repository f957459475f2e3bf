"""Reading every clip of a data set before anything is trained on it: which can be used, and what is wrong with others.

Every clip is decoded once from beginning to end, because nothing less tells whether it can be. The result goes into the
cache, and what was found out is remembered: the next start reads only what is new or has changed.
"""

import json
import math
import os
import shlex
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy

from common.console import with_progress
from common.errors import UserError
from common.field_types import FRAME_STEP, MOST_FRAMES
from data.cache import ClipCache
from data.lengths import ClipLengths
from data.media.decode import DECODING_VERSION, decode_media, media_digest, media_stamp
from data.media.files import printable
from data.media.motion import Region, grey_copy, moving_frames
from data.media.resample import Change, ClipShape, DecodedClip, MediaFacts
from data.rows import Manifest, ManifestRow, Media, Notice, SkippedRow, UnusableClip
from data.verdicts import Verdict, VerdictStore

MOTION_VERSION = 1  # raised when a clip would be found to move at other times: old cache entries then do not count
MOST_READERS = 8  # threads: decoding leaves Python's lock
LEAST_FRAMES_PER_SECOND = 8.0  # that may be left of a clip without a word: below, movements are jumps
MOST_PROPOSED = 3  # folders to be allowed
LARGEST_LOST_SHARE = 0.2  # of a picture's side, that CLIP_FIT may cut off or make black without a word

Thing = TypeVar("Thing")
Result = TypeVar("Result")


@dataclass(frozen=True)
class InspectedClip:
    """A clip that was decoded once from beginning to end, at this start or an earlier one."""

    row: ManifestRow
    digest: str  # sha256 of its content
    stamp: str  # what the file system said of it then (data.media.decode.media_stamp)
    facts: MediaFacts


@dataclass(frozen=True)
class Inspection:
    """What a data set holds."""

    format_name: str  # as DATA_FORMAT calls it
    recognised: str  # for people: what it was taken for, and why
    root: Path
    usable: tuple[InspectedClip, ...]
    skipped: tuple[SkippedRow, ...]
    notices: tuple[Notice, ...]  # of its lists and files

    @property
    def unusable(self) -> tuple[SkippedRow, ...]:
        """Return what was skipped because something is wrong with it; clips that were never there do not count."""
        return tuple(row for row in self.skipped if not row.is_absent)


@dataclass(frozen=True)
class ClipReader:
    """Decodes the clips of one data set into arrays of a training's shape, through the cache."""

    root: Path
    shape: ClipShape
    cache: ClipCache

    def clip(self, clip: InspectedClip) -> numpy.ndarray:
        """Return a clip as uint8 [T, H, W, 3], from the cache if it was decoded before.

        Raises:
            UnusableClip: it cannot be decoded any more, or is no longer the one that was inspected.
        """
        return self.cache.get_or_make(self._key_of(clip), lambda: self._decode(clip))

    def load(self, clip: InspectedClip) -> numpy.ndarray:
        """Return a clip as `clip` does.

        Raises:
            UserError: it cannot be decoded any more, or is no longer the one that was inspected.
        """
        try:
            return self.clip(clip)
        except UnusableClip as error:
            raise UserError(f"{self.root}: {clip.row.id} {error}: put it back, or start again without it.") from error

    def frames(self, clip: InspectedClip) -> int:
        """Return how many frames a clip has."""
        return self.shape.lengths.of(clip.facts.seconds)

    def moving_frames(self, clip: InspectedClip) -> tuple[int, int] | None:
        """Return `data.media.motion.moving_frames` of a clip as `clip` returns it, from the cache if it is known.

        Raises:
            UserError: see `load`.
        """
        key = ("moving", MOTION_VERSION, *self._key_of(clip))

        def find() -> numpy.ndarray:
            pixels_THWC = self.load(clip)
            is_moving_T = numpy.zeros(len(pixels_THWC), numpy.uint8)
            if (found := moving_frames([grey_copy(frame) for frame in pixels_THWC])) is not None:
                is_moving_T[slice(*found)] = 1
            return is_moving_T

        moving = numpy.flatnonzero(self.cache.get_or_make(key, find))
        return (int(moving[0]), int(moving[-1]) + 1) if len(moving) else None

    def keep(self, row: ManifestRow, digest: str, decoded: DecodedClip) -> None:
        """Put a clip that has just been decoded into the cache, unless it is there."""
        key = self._key(row, digest, len(decoded.pixels_THWC), decoded.facts.region)
        self.cache.get_or_make(key, lambda: decoded.pixels_THWC)

    def _key_of(self, clip: InspectedClip) -> tuple[str | int | float, ...]:
        return self._key(clip.row, clip.digest, self.frames(clip), clip.facts.region)

    def _key(self, row: ManifestRow, digest: str, frames: int, region: Region | None) -> tuple[str | int | float, ...]:
        span = row.media.span
        end = "end" if span.end is None else span.end
        source = ("clip", DECODING_VERSION, row.media.kind, digest, span.start, end, row.media.frames_per_second)
        kept = astuple(region) if region is not None and self.shape.fit == "signer" else ()
        return (*source, frames, *self.shape.image_size, self.shape.fit, *kept)

    def _decode(self, clip: InspectedClip) -> numpy.ndarray:
        media = clip.row.media
        stamp = media_stamp(self.root, media)
        if stamp != clip.stamp and not self._is_same(clip):
            raise UnusableClip("has changed since the data set was opened")
        decoded = decode_media(self.root, media, self.shape, clip.facts)
        check_unchanged(self.root, media, stamp)
        return decoded.pixels_THWC

    def _is_same(self, clip: InspectedClip) -> bool:
        """Return whether the content is what it was; it may have been copied or touched."""
        try:
            return media_digest(self.root, clip.row.media) == clip.digest
        except UnusableClip:
            return False


def check_unchanged(root: Path, media: Media, stamp: str) -> None:
    """Refuse a clip whose files have changed while they were read: its pixels and its digest may not belong together.

    Raises:
        UnusableClip: they have.
    """
    if media_stamp(root, media) != stamp:
        raise UnusableClip("was written to while it was read")


def inspect_clips(
    format_name: str, recognised: str, manifest: Manifest, reader: ClipReader, store: VerdictStore
) -> Inspection:
    """Read every clip of a manifest of which the store knows nothing; see `Inspection` for the names."""
    inspector = _Inspector(reader, store)
    try:
        threads = min(MOST_READERS, os.cpu_count() or 1)
        found = map_in_threads(inspector.inspect, manifest.rows, "Reading clips", threads)
    finally:
        store.write()
    store.tidy()
    usable = tuple(clip for clip in found if isinstance(clip, InspectedClip))
    skipped = (*manifest.skipped, *(row for row in found if isinstance(row, SkippedRow)))
    notices = (*manifest.notices, *outside_notices(skipped), *picture_notices(usable, reader.shape))
    return Inspection(format_name, recognised, manifest.root, usable, skipped, notices)


def outside_notices(skipped: Sequence[SkippedRow]) -> tuple[Notice, ...]:
    """Return what would have to be allowed, were all that leads out of the data set's folder to be read.

    The home folder and those above it are never proposed: too much else lies there.
    """
    outside = [row for row in skipped if row.outside]
    if not outside:
        return ()
    home = Path(os.path.realpath(os.path.expanduser("~")))
    folders = {folder for row in outside if not home.is_relative_to(folder := Path(row.outside))}
    names = sorted(str(folder) for folder in folders if folders.isdisjoint(folder.parents))
    lead = "1 path leads" if len(outside) == 1 else f"{len(outside)} paths lead"
    option = shlex.quote(printable(names[0] if len(names) == 1 else json.dumps(names[:MOST_PROPOSED])))
    more = " and others" if len(names) > MOST_PROPOSED else ""
    remedy = f"to read there, add --data-allow {option}{more}" if names else "put what it leads to into that folder"
    note = f"{lead} out of the data set's folder, such as {outside[0].id}: {remedy}"
    return (Notice("files", note),)


def picture_notices(clips: Sequence[InspectedClip], shape: ClipShape) -> tuple[Notice, ...]:
    """Return how the pictures that are trained on differ from those that are stored, where that is not plain."""
    reasons: dict[Change, str] = {
        "turned": "turned upright, as the file says",
        "mirrored": "mirrored, as the file says and players do: the other hand signs (if wrong, encode anew)",
        "transparent": "transparent, shown on white",
        "tone-mapped": "with high dynamic range (HLG or PQ), tone-mapped to an ordinary one",
    }
    texts = []
    for change, reason in reasons.items():
        if changed := [clip.row.id for clip in clips if change in clip.facts.changes]:
            texts.append(f"{len(changed)} of {len(clips)} {reason}, such as {changed[0]}")
    if text := _too_long(clips, shape.lengths):
        texts.append(text)
    shares = [(lost_share(clip, shape), clip.row.id) for clip in clips]
    lost = [(share, name) for share, name in shares if share > LARGEST_LOST_SHARE]
    if shape.fit == "signer" and (still := [clip.row.id for clip in clips if is_still(clip)]):
        texts.append(
            f"{len(still)} of {len(clips)} show no movement, so that CLIP_FIT='signer' cuts their centre out as 'crop' "
            f"does, such as {still[0]}"
        )
    if lost:
        tall, wide = shape.image_size
        share, name = max(lost, key=lambda pair: pair[0])
        wanted = "square" if tall == wide else f"{wide} wide and {tall} high"
        done, other = ("added in black", "crop") if shape.fit == "pad" else ("cut off", "pad")
        texts.append(
            f"{len(lost)} of {len(clips)} made {wanted} by CLIP_FIT={shape.fit!r}: {share:.0%} {done} in {name}; "
            f"{other!r} would not"
        )
    return tuple(Notice("pictures", text) for text in texts)


def with_one_region(clips: Sequence[InspectedClip]) -> tuple[InspectedClip, ...]:
    """Give all clips the smallest region that holds those in which each moves.

    Clips that are joined to one must not differ in it: the signer would jump, and change in size.
    """
    regions = [astuple(clip.facts.region) for clip in clips if clip.facts.region is not None]
    if not regions:
        return tuple(clips)
    tops, lefts, bottoms, rights = zip(*regions, strict=True)
    whole = Region(min(tops), min(lefts), max(bottoms), max(rights))
    return tuple(
        clip if clip.row.media.kind == "pose" else replace(clip, facts=replace(clip.facts, region=whole))
        for clip in clips
    )


def is_still(clip: InspectedClip) -> bool:
    """Return whether a clip, other than a drawn pose, has no region in which it moves."""
    return clip.facts.region is None and clip.row.media.kind != "pose"


def _too_long(clips: Sequence[InspectedClip], lengths: ClipLengths) -> str:
    """Return what is said of clips that last so long that MAX_FRAMES shows them faster than they are, or in jumps."""
    most = lengths.max_frames
    if lengths.is_natural:
        long = [clip for clip in clips if lengths.is_shortened(clip.facts.seconds)]
        rate = lengths.frames_per_second
    else:
        rate = LEAST_FRAMES_PER_SECOND
        long = [clip for clip in clips if clip.facts.frames > most and most < rate * clip.facts.seconds]
    if not long:
        return ""
    longest = max(long, key=lambda clip: clip.facts.seconds)
    seconds, name = longest.facts.seconds, longest.row.id
    needed = FRAME_STEP * math.ceil(rate * seconds / FRAME_STEP)
    remedy = f"MAX_FRAMES={needed} would do" if needed <= MOST_FRAMES else "cut it into shorter clips"
    if lengths.is_natural:
        done = f"{seconds * rate / most:.1f} times as fast is {name}"
        counts = f"{len(long)} of {len(clips)} ({len(long) / len(clips):.1%}) too long for MAX_FRAMES={most}"
        return f"{counts} and shown faster, so that their speed is lost: {done}; {remedy}"
    return (
        f"{len(long)} of {len(clips)} too long for MAX_FRAMES={most}: {most / seconds:.1f} frames a second are left of "
        f"{name}, and movements become jumps below {LEAST_FRAMES_PER_SECOND:g}; {remedy}"
    )


def lost_share(clip: InspectedClip, shape: ClipShape) -> float:
    """Return which share of a side of a clip's pictures is cut off, or of a frame's black.

    It is 0 for drawn poses, and where the region in which a clip moves is what is wanted.
    """
    if shape.fit == "signer" and not is_still(clip):
        return 0.0
    tall, wide = shape.image_size
    sides = clip.facts.width * tall, clip.facts.height * wide
    return 0.0 if clip.row.media.kind == "pose" else 1 - min(sides) / max(sides)


class _Inspector:
    def __init__(self, reader: ClipReader, store: VerdictStore) -> None:
        self._reader = reader
        self._store = store
        self._digests: dict[tuple[str, str], str] = {}  # of complete files, of which many clips may be parts

    def inspect(self, row: ManifestRow) -> InspectedClip | SkippedRow:
        try:
            stamp = media_stamp(self._reader.root, row.media)
            verdict = self._store.get(row.media, stamp)
            if verdict is None:
                verdict = self._decode(row, stamp)
                self._store.add(row.media, stamp, verdict)
        except UnusableClip as error:
            return SkippedRow(row.id, str(error), outside=error.outside)
        return InspectedClip(row, verdict.digest, stamp, verdict.facts)

    def _decode(self, row: ManifestRow, stamp: str) -> Verdict:
        digest = self._digest(row.media, stamp)
        decoded = decode_media(self._reader.root, row.media, self._reader.shape)
        check_unchanged(self._reader.root, row.media, stamp)
        self._reader.keep(row, digest, decoded)
        return Verdict(digest, decoded.facts)

    def _digest(self, media: Media, stamp: str) -> str:
        if media.member is not None:
            return media_digest(self._reader.root, media)
        key = (media.path, stamp)
        if key not in self._digests:
            self._digests[key] = media_digest(self._reader.root, media)
        return self._digests[key]


def map_in_threads(
    work: Callable[[Thing], Result], things: Sequence[Thing], label: str, most_threads: int
) -> list[Result]:
    """Return what `work` makes of each thing, in order, and show a progress bar.

    If a call raises, or a signal comes, the things that wait are dropped.
    """
    pool = ThreadPoolExecutor(most_threads)
    try:
        done = pool.map(work, things)
        return list(with_progress(done, label, len(things)))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
