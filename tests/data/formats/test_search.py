import errno
import os
from pathlib import Path

import pytest

from common.errors import UserError
from data.formats import folder, how2sign, webdataset
from data.formats.search import walk_files
from data.rows import SkippedRow
from tests.data.formats import replicas

LINK = "is a link to a folder, which is not followed: put the folder itself there, or set DATA_ROOT to where it leads"
DENIED = "cannot be read (Permission denied)"


@pytest.fixture
def lock(monkeypatch):
    """Refuse to list a folder, also to the administrator, whom rights do not keep out."""
    scandir, locked = os.scandir, set()

    def listed(path):
        if Path(path) in locked:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", listed)
    return locked.add


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_files_come_in_order_without_hidden_ones(tmp_path):
    touch(tmp_path, "b/z.mp4", "b/a/1.mp4", "a/2.txt", "c.mp4", ".hidden.mp4", ".git/1.mp4", "__MACOSX/1.mp4", "b/.x")
    found = walk_files(tmp_path)
    assert found.names == ("c.mp4", "a/2.txt", "b/z.mp4", "b/a/1.mp4")
    assert found.skipped == ()
    assert found.not_searched() == ""


def test_folders_can_be_left_out_without_a_word(tmp_path):
    touch(tmp_path, "a/1.mp4", "skip/2.mp4", "a/skip/3.mp4", "a/skip.mp4")
    (tmp_path / "skip again").symlink_to("a")
    found = walk_files(tmp_path, lambda name: name.startswith("skip"))
    assert found.names == ("a/1.mp4", "a/skip.mp4")
    assert found.skipped == ()


def test_links_to_folders_are_named_and_not_followed(tmp_path):
    touch(tmp_path, "root/a/1.mp4", "disk/2.mp4")
    root = tmp_path / "root"
    (root / "raw_videos").symlink_to(tmp_path / "disk")
    (root / "a" / "circle").symlink_to(root)
    (root / "a" / "x\x1b[31m").symlink_to(root)
    (root / "gone").symlink_to("nowhere")
    (root / "itself").symlink_to("itself")
    (root / ".hidden").symlink_to(tmp_path / "disk")
    found = walk_files(root)
    assert found.names == ("gone", "itself", "a/1.mp4")
    assert found.skipped == (
        SkippedRow("raw_videos/", LINK, outside=str(tmp_path / "disk")),
        SkippedRow("a/circle/", LINK),
        SkippedRow("a/x\\x1b[31m/", LINK),
    )


def test_links_are_followed_once_to_what_is_allowed(tmp_path):
    touch(tmp_path, "root/a/1.mp4", "disk/2.mp4", "disk/b/3.mp4", "other/4.mp4")
    root = tmp_path / "root"
    for name, target in {"first": "disk", "second": "disk", "third": "disk/b", "fourth": "other"}.items():
        (root / name).symlink_to(tmp_path / target)
    (tmp_path / "disk" / "circle").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "home").symlink_to(root)
    found = walk_files(root, allowed=[tmp_path / "disk"])
    assert found.names == ("a/1.mp4", "first/2.mp4", "first/b/3.mp4")
    assert {(row.id, row.outside) for row in found.skipped} == {
        ("first/circle/", ""),
        ("first/home/", ""),
        ("fourth/", str(tmp_path / "other")),
        ("second/", ""),
        ("third/", ""),
    }


def test_links_to_the_root_or_around_it_find_nothing_twice(tmp_path):
    touch(tmp_path, "root/a/1.mp4")
    for name, target in {"again": "root", "around": ".", "part": "root/a"}.items():
        (tmp_path / "root" / name).symlink_to(tmp_path / target)
    found = walk_files(tmp_path / "root", allowed=[tmp_path])
    assert found.names == ("a/1.mp4",)
    assert found.skipped == tuple(SkippedRow(f"{name}/", LINK) for name in ("again", "around", "part"))


def test_a_folder_that_cannot_be_listed_is_named_and_the_rest_is_found(tmp_path, lock):
    touch(tmp_path, "lost+found/1.mp4", "a/2.mp4", "a/deep/3.mp4", "z/4.mp4")
    lock(tmp_path / "lost+found")
    lock(tmp_path / "a" / "deep")
    found = walk_files(tmp_path)
    assert found.names == ("a/2.mp4", "z/4.mp4")
    assert found.skipped == (SkippedRow("a/deep/", DENIED), SkippedRow("lost+found/", DENIED))
    assert found.not_searched() == f" Not searched: a/deep/ {DENIED}, lost+found/ {DENIED}."


def test_a_root_that_cannot_be_listed_is_refused(tmp_path, lock):
    touch(tmp_path, "1.mp4")
    with pytest.raises(UserError, match=r"1\.mp4 cannot be read: Not a directory"):
        walk_files(tmp_path / "1.mp4")
    lock(tmp_path)
    with pytest.raises(UserError, match=r"^DATA_ROOT: the folder /.* cannot be read: Permission denied\.$"):
        walk_files(tmp_path)


def test_folders_may_lie_deeper_than_calls_can_go(tmp_path):
    (tmp_path / "0.mp4").touch()
    deep = "d/" * 1200
    for length in range(2, len(deep) + 1, 2):
        os.mkdir(tmp_path / deep[:length])
    (tmp_path / deep / "1.mp4").touch()
    names = walk_files(tmp_path).names
    (tmp_path / deep / "1.mp4").unlink()
    os.removedirs(tmp_path / deep)  # what tidies up after tests goes no deeper than calls either
    assert names == ("0.mp4", f"{deep}1.mp4")


WALKING = {
    "folder": (folder.FORMAT, replicas.folder_replica),
    "how2sign": (how2sign.FORMAT, replicas.how2sign_replica),
    "webdataset": (webdataset.FORMAT, replicas.webdataset_replica),
}


@pytest.mark.parametrize("name", WALKING)
def test_every_format_that_walks_names_what_it_did_not_search(tmp_path, lock, name):
    data_format, make = WALKING[name]
    root = make(tmp_path / "data", clips=2)
    known = data_format.read(root)
    (root / "raw_videos").symlink_to(tmp_path)
    (root / "lost+found").mkdir()
    lock(root / "lost+found")
    manifest = data_format.read(root)
    assert manifest.rows == known.rows
    extra = (SkippedRow("raw_videos/", LINK), SkippedRow("lost+found/", DENIED))
    assert manifest.skipped == (*extra, *known.skipped)


@pytest.mark.parametrize("name", WALKING)
def test_where_nothing_is_found_the_message_says_what_was_not_searched(tmp_path, lock, name):
    for number in range(2):
        (tmp_path / f"part{number}").symlink_to("/")
    for name_of_folder in ("lost+found", "other"):
        (tmp_path / name_of_folder).mkdir()
    lock(tmp_path / "lost+found")
    lock(tmp_path / "other")
    with pytest.raises(UserError) as caught:
        WALKING[name][0].read(tmp_path)
    end = f" Not searched: part0/ {LINK}, part1/ {LINK}, lost+found/ {DENIED}."
    assert str(caught.value).endswith(end)
