"""Files that may not be read, and files that change between inspection and use."""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy
import pytest

from common.errors import UserError
from data.rows import Manifest, ManifestRow, Media
from tests.data.media.hostile_folder import CLIP, add, inspect, reasons
from tests.data.media.hostile_pictures import GifPart, gif

NOBODY = 65_534  # a user without rights
OTHER_CLIP = gif([GifPart(numpy.full((8, 8), shade)) for shade in (90, 30)], 8, 8)


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """A folder that everyone may enter, while the process has no more rights than anyone."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    effective = os.geteuid()
    for parent in folder.parents:
        if not parent.stat().st_mode & stat.S_IXOTH:
            pytest.skip(f"{parent} lets nobody in")
    root = folder / "clips"
    root.mkdir()
    add(root, "good.gif")
    yield root
    os.seteuid(effective)
    for path in folder.rglob("*"):
        path.chmod(0o755)
    shutil.rmtree(folder)


def lose_rights() -> None:
    if os.geteuid() == 0:
        os.seteuid(NOBODY)


def test_what_may_not_be_read_is_named(as_nobody):
    add(as_nobody, "clip.gif").chmod(0)
    add(as_nobody, "silent.gif").with_suffix(".txt").chmod(0)
    (as_nobody / "frames").mkdir()
    (as_nobody / "frames" / "1.png").write_bytes(b"")
    (as_nobody / "frames" / "2.png").write_bytes(b"")
    for path in (as_nobody / "frames").iterdir():
        path.chmod(0)
    lose_rights()
    assert reasons(as_nobody) == {
        "clip.gif": "cannot be read (Permission denied)",
        "silent.gif": "has no usable caption: silent.txt cannot be read (Permission denied)",
    }
    row = ManifestRow("clip", Media("frames", "frames"), "hello")
    inspection, _ = inspect(as_nobody, Manifest(as_nobody, (row,), ()))
    assert [row.reason for row in inspection.skipped] == ["cannot be read (Permission denied)"]


def test_a_folder_that_may_not_be_listed_is_named(as_nobody):
    (as_nobody / "locked").mkdir()
    add(as_nobody / "locked", "clip.gif")
    (as_nobody / "locked").chmod(0)
    lose_rights()
    inspection, _ = inspect(as_nobody)
    assert [(row.id, row.reason) for row in inspection.skipped] == [("locked/", "cannot be read (Permission denied)")]
    row = ManifestRow("clip", Media("video", "locked/clip.gif"), "hello")
    inspection, _ = inspect(as_nobody, Manifest(as_nobody, (row,), ()))
    assert [row.reason for row in inspection.skipped] == ["cannot be read (Permission denied)"]


def vanish(path: Path) -> None:
    path.unlink()


def shrink(path: Path) -> None:
    path.write_bytes(CLIP[:-40])


def become_another(path: Path) -> None:
    path.write_bytes(OTHER_CLIP)


def become_a_link_outside(path: Path) -> None:
    path.unlink()
    path.symlink_to("../secret.gif")


def become_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def become_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (vanish, "does not exist"),
        (shrink, "has changed since the data set was opened"),
        (become_another, "has changed since the data set was opened"),
        (become_a_link_outside, r"leads out of the data set's folder, to /.+ \(DATA_ALLOW\)"),
        (become_a_pipe, "is not a regular file"),
        (become_a_folder, "is not a regular file"),
    ],
)
def test_a_clip_that_changes_after_inspection_is_named(root, change, reason):
    _, clips = inspect(root)  # whose cache is gone
    change(root / "good.gif")
    with pytest.raises(UserError, match=rf"good\.gif {reason}: put it back, or start again without it"):
        clips.load(clips.row(0, 0))


def test_a_clip_that_is_only_touched_is_still_the_same(root):
    _, clips = inspect(root)
    os.utime(root / "good.gif", (1, 1))
    assert clips.load(clips.row(0, 0)).shape == (2, 8, 8, 3)
