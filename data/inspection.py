"""Going through a data set before anything is trained on it: which clips can be used, and what is wrong with the rest.

Every clip is decoded once from beginning to end, because nothing less tells whether it can be. What comes out goes into
the cache, and what was found out is remembered: the next start looks only at what is new or has changed.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from data.clip_reader import ClipReader, InspectedClip, check_unchanged
from data.manifest import Manifest, ManifestRow, Media, SkippedRow
from data.media.decode import decode_media, media_digest, media_stamp
from data.unusable import UnusableClip
from data.verdicts import Verdict, VerdictStore

PROGRESS_DELAY = 2.0  # seconds: what is done sooner shows no bar


Thing = TypeVar("Thing")


Result = TypeVar("Result")


def map_in_threads(
    work: Callable[[Thing], Result], things: Sequence[Thing], label: str, most_threads: int
) -> list[Result]:
    """Return what `work` makes of each thing, in order.

    Args:
        work: called in several threads; what it raises, or a signal does, ends it all without the things that wait.
        things: may be many thousands.
        label: of the progress bar.
        most_threads: at least 1.
    """
    pool = ThreadPoolExecutor(most_threads)
    try:
        done = pool.map(work, things)
        return list(tqdm(done, label, len(things), leave=False, disable=None, delay=PROGRESS_DELAY))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


MOST_READERS = 8  # threads: decoding leaves Python's lock


@dataclass(frozen=True)
class Inspection:
    """What a data set holds."""

    format_name: str  # as DATA_FORMAT calls it
    recognised: str  # for people: what it was taken for, and why
    root: Path
    usable: tuple[InspectedClip, ...]
    skipped: tuple[SkippedRow, ...]
    notes: tuple[str, ...]

    @property
    def unusable(self) -> tuple[SkippedRow, ...]:
        """Return what was skipped because something is wrong with it; clips that were never there do not count."""
        return tuple(row for row in self.skipped if not row.is_absent)


def inspect_clips(
    format_name: str, recognised: str, manifest: Manifest, reader: ClipReader, store: VerdictStore
) -> Inspection:
    """Look at every clip of a manifest.

    Args:
        format_name: as DATA_FORMAT calls it.
        recognised: why it was taken for that.
        manifest: the clips.
        reader: puts what is decoded into its cache.
        store: what is known from earlier.
    """
    inspector = _Inspector(reader, store)
    try:
        threads = min(MOST_READERS, os.cpu_count() or 1)
        found = map_in_threads(inspector.look_at, manifest.rows, "Reading clips", threads)
    finally:
        store.write()
    store.tidy()
    usable = tuple(clip for clip in found if isinstance(clip, InspectedClip))
    skipped = tuple(row for row in found if isinstance(row, SkippedRow))
    return Inspection(format_name, recognised, manifest.root, usable, (*manifest.skipped, *skipped), manifest.notes)


class _Inspector:
    def __init__(self, reader: ClipReader, store: VerdictStore) -> None:
        self._reader = reader
        self._store = store
        self._digests: dict[tuple[str, str], str] = {}  # of whole files, of which many clips may be parts

    def look_at(self, row: ManifestRow) -> InspectedClip | SkippedRow:
        try:
            return self._inspected(row)
        except UnusableClip as error:
            return SkippedRow(row.id, str(error))

    def _inspected(self, row: ManifestRow) -> InspectedClip:
        stamp = media_stamp(self._reader.root, row.media)
        verdict = self._store.get(row.media, stamp)
        if verdict is None:
            digest = self._digest(row.media, stamp)
            decoded = decode_media(self._reader.root, row.media, self._reader.shape)
            check_unchanged(self._reader.root, row.media, stamp)
            self._reader.keep(row, digest, decoded)
            verdict = Verdict(digest, decoded.facts)
            self._store.add(row.media, stamp, verdict)
        return InspectedClip(row, verdict.digest, stamp, verdict.facts)

    def _digest(self, media: Media, stamp: str) -> str:
        if media.member is not None:
            return media_digest(self._reader.root, media)
        key = (media.path, stamp)
        if key not in self._digests:
            self._digests[key] = media_digest(self._reader.root, media)
        return self._digests[key]
