import os
import shutil

import pytest

from common.errors import UserError
from data.formats.how2sign import FORMAT
from data.media.decode import decode_media
from data.rows import WHOLE, ManifestRow, Media, Notice, SkippedRow, TimeSpan
from tests.data.formats.replicas import HOW2SIGN_HEADER, how2sign_replica, write_clip
from tests.shapes import stretched


@pytest.fixture
def root(tmp_path):
    return how2sign_replica(tmp_path)


def rows_of(manifest):
    return {row.id: row for row in manifest.rows}


def test_clips_are_found_with_their_sentences_splits_and_signers(root):
    assert FORMAT.recognise(root) == "it holds how2sign_realigned_train.csv"
    manifest = FORMAT.read(root)
    assert len(manifest.rows) == 6
    assert rows_of(manifest)["-d5dN54tH2E_0-1-rgb_front"] == ManifestRow(
        "-d5dN54tH2E_0-1-rgb_front",
        Media("video", "train_rgb_front_clips/raw_videos/-d5dN54tH2E_0-1-rgb_front.mp4"),
        "We're going to work on a arm drill that will help you have graceful hand movements in front of you.",
        signer="1",
        split="training",
        language="ase",
    )
    assert rows_of(manifest)["G3di9jJTqDs_2-8-rgb_front"].split == "validation"
    assert rows_of(manifest)["--7E2sU6zP4_4-5-rgb_front"].split == "test"
    assert rows_of(manifest)["-d5dN54tH2E_3-1-rgb_front"].caption == 'She said "Hello" to them.'
    assert manifest.skipped == (
        SkippedRow(
            "00dWJ4YRRSI_2-11-rgb_front",
            "has no file 00dWJ4YRRSI_2-11-rgb_front.mp4, nor its recording 00dWJ4YRRSI-11-rgb_front.mp4",
            is_absent=True,
        ),
    )
    assert not manifest.notices


def test_the_layout_of_the_official_download_is_found(root, tmp_path):
    official = tmp_path / "official"
    for split in ("train", "val", "test"):
        target = official / "How2Sign" / "sentence_level" / split
        text = target / "text" / "en" / "raw_text" / "re_aligned"
        text.mkdir(parents=True)
        shutil.copy(root / f"how2sign_realigned_{split}.csv", text)
        shutil.copytree(root / f"{split}_rgb_front_clips", target / "rgb_front")
    for folder in (official, official / "How2Sign", official / "How2Sign" / "sentence_level"):
        assert FORMAT.recognise(folder) == "it holds how2sign_realigned_train.csv"
        assert len(FORMAT.read(folder).rows) == 6


def test_a_copy_saved_with_commas_is_read(root):
    sentence = '"It is raw, really."'
    (root / "how2sign_realigned_val.csv").write_text(
        HOW2SIGN_HEADER.replace("\t", ",") + f"\nG3di9jJTqDs,v,s,G3di9jJTqDs_2-8-rgb_front,0,1,{sentence}\n",
    )
    manifest = FORMAT.read(root)
    assert rows_of(manifest)["G3di9jJTqDs_2-8-rgb_front"].caption == "It is raw, really."


@pytest.mark.parametrize("sentence", ['"Hello," he said.', '"Hello', 'Hello"', '"Hel"lo"', "a, b; c | d"])
def test_quotes_that_do_not_fit_together_stand_as_they_are(root, sentence):
    line = f"v\tn\ts\tG3di9jJTqDs_2-8-rgb_front\t0\t1\t{sentence}\n"
    other = "v\tn\ts\t-d5dN54tH2E_0-1-rgb_front\t0\t1\tOther.\n"
    (root / "how2sign_realigned_val.csv").write_text(f"{HOW2SIGN_HEADER}\n{line}{other}")
    (root / "how2sign_realigned_train.csv").unlink()
    (root / "how2sign_realigned_test.csv").unlink()
    assert [row.caption for row in FORMAT.read(root).rows] == [sentence, "Other."]


def test_of_two_files_with_one_name_that_of_the_split_is_taken(root):
    name = "G3di9jJTqDs_2-8-rgb_front"
    write_clip(root / "a_train_copy" / f"{name}.mp4", 1)
    write_clip(root / "zz" / "VAL" / f"{name}.mp4", 1)
    shutil.rmtree(root / "val_rgb_front_clips")
    assert rows_of(FORMAT.read(root))[name].media.path == f"zz/VAL/{name}.mp4"
    shutil.rmtree(root / "zz")
    write_clip(root / "interval" / f"{name}.mp4", 1)
    assert rows_of(FORMAT.read(root))[name].media.path == f"a_train_copy/{name}.mp4"


def test_of_two_lists_of_a_split_the_nearer_one_counts(root):
    shutil.copy(root / "how2sign_realigned_val.csv", root / "val_rgb_front_clips")
    manifest = FORMAT.read(root)
    assert len(manifest.rows) == 6
    (note,) = (notice.text for notice in manifest.notices)
    assert note.startswith("val_rgb_front_clips/how2sign_realigned_val.csv is left out: how2sign_realigned_val.csv is")


def test_millions_of_key_points_are_not_gone_through(root, monkeypatch):
    (root / "train_2D_keypoints" / "openpose_output" / "json" / "a").mkdir(parents=True)
    (root / "val_2D_KeyPoints").symlink_to("train_2D_keypoints")
    visited = []
    scandir = os.scandir

    def watched(path):
        visited.append(os.fspath(path).lower())
        return scandir(path)

    monkeypatch.setattr(os, "scandir", watched)
    manifest = FORMAT.read(root)
    assert str(root / "val_rgb_front_clips") in visited
    assert not any("keypoints" in folder.removeprefix(str(root)) for folder in visited)
    assert all(row.is_absent for row in manifest.skipped)


def test_lines_that_make_no_sense_are_skipped_alone(root):
    name = "G3di9jJTqDs_2-8-rgb_front"
    lines = [
        "v\tn\ts\t../../etc/passwd\t0\t1\tHello.",
        f"v\tn\ts\t{name}\t0\t1",
        f"v\tn\ts\t{name}\t0\t1\t",
        "v\tn\ts\t\t0\t1\tHello.",
        f"v\tn\ts\t{name}\tno time\tat all\tHello.",
        f"v\tn\ts\t{name}\t0\t1\tHello.",
        f"v\tn\ts\t{name}\t0\t1\tGood-bye.",
    ]
    (root / "how2sign_realigned_val.csv").write_text("\n".join([HOW2SIGN_HEADER, *lines]))
    (root / "how2sign_realigned_train.csv").unlink()
    (root / "how2sign_realigned_test.csv").unlink()
    manifest = FORMAT.read(root)
    assert [(row.id, row.caption) for row in manifest.rows] == [(name, "Hello."), (f"{name} (2)", "Good-bye.")]
    assert [(row.id, row.reason.split(":")[0], row.is_absent) for row in manifest.skipped] == [
        ("../../etc/passwd", "has no file ../../etc/passwd.mp4, nor its recording n.mp4", True),
        (
            "how2sign_realigned_val.csv line 3",
            "has 6 fields in place of 7; a text with the separator in it must stand in double quotes",
            False,
        ),
        ("how2sign_realigned_val.csv line 4", "has no sentence", False),
        ("how2sign_realigned_val.csv line 5", "has no sentence_name", False),
    ]


def test_a_list_without_its_columns_is_refused(root):
    (root / "how2sign_realigned_train.csv").write_text("VIDEO_ID\tSENTENCE\nx\ty\n")
    with pytest.raises(
        UserError, match=r"how2sign_realigned_train.csv has no column sentence_name. Its first line names"
    ):
        FORMAT.read(root)


def test_other_folders_are_not_recognised(tmp_path):
    (tmp_path / "how2sign_all.csv").touch()
    (tmp_path / "how2sign_train.csv").mkdir()
    (tmp_path / "how2sign_realigned_train.csv").mkdir()
    assert FORMAT.recognise(tmp_path) is None
    assert FORMAT.recognise(tmp_path / "how2sign_all.csv") is None
    assert FORMAT.recognise(tmp_path / "nothing") is None


SPEECH_HEADER = HOW2SIGN_HEADER.replace("_REALIGNED", "")


def write_list(root, name, *lines, header=HOW2SIGN_HEADER):
    """Write a list of clips of one recording, each given as the number of its sentence, its start and its end."""
    texts = [
        f"vid\tvid-8-rgb_front\tvid_{line[0]}\tvid_{line[0]}-8-rgb_front\t{line[1]}\t{line[2]}\tText {line[0]}."
        for line in lines
    ]
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("\n".join([header, *texts]) + "\n")
    return root


def spans(manifest):
    return {row.caption: (row.media.path, row.media.span) for row in manifest.rows}


def test_recordings_are_cut_by_the_times_of_the_list(tmp_path):
    root = write_list(tmp_path, "how2sign_realigned_val.csv", (0, 0.04, 0.12), (1, "0.12", 0.24))
    path = "val/rgb_front/raw_videos/vid-8-rgb_front.mp4"
    write_clip(root / path, 3)
    manifest = FORMAT.read(root)
    assert manifest.rows[0] == ManifestRow(
        "vid_0-8-rgb_front@0.04-0.12", Media("video", path, TimeSpan(0.04, 0.12)), "Text 0.", "8", "validation", "ase"
    )
    assert spans(manifest)["Text 1."] == (path, TimeSpan(0.12, 0.24))
    assert manifest.notices == (
        Notice(
            "clips",
            "parts of complete videos, by the times in the list: 2 of 2 clips, such as vid_0-8-rgb_front@0.04-0.12 of "
            f"{path} (a clip with a file of its own is read from that)",
        ),
    )
    decoded = [decode_media(root, row.media, stretched(2, 16)) for row in manifest.rows]
    assert [clip.facts.frames for clip in decoded] == [
        2,
        3,
    ]  # of six, 0.04 seconds each, the first of which is unlisted


def test_a_clip_that_is_cut_already_goes_before_its_recording(tmp_path):
    root = write_list(tmp_path, "how2sign_realigned_train.csv", (0, 2, 3), (1, 4, 5), (2, 6, 7))
    for name in ("a/vid-8-rgb_front.mp4", "b/vid_1-8-rgb_front.mp4", "b/vid_2-8-rgb_front.mp4"):
        write_clip(root / name, 0)
    manifest = FORMAT.read(root)
    assert spans(manifest) == {
        "Text 0.": ("a/vid-8-rgb_front.mp4", TimeSpan(2, 3)),
        "Text 1.": ("b/vid_1-8-rgb_front.mp4", WHOLE),
        "Text 2.": ("b/vid_2-8-rgb_front.mp4", WHOLE),
    }
    (notice,) = manifest.notices
    assert notice.text.startswith(
        "parts of complete videos, by the times in the list: 1 of 3 clips, such as vid_0-8-rgb"
    )


def test_lists_with_the_times_of_the_speech_are_read_where_there_are_no_others(tmp_path):
    root = write_list(tmp_path, "how2sign_val.csv", (0, 1.5, 2.5), header=SPEECH_HEADER)
    write_clip(root / "vid-8-rgb_front.mp4", 0)
    assert FORMAT.recognise(root) == "it holds how2sign_val.csv"
    manifest = FORMAT.read(root)
    assert spans(manifest) == {"Text 0.": ("vid-8-rgb_front.mp4", TimeSpan(1.5, 2.5))}
    assert [notice.text for notice in manifest.notices][1:] == [
        "how2sign_val.csv has the times of the speech, which are not those of the signing: put "
        "how2sign_realigned_val.csv beside it"
    ]
    write_list(root / "deep" / "down", "how2sign_realigned_val.csv", (0, 3, 4))
    manifest = FORMAT.read(root)
    assert spans(manifest) == {"Text 0.": ("vid-8-rgb_front.mp4", TimeSpan(3, 4))}
    assert [notice.text for notice in manifest.notices][1:] == [
        "how2sign_val.csv is left out: deep/down/how2sign_realigned_val.csv is the list that counts"
    ]
    write_clip(root / "vid_0-8-rgb_front.mp4", 0)
    (root / "deep" / "down" / "how2sign_realigned_val.csv").unlink()
    manifest = FORMAT.read(root)
    assert spans(manifest) == {"Text 0.": ("vid_0-8-rgb_front.mp4", WHOLE)}
    assert not manifest.notices  # the times play no part


def test_lists_with_the_times_of_the_speech_are_found_in_the_official_layout(tmp_path):
    text = tmp_path / "How2Sign" / "sentence_level" / "test" / "text" / "en" / "raw_text"
    write_list(text, "how2sign_test.csv", (0, 1.5, 2.5), header=SPEECH_HEADER)
    for folder in (tmp_path, tmp_path / "How2Sign", tmp_path / "How2Sign" / "sentence_level"):
        assert FORMAT.recognise(folder) == "it holds how2sign_test.csv"
    write_list(text / "re_aligned", "how2sign_realigned_test.csv", (0, 1, 2))
    assert FORMAT.recognise(tmp_path) == "it holds how2sign_realigned_test.csv"


@pytest.mark.parametrize(
    ("times", "reason"),
    [
        ((3, 2), "has end_realigned=2 and start_realigned=3: the end must come after the start, in seconds"),
        ((1, ""), "has no end_realigned: its video is longer than the clip, which cannot be cut out of it"),
        (("", 2), "has no start_realigned: its video is longer than the clip, which cannot be cut out of it"),
        (("soon", 2), "has start_realigned='soon': write seconds as a number with a decimal point, such as 3.5"),
    ],
)
def test_times_that_make_no_sense_matter_only_where_they_cut(tmp_path, times, reason):
    root = write_list(tmp_path, "how2sign_realigned_train.csv", (0, *times))
    (root / "vid-8-rgb_front.mp4").touch()
    assert [row.reason for row in FORMAT.read(root).skipped] == [reason]
    (root / "vid_0-8-rgb_front.mp4").touch()
    assert [row.media.path for row in FORMAT.read(root).rows] == ["vid_0-8-rgb_front.mp4"]
