"""Decoding clips that were inspected, through the cache."""

from dataclasses import dataclass
from pathlib import Path

import numpy

from data.cache import ClipCache
from data.manifest import ManifestRow, Media
from data.media.decode import DECODING_VERSION, decode_media, media_digest, media_stamp
from data.media.resample import ClipShape, DecodedClip, MediaFacts
from data.unusable import UnusableClip


@dataclass(frozen=True)
class InspectedClip:
    """A clip that was decoded once from beginning to end, at this start or an earlier one."""

    row: ManifestRow
    digest: str  # sha256 of its content
    stamp: str  # what the file system said of it then (data.media.decode.media_stamp)
    facts: MediaFacts


def check_unchanged(root: Path, media: Media, stamp: str) -> None:
    """Refuse a clip whose files have changed while they were read: its pixels and its digest may not belong together.

    Raises:
        UnusableClip: they have.
    """
    if media_stamp(root, media) != stamp:
        raise UnusableClip("was written to while it was read")


@dataclass(frozen=True)
class ClipReader:
    """Turns the clips of one data set into arrays of one shape."""

    root: Path
    shape: ClipShape
    cache: ClipCache

    def clip(self, clip: InspectedClip) -> numpy.ndarray:
        """Return a clip as uint8 [T, H, W, 3], from the cache if it was decoded before.

        Raises:
            UnusableClip: it cannot be decoded any more, or is no longer the one that was inspected.
        """
        return self.cache.get_or_make(self._key(clip.row, clip.digest), lambda: self._decode(clip))

    def keep(self, row: ManifestRow, digest: str, decoded: DecodedClip) -> None:
        """Put a clip that has just been decoded into the cache, unless it is there."""
        self.cache.get_or_make(self._key(row, digest), lambda: decoded.pixels_THWC)

    def _key(self, row: ManifestRow, digest: str) -> tuple[str | int | float, ...]:
        span = row.media.span
        end = "end" if span.end is None else span.end
        source = ("clip", DECODING_VERSION, row.media.kind, digest, span.start, end, row.media.frames_per_second)
        return (*source, self.shape.num_frames, self.shape.image_size, self.shape.fit)

    def _decode(self, clip: InspectedClip) -> numpy.ndarray:
        media = clip.row.media
        stamp = media_stamp(self.root, media)
        if stamp != clip.stamp and not self._is_same(clip):
            raise UnusableClip("has changed since the data set was opened")
        decoded = decode_media(self.root, media, self.shape)
        check_unchanged(self.root, media, stamp)
        return decoded.pixels_THWC

    def _is_same(self, clip: InspectedClip) -> bool:
        """Return whether the content is what it was; it may have been copied or touched."""
        try:
            return media_digest(self.root, clip.row.media) == clip.digest
        except UnusableClip:
            return False
