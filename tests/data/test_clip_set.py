import json
import shutil

import numpy
import pytest
from PIL import Image

from common.errors import UserError
from config import Config
from data.batches import load_batch
from data.build import build_data, inspect_data
from data.clip_set import InspectedClips


@pytest.fixture
def folder(tmp_path, write_video, brightening_video):
    """Six clips of four captions, in several formats."""
    root = tmp_path / "videos"
    root.mkdir()
    for number, (extension, caption) in enumerate(
        [
            (".gif", "hello"),
            (".mp4", "hello"),
            (".GIF", "thanks"),
            (".gif", "see  you\n"),
            (".gif", "yes"),
            (".gif", "yes"),
        ]
    ):
        temporary = tmp_path / f"clip{extension.lower()}"
        write_video(temporary, numpy.minimum(brightening_video + number, 255))
        shutil.move(temporary, root / f"clip{number}{extension}")
        (root / f"clip{number}.txt").write_text(caption, encoding="utf-8")
    return root


@pytest.fixture
def open_(folder, tmp_path):
    def run(root=folder, **changes):
        constants = {
            "DATA_ROOT": root,
            "CACHE_DIR": tmp_path / "cache",
            "CLIP_TIMING": "stretched",
            "MAX_FRAMES": 5,
            "IMAGE_SIZE": (16, 16),
            "SPLIT_BY": "auto",
            "VALIDATION_FRACTION": 0.25,
            "VALIDATION_CLIPS": 16,
            "SEED": 0,
        }
        constants |= {name.upper(): value for name, value in changes.items()}
        return build_data(Config.model_construct(**constants))

    return run


def captions(source):
    return {source.row(0, index).caption for index in range(len(source))}


def test_clips_and_captions_are_found(open_, tokenize):
    splits = open_()
    assert len(splits.training) + len(splits.validation) == 6
    assert captions(splits.training) | captions(splits.validation) == {"hello", "thanks", "see you", "yes"}
    batch = load_batch(splits.training, [splits.training.row(0, 0)], tokenize)
    assert batch.video_BCTHW.shape == (1, 3, 5, 16, 16)
    shades = ((batch.video_BCTHW + 1) * 127.5).mean((0, 1, 3, 4))
    assert shades.tolist() == pytest.approx([25, 75, 125, 175, 225], abs=12)
    assert splits.symbols is None


def grey_gif(path, frames, milliseconds, size=(16, 16)):
    """Write frames that become brighter."""
    images = [Image.new("L", size, 250 * number // max(frames - 1, 1)) for number in range(frames)]
    images[0].save(path, save_all=True, append_images=images[1:], duration=milliseconds)
    path.with_suffix(".txt").write_text(path.stem)


def test_clips_keep_their_duration(open_, tmp_path):
    """At 12 frames a second and at most 32, in multiples of four."""
    root = tmp_path / "mixed"
    root.mkdir()
    durations = {"blink": 0.1, "short": 0.6, "medium": 1.3, "long": 2.8}
    for name, seconds in durations.items():
        grey_gif(root / f"{name}.gif", 10, round(100 * seconds))
    grey_gif(root / "ten minutes.gif", 600, 1000)
    grey_gif(root / "picture.gif", 1, 1000)
    grey_gif(root / "line.gif", 10, 100, size=(1, 1000))
    inspection, reader = inspect_data(
        Config.model_construct(DATA_ROOT=root, CACHE_DIR=tmp_path / "cache", MAX_FRAMES=32, IMAGE_SIZE=(16, 16))
    )
    source = InspectedClips(reader, inspection.usable)
    rows = {row.caption: row for row in (source.row(0, index) for index in range(len(source)))}
    frames = {name: row.frames for name, row in rows.items()}
    assert frames == {"blink": 4, "short": 8, "medium": 16, "long": 32, "ten minutes": 32}
    assert {name: rows[name].seconds for name in durations} == pytest.approx(durations)
    assert rows["ten minutes"].seconds == pytest.approx(600)
    assert source.lengths().tolist() == [source.row(0, index).frames for index in range(len(source))]
    assert source.lengths().dtype == numpy.int64
    for row in rows.values():
        clip = source.load(row).mean((1, 2, 3))
        assert clip.shape == (row.frames,)
        assert (numpy.diff(clip) >= 0).all()
        assert clip[0] <= 255 * 0.13  # from its beginning
        assert clip[-1] >= 255 * 0.86  # to its end
    reasons = {row.id: row.reason for row in inspection.unusable}
    assert reasons["picture.gif"] == "has only one frame: it is a picture, not a clip"
    assert reasons["line.gif"] == "has frames of 1 x 1000 pixels; the least is 8 x 8"
    assert any("1 of 5 (20.0%) too long for MAX_FRAMES=32" in notice.text for notice in inspection.notices)


def test_frames_of_changing_duration_are_shown_as_long_as_they_last(open_, tmp_path):
    root = tmp_path / "uneven"
    root.mkdir()
    grey_gif(root / "clip.gif", 4, [500, 100, 100, 300])  # of one second
    inspection, reader = inspect_data(
        Config.model_construct(DATA_ROOT=root, CACHE_DIR=tmp_path / "cache", MAX_FRAMES=32, IMAGE_SIZE=(16, 16))
    )
    shades = reader.clip(inspection.usable[0]).mean((1, 2, 3)).round().tolist()
    # The middles of 12 parts of the second: 0.04, 0.13, 0.21, 0.29, 0.38, 0.46, 0.54, 0.63, 0.71, 0.79, 0.88, 0.96.
    assert shades == pytest.approx([0] * 6 + [83] + [166] + [250] * 4, abs=1)


def test_the_cache_is_measured_by_the_frames_that_clips_have(open_):
    stretched, natural = (open_(clip_timing=timing, max_frames=32) for timing in ("stretched", "natural"))
    rows = [natural.training.row(0, index) for index in range(len(natural.training))]
    assert {row.frames for row in rows} == {12}  # of one second
    limit = sum(row.frames for row in rows) * 16 * 16 * 3 / 1e9
    assert "decoded clips take" not in "".join(
        open_(clip_timing="natural", max_frames=32, cache_limit_gb=1.01 * limit).summary.lines()
    )
    said = "".join(open_(clip_timing="stretched", max_frames=32, cache_limit_gb=1.01 * limit).summary.lines())
    assert "decoded clips take" in said
    assert len(stretched.training) == len(natural.training)


def test_captions_of_validation_are_held_out(open_):
    for seed in range(4):
        splits = open_(seed=seed)
        assert 1 <= len(captions(splits.validation)) <= 3
        assert not captions(splits.training) & captions(splits.validation)
        assert all(splits.is_held_out(caption) for caption in captions(splits.validation))
        assert not any(splits.is_held_out(caption) for caption in captions(splits.training))
    assert len({frozenset(captions(open_(seed=seed).validation)) for seed in range(8)}) > 1
    assert open_(seed=2).summary.report == open_(seed=2).summary.report


def test_one_caption_is_shared_and_said_so(open_, folder):
    for file in folder.glob("*.txt"):
        file.write_text("hello")
    splits = open_()
    assert len(splits.training) == len(splits.validation) == 6
    assert "validation on training clips" in splits.summary.description


def test_captions_that_are_alike_to_the_model_are_never_on_both_sides(open_, folder):
    beginnings = {"the weather today: ": 3, "the news of today: ": 3}
    texts = [f"{beginning}{number}" for beginning, count in beginnings.items() for number in range(count)]
    for file, text in zip(sorted(folder.glob("*.txt")), texts, strict=True):
        file.write_text(text)
    length = len("the weather today:")
    for seed in range(8):
        splits = open_(seed=seed, max_caption_length=length)
        sides = [{caption[:length] for caption in captions(part)} for part in (splits.training, splits.validation)]
        assert sides[0].isdisjoint(sides[1])
        assert all(splits.is_held_out(caption + " and more") for caption in sides[1])
        assert not any(splits.is_held_out(caption + " and more") for caption in sides[0])
        assert splits.summary.measures == {"Captions_Unread_Percent": 0.0, "Captions_Alike_Percent": 100.0}
    [said] = [line for line in splits.summary.lines() if line.startswith("captions: ")]
    assert f"6 of 6 are longer than {length} characters and are cut off; MAX_CAPTION_LENGTH=20 would read all" in said
    assert "6 differ from another one only in what is not read" in said
    assert open_(max_caption_length=20).summary.measures["Captions_Alike_Percent"] == 0


def test_captions_of_which_nothing_is_read_are_refused_before_training(open_, folder):
    for number, file in enumerate(sorted(folder.glob("*.txt"))):
        file.write_text("你好" if number < 3 else "hello", encoding="utf-8")
    with pytest.raises(UserError, match="knows no character of 3 of 6 captions, such as '你好'"):
        open_()
    (folder / "clip0.txt").write_text("bye")
    splits = open_()
    assert splits.summary.measures["Captions_Unread_Percent"] == pytest.approx(100 * 2 / 6)
    assert any("nothing is left of 2 of 6" in line for line in splits.summary.lines())


def test_validation_clips_are_limited(open_):
    assert len(open_(validation_fraction=0.9, validation_clips=2).validation) == 2


def test_training_clips_are_validated_on_too_where_held_out_words_cannot_be_known(open_, folder):
    for seed in range(4):
        splits = open_(seed=seed)
        of_trained = splits.validation_of_trained
        rows = [of_trained.row(0, index) for index in range(len(of_trained))]
        assert {row.id for row in rows} == {splits.training.row(0, index).id for index in range(len(splits.training))}
        again = open_(seed=seed).validation_of_trained
        assert [again.row(0, index) for index in range(len(again))] == rows
    assert len(open_(validation_clips=2).validation_of_trained) == 2
    for file in folder.glob("*.txt"):
        file.write_text(f"I see {file.read_text()}", encoding="utf-8")
    assert open_().validation_of_trained is None


def test_real_clips_and_prompts(open_):
    splits = open_()
    assert splits.real_clip("yes").shape == (5, 16, 16, 3)
    assert splits.real_clip("no") is None
    assert splits.is_held_out("no")
    assert set(splits.default_prompts) == {"hello", "thanks", "see you", "yes"}


def test_bad_files_are_skipped_and_named(open_, folder, tmp_path):
    (folder / "broken.mp4").write_bytes(b"no video")
    (folder / "broken.txt").write_text("x")
    shutil.copy(folder / "clip0.gif", folder / "silent.gif")
    shutil.copy(folder / "clip0.gif", folder / "empty.gif")
    (folder / "empty.txt").write_text(" \n")
    shutil.copy(folder / "clip0.gif", folder / "latin.gif")
    (folder / "latin.txt").write_bytes("größer".encode("latin-1"))
    (folder / "notes.pdf").write_text("not looked at")
    outside = tmp_path / "outside.gif"
    shutil.copy(folder / "clip0.gif", outside)
    (folder / "link.gif").symlink_to(outside)
    (folder / "link.txt").write_text("stolen")
    splits = open_()
    reasons = {entry["clip"]: entry["reason"] for entry in json.loads(json.dumps(splits.summary.report))["skipped"]}
    assert reasons == {
        "broken.mp4": "is not a video of a known kind",
        "empty.gif": "has no caption: empty.txt is empty",
        "latin.gif": "has no usable caption: latin.txt is not UTF-8: save it again as UTF-8",
        "link.gif": f"leads out of the data set's folder, to {tmp_path} (DATA_ALLOW)",
        "silent.gif": "has no caption: silent.txt is missing",
    }
    [said] = [line for line in splits.summary.lines() if line.startswith("clips: ")]
    assert said.startswith("clips: 5 cannot be used: ")
    assert "broken.mp4 is not a video" in said
    assert len(splits.training) + len(splits.validation) == 6


def test_captions_may_not_lead_out_of_the_folder_either(open_, folder, tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "clip4.txt").unlink()
    (folder / "clip4.txt").symlink_to(tmp_path / "secret.txt")
    reasons = {entry["clip"]: entry["reason"] for entry in open_().summary.report["skipped"]}
    assert "leads out of the data set's folder" in reasons["clip4.gif"]


def test_links_inside_the_folder_are_fine(open_, folder):
    (folder / "again.gif").symlink_to(folder / "clip0.gif")
    (folder / "again.txt").write_text("hello")
    assert open_().summary.report["skipped"] == []


def test_more_than_half_unusable_is_an_error(open_, folder):
    for number in range(4):
        (folder / f"clip{number}.txt").unlink()
    with pytest.raises(
        UserError, match=r"4 of 6 clips cannot be used.*clip0.txt is missing.*inspect .* names them all"
    ):
        open_()


def test_clips_of_which_none_has_a_caption_are_refused_once_with_the_remedy(open_, folder):
    for file in folder.glob("*.txt"):
        file.rename(file.with_suffix(".vtt"))
    with pytest.raises(UserError) as caught:
        open_()
    assert str(caught.value) == (
        f"DATA_ROOT={str(folder)!r}: no clip has a caption: write clip0.txt beside clip0.gif, and so on. Note: 6 .vtt "
        "files are not read as captions: write .txt files."
    )


def test_no_usable_or_no_video_at_all_is_an_error(open_, folder, tmp_path):
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UserError, match="holds no clip"):
        open_(tmp_path / "nothing")
    with pytest.raises(UserError, match="does not exist"):
        open_(tmp_path / "absent")
    (tmp_path / "nothing" / "a.mp4").write_bytes(b"")
    (tmp_path / "nothing" / "a.txt").write_text("a")
    with pytest.raises(UserError, match=r"a\.mp4 is empty"):
        open_(tmp_path / "nothing")


def test_what_is_done_to_pictures_is_said_before_a_training(open_, folder, write_video, brightening_video):
    write_video(folder / "clip1.mp4", brightening_video, rotation=90)
    for _ in range(2):  # the second time, the clips are not read again
        [said] = [line for line in open_().summary.lines() if line.startswith("pictures: ")]
        assert said.startswith("pictures: 1 of 6 turned upright, as the file says, such as clip1.mp4; ")
        assert "; 6 of 6 made square by CLIP_FIT='crop'" in said


def test_a_cache_that_is_too_small_for_the_clips_is_said(open_):
    assert not any("CACHE_LIMIT_GB" in notice.text for notice in open_().summary.notices)
    limit = len(open_().training) * 5 * 16 * 16 * 3 - 1
    notices = open_(cache_limit_gb=limit / 1e9).summary.notices
    assert any("decoded clips take 0.0 GB, more than CACHE_LIMIT_GB" in notice.text for notice in notices)


def test_an_option_for_folders_is_said_to_change_nothing_elsewhere(folder, tmp_path):
    (tmp_path / "list.csv").write_text("path,text\nvideos/clip0.gif,hello\n")
    for path, said in ((folder, ()), (tmp_path / "list.csv", ("SIGNER_FROM_FILE_NAME changes nothing",))):
        constants = {"DATA_ROOT": path, "SIGNER_FROM_FILE_NAME": True, "CACHE_DIR": tmp_path / "cache"}
        inspection, _ = inspect_data(Config.model_construct(**constants))
        notices = [notice.text for notice in inspection.notices if notice.topic != "pictures"]
        assert tuple(text.split(":")[0] for text in notices) == said


def test_clips_in_a_folder_for_testing_are_never_trained_on(open_, folder):
    for number, part in enumerate(("train", "train", "train", "val", "test", "test")):
        (folder / part).mkdir(exist_ok=True)
        for file in folder.glob(f"clip{number}.*"):
            file.rename(folder / part / file.name)
    report = open_().summary.report
    assert [len(report[part]) for part in ("training", "validation", "test")] == [3, 1, 2]
    for split_by in ("auto", "caption"):
        splits = open_(split_by=split_by)
        assert captions(splits.training) | captions(splits.validation) == {"hello", "thanks", "see you"}
        assert [clip["caption"] for clip in splits.summary.report["test"]] == ["yes", "yes"]


def test_files_in_a_folder_for_each_word_may_begin_with_the_signer(folder, tmp_path):
    for number, (word, signer) in enumerate([("hello", "amy"), ("hello", "bob"), ("yes", "amy")]):
        (tmp_path / "words" / word).mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / f"clip{number + 3}.gif", tmp_path / "words" / word / f"{signer}_{number}.gif")
    constants = {"DATA_ROOT": tmp_path / "words", "SIGNER_FROM_FILE_NAME": True, "CACHE_DIR": tmp_path / "cache"}
    inspection, _ = inspect_data(Config.model_construct(**constants))
    rows = [(clip.row.caption, clip.row.signer) for clip in inspection.usable]
    assert rows == [("hello", "amy"), ("hello", "bob"), ("yes", "amy")]
    assert [notice.topic for notice in inspection.notices] == ["captions", "pictures"]


def test_each_file_is_decoded_once(open_, folder, monkeypatch):
    open_()

    def refuse(*arguments):
        raise AssertionError("decoded again")

    monkeypatch.setattr("data.inspection.decode_media", refuse)
    monkeypatch.setattr("data.inspection.media_digest", refuse)
    splits = open_()
    assert splits.training.load(splits.training.row(0, 0)).shape == (5, 16, 16, 3)


def test_a_file_that_vanishes_during_training_is_named(open_, folder, tmp_path):
    splits = open_()
    shutil.rmtree(tmp_path / "cache")
    shutil.rmtree(folder)
    with pytest.raises(UserError, match=r"clip\d\.\w+ does not exist: put it back"):
        splits.training.load(splits.training.row(0, 0))


def test_a_file_that_changes_during_training_is_named(open_, folder, tmp_path):
    splits = open_()
    shutil.rmtree(tmp_path / "cache")
    row = splits.training.row(0, 0)
    (folder / row.id).write_bytes(b"other")
    with pytest.raises(UserError, match="has changed"):
        splits.training.load(row)
