import json
import shutil

import pytest

from common.errors import UserError
from data.formats.wlasl import FORMAT
from data.rows import ManifestRow, Media, SkippedRow
from tests.data.formats.replicas import wlasl_replica


@pytest.fixture
def root(tmp_path):
    return wlasl_replica(tmp_path / "wlasl")


@pytest.fixture
def read(root):
    """Read other content in the list's place."""

    def run(content):
        file = root / "WLASL_v0.3.json"
        file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return FORMAT.read(root)

    return run


def test_clips_are_found_with_their_words_splits_and_signers(root):
    assert FORMAT.recognise(root) == "it holds WLASL_v0.3.json"
    manifest = FORMAT.read(root)
    assert manifest.rows[1] == ManifestRow(
        "00336",
        Media("video", "videos/00336.mp4"),  # the whole of it, although its frames are said to be 2150 to 2249
        "hello",
        signer="90",
        split="training",
        language="ase",
    )
    assert [row.id for row in manifest.rows] == ["00335", "00336", "00337", "00338", "00339", "00340"]
    words = ["hello", "hello", "thank you", "thank you", "see you", "see you"]
    assert [row.caption for row in manifest.rows] == words
    assert [row.split for row in manifest.rows[2:5]] == ["validation", "training", "test"]
    assert manifest.skipped == tuple(
        SkippedRow(name, f"has no file {name}.mp4 in videos", is_absent=True) for name in ("90000", "90002", "90004")
    )


def test_a_set_one_folder_further_down_is_found(root):
    assert FORMAT.recognise(root.parent) == "it holds WLASL_v0.3.json"
    manifest = FORMAT.read(root.parent)
    assert manifest.root == root.parent
    assert {row.media.path.rpartition("/")[0] for row in manifest.rows} == {"wlasl/videos"}


def test_other_lists_of_words_are_read(root):
    shutil.move(root / "WLASL_v0.3.json", root / "wlasl_100.json")
    assert FORMAT.recognise(root) == "it holds wlasl_100.json"
    assert len(FORMAT.read(root).rows) == 6
    shutil.copy(root / "wlasl_100.json", root / "WLASL_v0.3.json")
    (root / "WLASL_v0.1.json").write_text("[]")
    manifest = FORMAT.read(root)
    assert len(manifest.rows) == 6
    assert tuple(notice.text for notice in manifest.notices) == (
        "WLASL_v0.1.json is left out: WLASL_v0.3.json is the list that counts",
        "wlasl_100.json is left out: WLASL_v0.3.json is the list that counts",
    )


def test_entries_that_make_no_sense_are_skipped_alone(read):
    manifest = read(
        [
            None,
            {"gloss": "none"},
            {"gloss": "none", "instances": {}},
            {"instances": [{"video_id": "00335"}]},
            {
                "gloss": "good",
                "instances": [
                    7,
                    {"video_id": 336},
                    {"video_id": "../videos/00336"},
                    {"video_id": "00336", "split": "eval"},
                    {"video_id": "00336", "signer_id": None},
                    {"video_id": "00336"},
                ],
            },
            {"gloss": "better", "instances": [{"video_id": "00336", "split": "val"}]},
        ]
    )
    assert [(row.id, row.caption, row.split) for row in manifest.rows] == [
        ("00336", "good", None),
        ("00336 (2)", "better", "validation"),
    ]
    place = "WLASL_v0.3.json entry"
    assert [(row.id, row.reason) for row in manifest.skipped] == [
        (f"{place} 1", "is not an object with gloss and instances"),
        (f"{place} 2", "is not an object with gloss and instances"),
        (f"{place} 3", "is not an object with gloss and instances"),
        (f"{place} 4 instance 1", "has no gloss: fill in the field 'gloss'"),
        (f"{place} 5 instance 1", "is not an object with gloss and instances"),
        (f"{place} 5 instance 2", "has video_id=336: it must be a text"),
        ("../videos/00336", "has no file ../videos/00336.mp4 in videos"),
        (
            f"{place} 5 instance 4",
            "has split='eval': write one of train, training, val, valid, validate, validation, dev, test, testing, or "
            "nothing",
        ),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "WLASL_v0.3.json is not JSON"),
        (b'[{"gloss": "book", "inst', "WLASL_v0.3.json is not JSON"),
        (b"\xff\xfe", "WLASL_v0.3.json is not JSON"),
        (b"[" * 100_000, "WLASL_v0.3.json is not JSON"),
        ({"gloss": "book"}, "WLASL_v0.3.json is not a list of WLASL"),
        ([], "WLASL_v0.3.json lists no clip"),
    ],
    ids=["empty", "cut off", "not UTF-8", "nested too deeply", "no list", "empty list"],
)
def test_a_file_that_is_no_list_is_refused(read, content, message):
    with pytest.raises(UserError, match=message):
        read(content)


def test_a_set_without_videos_lists_absent_clips_only(root):
    shutil.rmtree(root / "videos")
    manifest = FORMAT.read(root)
    assert not manifest.rows
    assert len(manifest.skipped) == 9
    assert all(row.is_absent for row in manifest.skipped)


@pytest.mark.parametrize(
    "name", ["WLASL\x1b[31m\n.json", "WLASL" + "\x1b" * 240 + ".json"], ids=["colour and line break", "long"]
)
def test_names_that_others_chose_are_shown_on_one_line_and_not_at_length(tmp_path, name):
    root = wlasl_replica(tmp_path / "x\x1b[0m\n")
    shutil.move(root / "WLASL_v0.3.json", root / name)
    said = [FORMAT.recognise(root), FORMAT.recognise(tmp_path)]
    (root / name).write_text('[{}, {"gloss": "x", "instances": [{"video_id": "%s"}]}]' % ("y" * 5000))
    said += [text for row in FORMAT.read(root).skipped for text in (row.id, row.reason)]
    for content in ("", "{}", "[]"):
        (root / name).write_text(content)
        with pytest.raises(UserError) as caught:
            FORMAT.read(root)
        said.append(str(caught.value))
    (root / "WLASL_v0.3.json").write_text("[7]")
    said += tuple(notice.text for notice in FORMAT.read(root).notices)
    assert len(said) == 10
    assert all(text.isprintable() and len(text) < 400 for text in said)


def test_other_folders_are_not_recognised(tmp_path):
    (tmp_path / "nslt_100.json").touch()
    (tmp_path / "WLASL.json").mkdir()
    assert FORMAT.recognise(tmp_path) is None
    assert FORMAT.recognise(tmp_path / "nslt_100.json") is None
