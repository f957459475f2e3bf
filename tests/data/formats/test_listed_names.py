"""Names in lists are found in whatever form they were written, and nothing is guessed silently."""

import os
import unicodedata

import pytest

from data.formats import folder, manifest, pose_lexicon

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "gr\u00fcn") for form in ("NFC", "NFD"))


@pytest.fixture
def root(tmp_path):
    return tmp_path


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def read(root, *paths):
    """Read a list of these paths, each with its number as caption."""
    lines = [f"{path},{number}" for number, path in enumerate(paths)]
    (root / "manifest.csv").write_text("\n".join(["path,text", *lines]), encoding="utf-8")
    return manifest.FORMAT.read(root)


def found(result):
    return [row.media.path for row in result.rows]


def test_the_two_forms_differ():
    assert COMPOSED != DECOMPOSED
    assert (len(COMPOSED), len(DECOMPOSED)) == (4, 5)


@pytest.mark.parametrize("on_disk", [COMPOSED, DECOMPOSED], ids=["composed there", "decomposed there"])
@pytest.mark.parametrize("listed", [COMPOSED, DECOMPOSED], ids=["composed", "decomposed"])
def test_names_are_found_in_either_form_of_their_accents(root, on_disk, listed):
    touch(root, f"{on_disk}.mp4", f"{on_disk}/{COMPOSED}/{DECOMPOSED}.mp4")
    result = read(root, f"{listed}.mp4", f"{listed}/{listed}/{listed}.mp4", f"{root}/{listed}/{listed}/{listed}.mp4")
    inner = f"{on_disk}/{COMPOSED}/{DECOMPOSED}.mp4"
    assert found(result) == [f"{on_disk}.mp4", inner, inner]
    assert (result.skipped, result.notices) == ((), ())


def test_the_exact_name_wins(root):
    touch(root, f"{COMPOSED}.mp4", f"{DECOMPOSED}.mp4", "A.mp4", "a.mp4")
    names = [f"{COMPOSED}.mp4", f"{DECOMPOSED}.mp4", "a.mp4", "A.mp4"]
    result = read(root, *names)
    assert found(result) == names
    assert result.notices == ()


def test_two_files_of_the_same_look_are_named(root):
    both = "\u1ea5", "\u00e2\u0301"  # an a with two accents, in two of its three forms
    touch(root, *(f"{name}.mp4" for name in both))
    result = read(root, "a\u0302\u0301.mp4")
    assert found(result) == []
    (skipped,) = result.skipped
    assert "and 2 files differ from it only in capitals or in how accents are stored" in skipped.reason
    assert r"('\xe2\u0301.mp4', '\u1ea5.mp4'): rename all but one" in skipped.reason


def test_other_capitals_are_taken_if_nothing_else_can_be_meant_and_said(root):
    touch(root, "Clips/A.MP4", "Clips/b.mp4", "Clips/B.mp4")
    result = read(root, "clips/a.mp4", "Clips/A.MP4", "clips/B.MP4")
    assert found(result) == ["Clips/A.MP4", "Clips/A.MP4"]
    assert [notice.text for notice in result.notices] == [
        "Clips/A.MP4 was taken although the list writes other capitals"
    ]
    (skipped,) = result.skipped
    assert "names 'B.MP4', and 2 files differ from it only in capitals" in skipped.reason
    (notice,) = read(root, "clips/a.mp4", "CLIPS/b.mp4").notices
    assert notice.text == "2 files, such as Clips/A.MP4, were taken although the list writes other capitals"


@pytest.mark.parametrize("listed", ["./clips/a.mp4", "clips//a.mp4", "clips\\a.mp4", ".\\clips\\a.mp4"])
def test_paths_may_be_written_in_other_ways(root, listed):
    touch(root, "clips/a.mp4")
    result = read(root, listed)
    assert found(result) == ["clips/a.mp4"]
    assert result.notices == ()


@pytest.mark.parametrize(
    ("listed", "front"),
    [
        ("/home/amy/set/clips/a.mp4", "/home/amy/set/"),
        ("C:\\Users\\amy\\clips\\a.mp4", "C:\\Users\\amy\\"),
        ("set/clips/a.mp4", "set/"),
    ],
)
def test_paths_of_another_machine_are_refused_with_the_likely_cause(root, listed, front):
    touch(root, "clips/a.mp4")
    (skipped,) = read(root, listed).skipped
    assert skipped.reason.endswith(
        f"which does not exist, but 'clips/a.mp4' does: paths start at the list's folder, so take '{front}' away"
    )
    assert skipped.reason.startswith(f"names path='{listed}', ")


def test_a_beginning_that_many_paths_have_wrong_is_said_once(root):
    touch(root, "a.mp4", "b.mp4", "c.mp4")
    result = read(root, *(f"C:\\My clips\\{name}.mp4" for name in "abc"), "old/a.mp4", "b")
    assert len(result.skipped) == 5
    assert [notice.text for notice in result.notices] == [
        "3 paths begin with C:\\My clips\\, which is not here: take it away"
    ]
    assert read(root, "C:\\My clips\\a.mp4").notices == ()


@pytest.mark.parametrize(
    ("listed", "advice"),
    [
        (COMPOSED, f"'{DECOMPOSED}.MP4' does: write its name with its ending"),
        (f"{COMPOSED}.mov", f"'{DECOMPOSED}.MP4' does: write its name with its ending"),
        ("clips/v1.2", "'clips/v1.2.pose' does: write its name with its ending"),
        (
            "old/clips/v1.2.mp4",
            "'clips/v1.2.pose' does: paths start at the list's folder, so take 'old/' away and write",
        ),
    ],
    ids=["none", "other", "none but a dot", "and a wrong beginning"],
)
def test_a_name_without_its_ending_or_with_another_is_refused_with_the_right_one(root, listed, advice):
    touch(root, f"{DECOMPOSED}.MP4", f"{DECOMPOSED}.txt", "clips/v1.2.pose")
    (skipped,) = read(root, listed).skipped
    assert f"which does not exist, but {advice}" in skipped.reason
    (skipped,) = read(root, "clips/v1").skipped
    assert "which does not exist below " in skipped.reason


def test_a_clip_that_lies_in_an_allowed_folder_is_named(root):
    touch(root, "clips/a.mp4", "list/b.mp4")
    (root / "list" / "manifest.csv").write_text("path,text\na.mp4,1\nb.mp4,2\nold\\a,3\nc.mp4,4\n")
    result = manifest.FORMAT.read(root / "list", (root / "none", root / "clips"))
    assert found(result) == ["b.mp4"]
    one, other, missing = result.skipped
    for skipped in (one, other):
        assert f", but '{root}/clips/a.mp4' does: put the list there, or write whole paths" in skipped.reason
    assert "which does not exist below" in missing.reason


@pytest.mark.parametrize("listed", [".", "..", "./", "clips/..", "..\\", "../.."])
def test_the_folder_of_the_clips_is_no_clip(root, listed):
    touch(root, "clips/a.mp4")
    (skipped,) = read(root, listed).skipped
    assert (skipped.id, skipped.reason, skipped.outside) == (
        "manifest.csv line 2",
        f"names path='{listed}': a path must name a clip",
        "",
    )


@pytest.mark.parametrize("listed", ["https://example.com/a.mp4", "s3://bucket/a.mp4", "file:///a.mp4"])
def test_nothing_is_fetched(root, listed):
    touch(root, "a.mp4")
    (skipped,) = read(root, listed).skipped
    assert skipped.reason == f"names path='{listed}': nothing is fetched, so download it and name the file"


def test_a_lexicon_finds_its_poses_likewise(root):
    touch(root, f"{DECOMPOSED}.pose")
    header = ",".join(pose_lexicon.COLUMNS)
    (root / "index.csv").write_text(f"{header}\n{COMPOSED}.pose,de,gsg,0,0,gr\u00fcn,,0\n", encoding="utf-8")
    assert found(pose_lexicon.FORMAT.read(root)) == [f"{DECOMPOSED}.pose"]


@pytest.mark.parametrize("suffix", [".txt", ".TXT"])
def test_captions_beside_clips_are_found_in_either_form(root, suffix):
    (root / f"{COMPOSED}.mp4").touch()
    (root / f"{DECOMPOSED}{suffix}").write_text("green")
    result = folder.FORMAT.read(root)
    assert [(row.media.path, row.caption) for row in result.rows] == [(f"{COMPOSED}.mp4", "green")]
    assert result.notices == ()
    (root / f"{COMPOSED}.txt").write_text("exact")
    assert [row.caption for row in folder.FORMAT.read(root).rows] == ["exact"]


def test_a_folder_is_listed_once_for_many_missing_names(root, monkeypatch):
    touch(root, "clips/a.mp4")
    listed, listdir = [], os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: listed.append(path) or listdir(path))
    result = read(root, *(f"clips/{number}.mp4" for number in range(50)))
    assert len(result.skipped) == 50
    assert [str(path) for path in listed] == [str(root / "clips"), str(root)]
