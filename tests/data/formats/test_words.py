"""A folder for each word; the clips need not be decoded."""

import pytest

from common.errors import UserError
from data.formats.registry import read_data_set
from data.formats.words import FORMAT
from data.rows import ManifestRow, Media, SkippedRow


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def found(root):
    """Return the caption and the split of each clip, and the format they were read in."""
    name, _, manifest = read_data_set(root, "auto")
    return name, {row.media.path: (row.caption, row.split) for row in manifest.rows}


def test_the_folder_is_the_caption(tmp_path):
    touch(tmp_path, "hello/1.mp4", "hello/2.webm", "thank_you/1.pose", "thank_you/notes.pdf")
    name, why, manifest = read_data_set(tmp_path, "auto")
    assert name == "words"
    assert why == "folder for each word (no clip has a caption, and each lies in a folder, such as hello/1.mp4)"
    assert manifest.rows == (
        ManifestRow("hello/1.mp4", Media("video", "hello/1.mp4"), "hello"),
        ManifestRow("hello/2.webm", Media("video", "hello/2.webm"), "hello"),
        ManifestRow("thank_you/1.pose", Media("pose", "thank_you/1.pose"), "thank you"),
    )
    (notice,) = manifest.notices
    assert (notice.topic, notice.text) == (
        "captions",
        "the name of its folder is the caption of each clip, such as 'hello' of hello/1.mp4 (2 captions, 3 clips); if "
        "folders are signers or numbers, give each clip a .txt file or write a list",
    )


@pytest.mark.parametrize(
    "expected",
    [
        {
            "train/hello/1.mp4": ("hello", "training"),
            "test/hello/1.mp4": ("hello", "test"),
            "train/thanks/1.mp4": ("thanks", "training"),
        },
        {
            "hello/train/1.mp4": ("hello", "training"),
            "hello/val/2.mp4": ("hello", "validation"),
            "thanks/train/1.mp4": ("thanks", "training"),
        },
        {"hello/1.mp4": ("hello", None), "test/1.mp4": ("test", None), "train/1.mp4": ("train", None)},
        {
            "train/test/1.mp4": ("test", "training"),
            "train/walk/2.mp4": ("walk", "training"),
            "test/walk/1.mp4": ("walk", "test"),
        },
        {
            "test/train/1.mp4": ("test", "training"),
            "walk/train/1.mp4": ("walk", "training"),
            "walk/test/2.mp4": ("walk", "test"),
        },
        {"amy/hello/1.mp4": ("hello", None), "bob/hello/1.mp4": ("hello", None), "bob/walk/1.mp4": ("walk", None)},
        {"Adjectives/1. loud/a.mov": ("loud", None), "Animals/12. black bear/b.mov": ("black bear", None)},
        {
            "train/test/1.mp4": ("test", "training"),
            "train/walk/2.mp4": ("walk", "training"),
            "val/test/1.mp4": ("test", "validation"),
            "val/walk/2.mp4": ("walk", "validation"),
        },
        {"driving_test/1.mp4": ("driving test", None), "train/1.mp4": ("train", None), "hello/1.mp4": ("hello", None)},
        {"001/a.mp4": ("001", None), "002/b.mp4": ("002", None)},
        {"7_up/a.mp4": ("7 up", None), "hello/b.mp4": ("hello", None)},
    ],
    ids=[
        "above",
        "below",
        "words",
        "word in a split",
        "word above a split",
        "signers",
        "counted",
        "in both",
        "alike",
        "numbers",
        "7",
    ],
)
def test_words_and_splits_are_told_apart(tmp_path, expected):
    assert found(touch(tmp_path, *expected)) == ("words", expected)


@pytest.mark.parametrize(
    "names",
    [
        ["train/hello/1.mp4", "more/thanks/1.mp4"],
        ["hello/1.mp4", "hello/test/2.mp4", "thanks/1.mp4"],
        ["hello/Train/1.mp4", "hello/Validierung/2.mp4", "help/Train/1.mp4", "help/Validierung/2.mp4"],
        ["hello/Train/1.mp4", "hello/vall/2.mp4", "help/train/1.mp4", "help/val/2.mp4"],
    ],
)
def test_what_may_be_a_split_or_a_word_is_asked_about(tmp_path, names):
    touch(tmp_path, *names)
    with pytest.raises(UserError, match="If these folders are the split, move every clip into one of them"):
        read_data_set(tmp_path, "auto")


@pytest.mark.parametrize(
    "names",
    [
        ["hello/my_train/1.mp4", "hello/my_val/2.mp4", "help/my_train/1.mp4"],
        ["Train 80%/hello/1.mp4", "Train 80%/help/1.mp4", "Test 20%/hello/1.mp4"],
    ],
)
def test_what_looks_like_a_split_is_asked_about(tmp_path, names):
    touch(tmp_path, *names)
    with pytest.raises(UserError, match="the names of folders look like a split, but none is one of train, training, "):
        read_data_set(tmp_path, "auto")


@pytest.mark.parametrize(
    ("names", "hint"),
    [
        (["hello/1.mp4", "thanks/1.mp4", "thanks/1.txt"], "set DATA_FORMAT to 'words'"),
        (["hello/1.mp4", "thanks/1.mp4", "thanks/1.TXT"], "such as 'hello' of hello/1.mp4"),
        (
            ["videos/amy/1.mp4", "videos/bob/1.mp4", "texts/amy/1.txt"],
            "has no clip beside it, such as texts/amy/1.txt",
        ),
        (["hello/1.mp4", "thanks/1.mp4", "thanks/1.vtt"], "set DATA_FORMAT to 'words'"),
        (["hello/1.mp4", "thanks/1.mp4", "labels.csv"], "labels.csv may be the list of clips"),
        (["clips/1.mp4", "clips/2.mp4"], "such as 'clips' of clips/1.mp4, set DATA_FORMAT to 'words'"),
        (["hello/1.mp4", "thanks/1.mp4", "2.mp4"], ""),
        (["train/1.mp4", "test/1.mp4"], ""),
    ],
    ids=[
        "a caption",
        "in capitals",
        "captions elsewhere",
        "subtitles",
        "a list",
        "one folder",
        "beside folders",
        "only a split",
    ],
)
def test_other_folders_are_no_words_unless_they_are_said_to_be(tmp_path, names, hint):
    touch(tmp_path, *names)
    for text in tmp_path.rglob("*.[tT][xX][tT]"):
        text.write_text("hello")
    assert FORMAT.recognise(tmp_path) is None
    name, _, manifest = read_data_set(tmp_path, "auto")
    assert name == "folder"
    assert hint in " ".join(notice.text for notice in manifest.notices)
    assert len(manifest.rows) + len(manifest.skipped) == sum(".mp4" in each for each in names)


def test_what_is_said_to_be_words_is_read_as_words(tmp_path):
    touch(tmp_path, "1.mp4", "hello/1.mp4", "\u200b/1.mp4")
    (tmp_path / "hello" / "1.txt").write_text("good-bye")
    _, why, manifest = read_data_set(tmp_path, "words")
    assert why == "folder for each word (DATA_FORMAT says so)"
    assert [(row.id, row.caption) for row in manifest.rows] == [("hello/1.mp4", "hello")]
    assert manifest.skipped == (
        SkippedRow("1.mp4", "lies in no folder whose name is its caption"),
        SkippedRow("\\u200b/1.mp4", "has an empty caption"),
    )
    assert "(1 caption, 1 clip; 1 .txt file beside clips not read)" in manifest.notices[0].text


def test_a_path_that_holds_no_clip_is_no_folder_of_words(tmp_path):
    for path in (tmp_path, touch(tmp_path, "x.txt") / "x.txt", tmp_path / "nothing"):
        assert FORMAT.recognise(path) is None
        with pytest.raises(UserError):
            FORMAT.read(path)
