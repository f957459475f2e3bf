"""A folder of clips, gone through."""

import tempfile
from pathlib import Path

import numpy

from data.cache import ClipCache
from data.clip_set import InspectedClips
from data.formats.folder import FORMAT
from data.inspection import ClipReader, Inspection, inspect_clips
from data.rows import Manifest
from data.verdicts import VerdictStore
from tests.data.media.hostile_pictures import GifPart, gif
from tests.shapes import stretched

CLIP = gif([GifPart(numpy.full((8, 8), shade)) for shade in (10, 200)], 8, 8)
SHAPE = stretched(2, 8)


def add(folder: Path, name: str, caption: bytes | None = b"hello", content: bytes = CLIP) -> Path:
    """Write a clip and its caption."""
    path = folder / name
    path.write_bytes(content)
    if caption is not None:
        path.with_suffix(".txt").write_bytes(caption)
    return path


def inspect(root: Path, manifest: Manifest | None = None) -> tuple[Inspection, InspectedClips]:
    with tempfile.TemporaryDirectory() as cache:
        manifest = manifest or FORMAT.read(root)
        reader = ClipReader(root, SHAPE, ClipCache(Path(cache), 10_000_000))
        inspection = inspect_clips("folder", "folder", manifest, reader, VerdictStore(Path(cache), root))
    return inspection, InspectedClips(reader, inspection.usable)


def reasons(root: Path) -> dict[str, str]:
    """Return why clips cannot be used; the good one must be usable."""
    inspection, clips = inspect(root)
    assert "good.gif" in [clip.row.id for clip in inspection.usable]
    for index in range(len(clips)):
        assert clips.load(clips.row(0, index)).shape == (2, 8, 8, 3)
    # Folders that are not gone through are named as well, with a slash behind them.
    skipped = {row.id: row.reason for row in inspection.skipped if not row.id.endswith("/")}
    assert all(text.isprintable() for pair in skipped.items() for text in pair)
    assert not any("secret" in reason for reason in skipped.values())
    return skipped
