"""A file is the old one or the new one, whatever goes wrong in between."""

import errno
import os
from pathlib import Path

import pytest

from common.files import sync_folder, write_atomically


def test_writes_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_atomically(path, b"first")
    assert path.read_bytes() == b"first"
    write_atomically(path, b"")
    assert path.read_bytes() == b""
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("function", ["replace", "fsync"])
@pytest.mark.parametrize("existed", [True, False])
def test_a_full_disk_leaves_the_old_file_and_no_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, existed: bool
) -> None:
    path = tmp_path / "state.json"
    if existed:
        path.write_bytes(b"old")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, function, refuse)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == (
        [("state.json", b"old")] if existed else []
    )


def test_an_interrupt_leaves_no_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "state.json", b"new")
    assert list(tmp_path.iterdir()) == []


def test_content_reaches_the_disk_before_the_name_and_the_name_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        events.append("folder" if os.path.samestat(os.fstat(descriptor), tmp_path.stat()) else "file")
        real_fsync(descriptor)

    def replace(source: Path, target: Path) -> None:
        events.append("rename")
        assert Path(source).name.startswith(".tmp-")
        assert Path(source).read_bytes() == b"content"
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    write_atomically(tmp_path / "state.json", b"content")
    assert events == ["file", "rename", "folder"]


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "nowhere" / "state.json", b"")
    with pytest.raises(FileNotFoundError):
        sync_folder(tmp_path / "nowhere")
