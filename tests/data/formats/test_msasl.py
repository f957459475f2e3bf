import json
import shutil

import pytest

from common.errors import UserError
from data.formats.msasl import FORMAT
from data.formats.registry import read_data_set
from data.media.decode import decode_media
from data.rows import WHOLE, ManifestRow, Media, Notice, SkippedRow, TimeSpan
from tests.data.formats.replicas import msasl_entry, msasl_replica
from tests.shapes import stretched


@pytest.fixture
def read(tmp_path):
    """Read one list, of training clips, beside empty files of these names."""

    def run(entries, *names):
        content = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
        (tmp_path / "MSASL_train.json").write_bytes(content)
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return FORMAT.read(tmp_path)

    return run


def places(manifest):
    return [(row.media.path, row.media.span) for row in manifest.rows]


def test_clips_are_found_with_their_words_splits_and_signers(tmp_path):
    root = msasl_replica(tmp_path)
    manifest = FORMAT.read(root)
    rows = {row.id: row for row in manifest.rows}
    assert len(rows) == 6
    complete = Media("video", "videos/video-00002.mp4", TimeSpan(0.0, 0.2))
    assert rows["video-00002@0-0.2"] == ManifestRow(
        "video-00002@0-0.2", complete, "thank you", "31", "validation", "ase"
    )
    cut = Media("video", "videos/video-00001_0_5.mp4")
    assert rows["video-00001_0_5"] == ManifestRow("video-00001_0_5", cut, "hello", "0", "training", "ase")
    assert [row.split for row in manifest.rows] == [*["training"] * 4, "validation", "test"]
    assert manifest.skipped == (SkippedRow("video-00099", "has no file video-00099.mp4", is_absent=True),)
    assert manifest.notices == (
        Notice(
            "clips",
            "parts of complete videos, by the times in the list: 3 of 6 clips, such as video-00000@0-0.2 of "
            "videos/video-00000.mp4 (a clip with a file of its own is read from that)",
        ),
    )
    assert decode_media(root, complete, stretched(4, 16)).facts.frames == 5  # of 6 in 0.24 s


@pytest.mark.parametrize(
    ("name", "span"),
    [
        ("video-00000.mp4", TimeSpan(1.5, 2.75)),
        ("a/b/video-00000.webm", TimeSpan(1.5, 2.75)),
        ("How to sign - x-video-00000.mkv", TimeSpan(1.5, 2.75)),
        ("How to sign [video-00000].mp4", TimeSpan(1.5, 2.75)),
        ("video-00000_45_82.mp4", WHOLE),
        ("train/video-00000-45-82.mp4", WHOLE),
        ("video-00000_1.5_2.75.mp4", WHOLE),
        ("hello/video-00000-1.5-2.75.mov", WHOLE),
    ],
)
def test_names_that_download_programs_give_are_known(read, name, span):
    manifest = read([msasl_entry(0, start=45, end=82, start_time=1.5, end_time=2.75)], name)
    assert places(manifest) == [(name, span)]


def test_a_clip_that_is_cut_already_goes_before_its_video(read):
    entries = [msasl_entry(0), msasl_entry(0, start=7, end=9, start_time=0.25, end_time=0.5)]
    manifest = read(entries, "video-00000.mp4", "video-00000_0_5.mp4", "video-00000_7_8.mp4")
    assert places(manifest) == [("video-00000_0_5.mp4", WHOLE), ("video-00000.mp4", TimeSpan(0.25, 0.5))]


@pytest.mark.parametrize(
    "url",
    [
        "www.youtube.com/watch?v=video-00000",
        "https://www.youtube.com/watch?feature=share&v=video-00000&t=3s",
        "https://youtu.be/video-00000?t=3",
        "http://www.youtube.com/embed/video-00000",
    ],
)
def test_the_forms_of_an_address_are_known(read, url):
    assert places(read([msasl_entry(0, url=url)], "video-00000.mp4")) == [("video-00000.mp4", TimeSpan(0.0, 0.2))]


def test_entries_that_make_no_sense_are_skipped_alone(read):
    manifest = read(
        [
            7,
            msasl_entry(0, url=None),
            msasl_entry(0, url="https://vimeo.com/1"),
            msasl_entry(0, end_time=None),
            msasl_entry(0, start_time=3),
            msasl_entry(0, clean_text="", text=" "),
            msasl_entry(0, clean_text=None, text="Hello"),
            msasl_entry(0, clean_text="good-bye", signer_id=None),
            msasl_entry(0, clean_text="good-bye"),
            msasl_entry(0, start_time=None),
        ],
        "video-00000.mp4",
    )
    assert [(row.id, row.caption, row.signer) for row in manifest.rows] == [
        ("video-00000@0-0.2", "Hello", "7"),
        ("video-00000@0-0.2 (2)", "good-bye", None),
    ]
    assert [(row.id, row.reason) for row in manifest.skipped] == [
        ("MSASL_train.json entry 1", "is not an object with url and text"),
        ("MSASL_train.json entry 2", "has no url: fill in the field 'url'"),
        ("MSASL_train.json entry 3", "has url='https://vimeo.com/1', which names no video of YouTube"),
        (
            "MSASL_train.json entry 4",
            "has no end_time: its video is longer than the clip, which cannot be cut out of it",
        ),
        (
            "MSASL_train.json entry 5",
            "has end_time=0.2 and start_time=3: the end must come after the start, in seconds",
        ),
        ("MSASL_train.json entry 6", "has no text: fill in the field 'text'"),
        (
            "MSASL_train.json entry 9",
            "contradicts an earlier line: the same clip with the same caption, but signer='7' in place of ''; take one "
            "of the lines away",
        ),
        (
            "MSASL_train.json entry 10",
            "has no start_time: its video is longer than the clip, which cannot be cut out of it",
        ),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[{", "MSASL_train.json is not JSON"),
        (b"{}", "MSASL_train.json is not a list of MS-ASL: that is a JSON list of objects with url and text"),
        (b"[]", "MSASL_train.json lists no clip"),
    ],
)
def test_a_file_that_is_no_list_is_refused(read, content, message):
    with pytest.raises(UserError, match=message):
        read(content)


def test_a_set_without_videos_lists_absent_clips_only(tmp_path):
    root = msasl_replica(tmp_path / "msasl")
    shutil.rmtree(root / "videos")
    for path in (root, tmp_path):  # and one folder further down
        assert FORMAT.recognise(path) == "it holds MSASL_train.json"
        name, _, manifest = read_data_set(path, "auto")
        assert (name, len(manifest.rows), len(manifest.skipped)) == ("msasl", 0, 7)
        assert all(row.is_absent for row in manifest.skipped)


def test_other_folders_are_not_recognised(tmp_path):
    (tmp_path / "MSASL_classes.json").touch()
    (tmp_path / "MSASL_val.json").mkdir()
    assert FORMAT.recognise(tmp_path) is None
    assert FORMAT.recognise(tmp_path / "MSASL_classes.json") is None
    with pytest.raises(UserError, match=r"holds none of MSASL_train\.json, MSASL_val\.json, MSASL_test\.json"):
        FORMAT.read(tmp_path)
