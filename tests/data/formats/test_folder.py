from pathlib import Path

import pytest

from common.errors import UserError
from data.formats.folder import FORMAT


def notes(root):
    return tuple(notice.text for notice in FORMAT.read(root).notices)


@pytest.fixture
def root(tmp_path):
    """Two clips without captions, which need not be decoded."""
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize("name", ["captions.csv", "list.TSV", "clips.jsonl"])
def test_a_list_beside_clips_without_captions_is_pointed_to(root, name):
    assert notes(root) == ()
    (root / name).write_text("path,text\na.mp4,hello\n")
    assert notes(root) == (f"{name} may be the list of clips: give it as DATA_ROOT",)
    (root / "a.txt").write_text("hello")
    assert notes(root) == (f"{name} may be the list of clips: give it as DATA_ROOT",)
    (root / "b.txt").write_text("hello")
    assert notes(root) == ()


def test_only_lists_in_the_root_are_pointed_to_and_only_a_few(root):
    (root / "sub").mkdir()
    (root / "sub" / "0.csv").touch()
    (root / ".0.csv").touch()
    (root / "notes.json").touch()
    assert notes(root) == ()
    for number in range(1, 6):
        (root / f"{number}\n.csv").touch()
    assert notes(root) == (r"1\n.csv or 2\n.csv or 3\n.csv and 2 more may be the list of clips: give it as DATA_ROOT",)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"Datei;text\na.mp4;x\n", "has no column path. Its first line names Datei, text; needed are path, text, or"),
        (b"", "is empty: its first line names the columns, such as path, text"),
    ],
)
def test_why_a_table_is_not_taken_for_the_list_is_said(root, content, problem):
    (root / "metadata.csv").write_bytes(content)
    (said,) = notes(root)
    assert said.startswith(f"metadata.csv may be the list of clips, but {problem}")


def test_captions_and_tables_of_kinds_that_are_not_read_are_said(root):
    for name in ("a.srt", "b.SRT", "b.json", "c.vtt", "sub/list.xlsx", "list.numbers"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).touch()
    assert notes(root) == (
        "1 .json file is not read as captions: write .txt files",
        "2 .srt files are not read as captions: write .txt files",
        "list.numbers is not read: save it as CSV UTF-8, as manifest.csv",
    )
    for name in ("a.txt", "b.txt"):
        (root / name).write_text("hello")
    assert notes(root) == ()


def test_a_caption_may_be_named_in_capitals(root):
    for name in ("a.TXT", "b.txt"):
        (root / name).write_text(f"hello {name}")
    assert [row.caption for row in FORMAT.read(root).rows] == ["hello a.TXT", "hello b.txt"]


def test_videos_of_kinds_that_are_not_read_are_said(root):
    (root / "c.wmv").touch()
    (root / "d.MPG").touch()
    assert notes(root) == ("2 videos are of kinds that are not read, such as c.wmv: encode anew",)


def test_where_no_file_is_a_clip_the_kinds_that_are_there_are_named(tmp_path):
    for name in ("a.wmv", "b.WMV", "sub/c.wmv", "a.txt", "b.txt", "README"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"It holds \.wmv \(3\), \.txt \(2\), without an extension \(1\)\.$"):
        FORMAT.read(tmp_path)


@pytest.mark.parametrize("name", ["c.m4v", "c.M4V", "c.MP4", "c.qt", "c.3gp"])
def test_other_names_of_mp4_and_mov_are_clips(root, name):
    (root / name).touch()
    (root / "c.txt").write_text("hello")
    assert [row.id for row in FORMAT.read(root).rows] == [name]


def test_captions_without_clips_are_counted(root):
    for name in ("z.txt", "c.txt", "a.txt"):
        (root / name).write_text("hello")
    assert notes(root) == ("2 .txt files have no clip beside them, such as c.txt",)


def write_captioned(root, *names):
    """Write clips that need not be decoded, each with its caption."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
        (root / name).with_suffix(".txt").write_text(name)


def splits(root):
    return {row.media.path: row.split for row in FORMAT.read(root).rows}


@pytest.mark.parametrize(
    "expected",
    [
        {"train/a.mp4": "training", "val/a.mp4": "validation", "test/a.mp4": "test"},
        {"Training/x/a.mp4": "training", "dev/b.mp4": "validation", "TESTING/y/z/c.mp4": "test"},
        {"clips/train/a.mp4": "training", "clips/valid/a.mp4": "validation"},
        {"amy/train/a.mp4": "training", "amy/validation/b.mp4": "validation", "bob/test/c.mp4": "test"},
        {"train/a.mp4": "training", "more/clips/train/b.mp4": "training", "test/c.mp4": "test"},
        {"test/train/a.mp4": "training", "dev/train/b.mp4": "training", "amy/val/c.mp4": "validation"},
        {"train/test/a.mp4": "training", "test/train/b.mp4": "test"},
        {"a.mp4": None, "training data/a.mp4": None, "train_clips/a.mp4": None, "protest/b.mp4": None},
        {"Amy/a.mp4": None, "Dev Patel/b.mp4": None},
        {"test_amy/a.mp4": None, "test_bob/b.mp4": None, "test_bob/dataset/c.mp4": None},
        {"amy/train data/a.mp4": None, "Dev Patel/b.mp4": None, "Val Kilmer/c.mp4": None},
        {" Train /a.mp4": "training", "validate/b.mp4": "validation", "TEST\t/c.mp4": "test"},
        {"train.mp4": None, "test.mp4": None, "amy/val.mp4": None},
    ],
    ids=[
        "plain",
        "other names",
        "one down",
        "below signers",
        "at two levels",
        "signers test and dev",
        "both",
        "no",
        "a person",
        "all alike",
        "different levels and one part",
        "blanks",
        "files",
    ],
)
def test_names_of_folders_give_the_split(tmp_path, expected):
    write_captioned(tmp_path, *expected)
    assert splits(tmp_path) == expected


def test_the_split_of_folders_is_said_with_its_counts(root):
    write_captioned(root, "train/b.mp4", "train/a.mp4", "train/c.mp4", "Dev/d.mp4", "test/e.mp4", "test/f.mp4")
    assert notes(root) == (
        "the names of folders (Dev, test, train) give the split: 3 clips for training, such as train/a.mp4; 1 clip for "
        "validation, such as Dev/d.mp4; 2 clips for testing, such as test/e.mp4 (rename folders that are no split; "
        "SPLIT_BY=caption and SPLIT_BY=signer divide all but the test clips anew)",
    )


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["a.mp4", "b.mp4", "test/c.mp4"],
            "hold 1 of 3 clips, such as test/c.mp4, but not a.mp4. If these folders are",
        ),
        (["train/a.mp4", "amy/b.mp4", "train/c.mp4"], "hold 2 of 3 clips, such as train/a.mp4, but not amy/b.mp4."),
        (["amy/a.mp4", "Dev/b.mp4"], "hold 1 of 2 clips, such as Dev/b.mp4, but not amy/a.mp4."),
        (["test/a.mp4"], "no clip is for training; by the names of folders all are for validation or testing, such"),
        (
            ["val/a.mp4", "test/b.mp4"],
            "Put the clips for training into folders named train beside these; if these folders",
        ),
    ],
)
def test_folders_that_may_or_may_not_be_the_split_are_asked_about(tmp_path, names, message):
    write_captioned(tmp_path, *names)
    with pytest.raises(UserError) as caught:
        FORMAT.read(tmp_path)
    assert str(caught.value).startswith(f"DATA_ROOT={str(tmp_path)!r}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("folders", "named"),
    [
        (["Train 80%", "Val 10%", "Test 10%"], "'Test 10%', 'Train 80%', 'Val 10%'"),
        (["my_train", "my_val", "my_test"], "my_test, my_train, my_val"),
        (["amy/train1", "amy/TestSet"], "TestSet, train1"),
        (["01-TRAINING", "02-TEST", "amy"], "01-TRAINING, 02-TEST"),
        (["trainset", "testdataset", "TESTdata"], "TESTdata, testdataset, trainset"),
        (["training_data", "evaluation"], "evaluation, training_data"),
        (["clips", "my_test"], "my_test"),
        (["Train Set", "Val Set"], "'Train Set', 'Val Set'"),
        (["Clips", "Val Set"], "'Val Set'"),
        (["amy", "amy/eval"], "eval"),
        (["clips", "valset"], "valset"),
    ],
)
def test_folders_that_look_like_a_split_are_asked_about(tmp_path, folders, named):
    write_captioned(tmp_path, *(f"{folder}/{number}.mp4" for number, folder in enumerate(folders)))
    with pytest.raises(UserError) as caught:
        FORMAT.read(tmp_path)
    said = str(caught.value)
    assert "the names of folders look like a split, but none is one of train, training, val, valid, vali" in said
    assert f": {named}. If they are the split, rename them to train, val and test; if they are not, rename them" in said


def test_the_refusal_of_folders_names_what_they_may_be_called(tmp_path):
    write_captioned(tmp_path, "train/a.mp4", "train/b.mp4", "Validierung/c.mp4")
    with pytest.raises(
        UserError, match=r"or rename those of the others to one of train, .*, validate, .*, testing; if"
    ):
        FORMAT.read(tmp_path)


def test_blanks_around_the_names_of_the_split_are_shown(root):
    write_captioned(root, "train /a.mp4", "val/b.mp4")
    [said] = notes(root)
    assert said.startswith("the names of folders ('train ', val) give the split: ")


def test_one_part_of_a_split_as_the_whole_is_said(tmp_path, monkeypatch):
    write_captioned(tmp_path, "My Clips/TEST/a.mp4", "My Clips/Train/b.mp4", "other/test/c.mp4", "other/amy/d.mp4")
    (tmp_path / "other" / "train").touch()
    said = f"the folder itself is named TEST: give the one that holds it, {str(tmp_path / 'My Clips')!r}, to use its"
    assert [note[: len(said)] for note in notes(tmp_path / "My Clips" / "TEST")] == [said]
    monkeypatch.chdir(tmp_path / "My Clips" / "TEST")
    assert [note[: len(said)] for note in notes(Path("."))] == [said]
    assert notes(tmp_path / "other" / "test") == notes(tmp_path / "other" / "amy") == ()


def test_clips_without_captions_ask_nothing(root):
    write_captioned(root, "train/c.mp4", "test/d.mp4")
    assert splits(root) == {"train/c.mp4": "training", "test/d.mp4": "test"}
