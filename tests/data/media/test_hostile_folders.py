"""Folders in which links, pipes and names lead elsewhere."""

import os
import shutil
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest

from data.formats.folder import FORMAT
from data.rows import Manifest, ManifestRow, Media
from tests.data.media.hostile_folder import CLIP, add, inspect, reasons


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # names of sockets are short
    try:
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind(path.name)
    finally:
        os.chdir(here)


def make_device(path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("only the administrator makes devices")


def link_to(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def make_circle(path: Path) -> None:
    other = path.with_name("circle")
    path.symlink_to(other)
    other.symlink_to(path)


OUTSIDE = "leads out of the data set's folder, to"
STRANGE = {
    "folder": (Path.mkdir, "is not a regular file"),
    "pipe": (make_fifo, "is not a regular file"),
    "socket": (make_socket, "is not a regular file"),
    "device": (make_device, "is not a regular file"),
    "link to a device": (link_to("/dev/zero"), f"{OUTSIDE} /dev (DATA_ALLOW)"),
    "link to a file outside": (link_to("../secret.gif"), f"{OUTSIDE} {{parent}} (DATA_ALLOW)"),
    "link to nothing": (link_to("nothing.gif"), "is a link that leads nowhere"),
    "link to itself": (lambda path: path.symlink_to(path.name), "is a link that leads nowhere"),
    "circle": (make_circle, "is a link that leads nowhere"),
    "link to the folder": (link_to("."), "is not a regular file"),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_what_is_no_file_of_the_folder_is_no_clip(root, kind):
    make, reason = STRANGE[kind]
    reason = reason.format(parent=root.parent)
    make(root / "clip.gif")
    (root / "clip.txt").write_text("hello")
    assert reasons(root) == ({} if kind in ("folder", "link to the folder") else {"clip.gif": reason})
    inspection, _ = inspect(root, Manifest(root, (ManifestRow("clip", Media("video", "clip.gif"), "hello"),), ()))
    assert [(row.id, row.reason) for row in inspection.skipped] == [("clip", reason)]


@pytest.mark.parametrize("kind", STRANGE)
def test_what_is_no_file_of_the_folder_is_no_caption(root, kind):
    make, reason = STRANGE[kind]
    add(root, "clip.gif", None)
    make(root / "clip.txt")
    assert reasons(root) == {"clip.gif": f"has no usable caption: clip.txt {reason.format(parent=root.parent)}"}


@pytest.mark.parametrize("kind", STRANGE)
def test_what_is_no_file_of_the_folder_is_no_frame(root, kind):
    make, reason = STRANGE[kind]
    (root / "frames").mkdir()
    make(root / "frames" / "1.png")
    make_fifo(root / "frames" / "2.png")
    inspection, _ = inspect(root, Manifest(root, (ManifestRow("clip", Media("frames", "frames"), "hello"),), ()))
    (row,) = inspection.skipped
    reason = reason.format(parent=root.parent)
    allowed = [f"has a frame that cannot be used: 1.png {reason}", "cannot be read (No such file or directory)"]
    assert row.reason in [*allowed, "cannot be read (Too many levels of symbolic links)"]


@pytest.mark.parametrize(
    "name",
    [
        "../secret.gif",
        "{root}/../secret.gif",
        "{root}/../clips/good.gif/../../secret.gif",
        "/dev/zero",
        "out/secret.gif",
    ],
)
def test_no_name_leads_out_of_the_folder(root, name):
    (root / "out").symlink_to("..")
    media = Media("video", name.format(root=root))
    inspection, _ = inspect(root, Manifest(root, (ManifestRow("clip", media, "hello"),), ()))
    (row,) = inspection.skipped
    assert row.reason.startswith(OUTSIDE) or row.reason == "cannot be read (Not a directory)"


@pytest.mark.parametrize(
    "name",
    ["a\0.gif", "", "x" * 300 + ".gif", "good.gif/x.gif", "nothing.gif"],
    ids=["null", "empty", "long", "below a file", "missing"],
)
def test_impossible_names_are_refused(root, name):
    inspection, _ = inspect(root, Manifest(root, (ManifestRow("clip", Media("video", name), "hello"),), ()))
    (row,) = inspection.skipped
    assert row.reason in (
        "has a name that no file can have",
        "is not a regular file",
        "cannot be read (File name too long)",
        "cannot be read (Not a directory)",
        "does not exist",
    )


def test_a_folder_of_frames_outside_is_refused(root):
    (root.parent / "frames").mkdir()
    (root / "frames").symlink_to("../frames")
    inspection, _ = inspect(root, Manifest(root, (ManifestRow("clip", Media("frames", "frames"), "hello"),), ()))
    assert [row.reason for row in inspection.skipped] == [f"{OUTSIDE} {root.parent} (DATA_ALLOW)"]


def test_links_to_folders_are_not_followed(root):
    (root / "out").symlink_to("..")
    (root / "again").symlink_to(".")
    assert [row.id for row in FORMAT.read(root).rows] == ["good.gif"]


def test_links_within_the_folder_and_hard_links_are_fine(root):
    (root / "link.gif").symlink_to("good.gif")
    (root / "link.txt").symlink_to(root / "good.txt")
    os.link(root.parent / "secret.gif", root / "hard.gif")
    (root / "hard.txt").write_text("x")
    assert reasons(root) == {}
    assert len(inspect(root)[0].usable) == 3


STRANGE_NAMES = {
    "line break": b"line\nbreak",
    "tab and return": b"tab\tand\rreturn",
    "colour": b"\x1b[31mred\x1b[0m",
    "quotes": b"quotes'\"`$(touch x);&|<>",
    "emoji": "\N{WAVING HAND SIGN}\N{EMOJI MODIFIER FITZPATRICK TYPE-5}".encode(),
    "right to left": "\N{RIGHT-TO-LEFT OVERRIDE}fig.exe".encode(),
    "Latin-1": b"latin-\xfc\xff",
    "long": b"x" * 251,
    "option": b"-rf --help",
    "spaces": b" spaces ",
    "address": b"http:",
    "pattern": b"%d",
    "home": b"~",
    "concat": b"concat:a|b",
    "pipe": b"pipe:0",
    "backslash": b"back\\slash",
    "dots": b"dots..",
}


@pytest.mark.parametrize("extension", [".gif", ".mp4"])
@pytest.mark.parametrize("stem", STRANGE_NAMES.values(), ids=STRANGE_NAMES.keys())
def test_strange_names_are_read_and_shown_safely(root, stem, extension, monkeypatch, write_video):
    path = root / os.fsdecode(stem + extension.encode())
    if extension == ".gif":
        path.write_bytes(CLIP)
    else:
        write_video(root.parent / "plain.mp4", numpy.zeros((2, 16, 16, 3), numpy.uint8))
        shutil.copy(root.parent / "plain.mp4", path)
    path.with_suffix(".txt").write_text("hello")
    for folder in (root, Path(".")):
        monkeypatch.chdir(root)
        inspection, clips = inspect(folder)
        assert inspection.skipped == ()
        assert len(clips) == 2
        for index in range(2):
            assert clips.row(0, index).id.isprintable()
            assert clips.load(clips.row(0, index)).shape == (2, 8, 8, 3)
    path.with_suffix(".txt").unlink()
    path.write_bytes(b"damaged")
    (name, _), *_ = reasons(root).items()
    assert name.isprintable()


def test_a_path_is_never_taken_for_an_address(root, monkeypatch, write_video):
    """FFmpeg would open what is named behind the colon, here a file outside of the folder."""
    write_video(root.parent / "secret.mp4", numpy.full((2, 16, 16, 3), 77, numpy.uint8))
    address = f"subfile,,start,0,end,0,,:{root.parent}"
    (root / address).mkdir(parents=True)
    write_video(root / address / "secret.mp4", numpy.full((2, 16, 16, 3), 200, numpy.uint8))
    monkeypatch.chdir(root)
    row = ManifestRow("clip", Media("video", f"{address}/secret.mp4"), "hello")
    _, clips = inspect(Path("."), Manifest(Path("."), (row,), ()))
    assert clips.load(clips.row(0, 0)).mean() == pytest.approx(200, abs=3)
