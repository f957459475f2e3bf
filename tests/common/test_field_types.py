"""Folder names, and tuples with conditions."""

import os
from pathlib import Path

import pytest

from common.field_types import check_distinct, check_folder_name, check_increasing, check_not_blank, check_path


@pytest.mark.parametrize("name", ["auto", "run_2026-01-31", pytest.param("Léa's run 2", id="accent"), "a.b", "x" * 100])
def test_good_folder_names(name: str) -> None:
    assert check_folder_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", ".hidden", "a/b", "a\\b", "c:", "a\tb", "-x", " a", "a ", "a.", "x" * 101),
        pytest.param("a\0b", id="null"),
    ],
)
def test_bad_folder_names(name: str) -> None:
    with pytest.raises(ValueError, match="a folder name"):
        check_folder_name(name)


def test_distinct() -> None:
    assert check_distinct((3, 1, 2)) == (3, 1, 2)
    with pytest.raises(ValueError, match="1, 3 occurs more often"):
        check_distinct((3, 1, 3, 1, 2))


def test_increasing() -> None:
    assert check_increasing((0.0, 0.1)) == (0.0, 0.1)
    for pair in ((0.1, 0.1), (0.2, 0.1)):
        with pytest.raises(ValueError, match="smaller"):
            check_increasing(pair)


def test_not_blank() -> None:
    assert check_not_blank(" A ") == " A "
    for text in ("", " ", "\t\n"):
        with pytest.raises(ValueError, match="empty"):
            check_not_blank(text)


def test_a_path_that_is_not_utf_8_is_refused_before_anything_is_written() -> None:
    assert check_path(Path("größe/手")) == Path("größe/手")
    assert check_path(Path("~/clips")) == Path.home() / "clips"
    with pytest.raises(ValueError, match="is not UTF-8"):
        check_path(Path(os.fsdecode(b"clips_\xff")))
