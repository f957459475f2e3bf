"""`python -m data inspect`: what it says of a folder whose clips are known."""

import json
import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path

import imageio.v3
import numpy
import pytest

from common.settings import load_settings
from config import PRESETS, Config
from data.__main__ import main
from data.inspection import InspectedClip, Inspection
from data.inspection_report import InspectionReport
from data.media.resample import MediaFacts
from data.rows import ManifestRow, Media
from models.tokens import Unread
from tests.shapes import natural

ROOT = Path(__file__).parents[2]
SMALL = ("--image-size=16", "--patch-size=2", "--max-frames=4", "--model-channels=16", "--spatial-attention-sizes=8")
SMALL += ("--attention-head-channels=16", "--batch-size=2")


@pytest.fixture
def clips(tmp_path, write_video):
    """Five clips that can be used, of two signers and two sizes, two alike; and two that cannot."""
    folder = tmp_path / "clips"
    folder.mkdir()
    shades = {"amy_hello": 40, "amy_bye": 80, "bob_hello": 120, "bob_thanks": 160}
    for number, (name, shade) in enumerate(shades.items()):
        size = (32, 48) if number < 3 else (20, 20)
        video = numpy.full((10, *size, 3), shade, numpy.uint8)
        video[5:] += 40
        video[:, 0, 0] = numpy.arange(0, 200, 20)[:, None]  # Pillow would make one of frames that are alike
        write_video(folder / f"{name}.gif", video, rate=10)
        (folder / f"{name}.txt").write_text(name.split("_")[1], encoding="utf-8")
    (folder / "amy_again.gif").write_bytes((folder / "amy_hello.gif").read_bytes())
    (folder / "amy_again.txt").write_text("Grüße, 你好", encoding="utf-8")
    (folder / "silent.gif").write_bytes((folder / "amy_hello.gif").read_bytes())
    (folder / "broken\n.mp4").write_bytes(b"nothing")
    (folder / "broken\n.txt").write_text("x")
    (folder / "notes.txt").write_text("no clip")
    return folder


@pytest.fixture
def inspect(clips, tmp_path):
    def run(*options):
        own = (f"--sheet={tmp_path / 'sheet.png'}", f"--json={tmp_path / 'all.json'}")
        return main(["inspect", str(clips), *own, *SMALL, f"--cache-dir={tmp_path / 'cache'}", *options])

    return run


def test_it_says_what_there_is(inspect, capsys):
    assert inspect("--signer-from-file-name") == 0
    printed = capsys.readouterr().out
    lines = [line.strip() for line in printed.splitlines()]
    assert "folder of clips with captions" in lines[0]
    assert "clips         5 usable, 2 unusable" in lines
    assert "durations     1.0 to 1.0 s, median 1.0 s; 5 s in all" in lines
    assert "trained as    4 to 4 frames, median 4, 12 a second" in lines
    assert "frame rates   10 a second (5)" in lines
    assert "resolutions   48 x 32 (4), 20 x 20 (1)" in lines
    assert "movement      none in 5 clips" in lines
    assert "captions      4 different; 3 to 9 characters, median 5" in lines
    assert "left out, because TEXT_ENCODER=characters does not know them: '你' (1), '好' (1)" in lines
    assert "signers       2: amy (3), bob (2)" in lines
    assert "languages     none named" in lines
    assert "duplicates    2 clips have the same content as another; 2 the same caption" in lines
    assert "the same content with different captions: amy_again.gif ('Grüße, 你好'), amy_hello.gif ('hello')" in lines
    assert "note          1 .txt file has no clip beside it, such as notes.txt" in lines
    assert "note          4 of 5 made square by CLIP_FIT='crop': 33% cut off in amy_again.gif; 'pad' would not" in lines
    assert r"skipped       silent.gif has no caption: silent.txt is missing" in lines
    assert r"broken\n.mp4 is not a video of a known kind" in lines
    assert any(line.startswith("splits        training ") and "by signer" in line for line in lines)


def test_captions_and_signers_are_counted_as_the_split_counts_them():
    texts = [("Nan", "Amy"), ("nan", "amy"), ("bye", "AMY"), ("day", None)]
    rows = [ManifestRow(f"{number}", Media("video", "a"), *text) for number, text in enumerate(texts)]
    rows += [ManifestRow(f"{number}", Media("video", "a"), f"word {number}") for number in range(4, 18)]
    facts = MediaFacts(10, 10, 10, 1.0)
    usable = tuple(InspectedClip(row, str(number // 2), "", facts) for number, row in enumerate(rows))
    inspection = Inspection("manifest", "list", Path("."), usable, (), ())
    lines = InspectionReport(
        "p", inspection, "characters", Unread(Counter(), (), 0, 7, ()), (), None, natural(16, 16)
    ).lines()
    assert "captions      17 different; 3 to 7 characters, median 6" in lines
    assert "signers       1: AMY (3); 15 clips name none" in lines
    place = lines.index("duplicates    18 clips have the same content as another; 2 the same caption")
    assert "same content with different captions: 2 ('bye'), 3 ('day')" in lines[place + 1]
    assert lines[place + 6].strip() == "and 3 more; --json FILE gives the sha256 of all clips"


def test_the_file_names_every_clip_and_every_reason(inspect, tmp_path):
    inspect()
    content = json.loads((tmp_path / "all.json").read_text("utf-8"))
    assert content["format"] == "folder"
    assert content["characters_left_out"] == {"你": 1, "好": 1}
    found = {clip["clip"]: clip for clip in content["clips"]}
    assert len(found) == 5
    assert found["bob_thanks.gif"]["seconds"] == pytest.approx(1.0)
    assert found["bob_thanks.gif"] | {"sha256": None, "split": None, "seconds": 1.0} == {
        **{"clip": "bob_thanks.gif", "caption": "thanks", "signer": None, "language": None, "split": None},
        **{"seconds": 1.0, "frames": 10, "trained_frames": 4, "width": 20, "height": 20, "changes": [], "region": None},
        "sha256": None,
    }
    assert {clip["split"] for clip in content["clips"]} == {"training", "held_out"}
    assert found["amy_again.gif"]["sha256"] == found["amy_hello.gif"]["sha256"]
    assert sorted(row["clip"] for row in content["skipped"]) == ["broken\\n.mp4", "silent.gif"]


def test_the_sheet_shows_the_clips_as_the_training_sees_them(inspect, tmp_path):
    inspect()
    sheet = imageio.v3.imread(tmp_path / "sheet.png")
    strips = sheet[:, 260:]  # right of the labels
    rows = [strips[row * 102 : row * 102 + 96] for row in range(5)]
    shades = sorted(int(row[48, 48].mean()) for row in rows)
    assert shades == pytest.approx([40, 40, 80, 120, 160], abs=3)
    assert all(int(row[48, -48].mean()) == pytest.approx(int(row[48, 48].mean()) + 40, abs=4) for row in rows)
    assert strips.shape[1] == 4 * 96


def test_what_is_cut_to_the_signer_is_counted_and_shown_in_a_box(inspect, clips, write_video, tmp_path, capsys):
    """A white square jumps from 24 to 48 of 96 columns: with the margins, from 18 to 70; and 32 of 64 rows."""
    video = numpy.full((16, 64, 96, 3), 40, numpy.uint8)
    video[:8, 16:32, 24:40], video[8:, 16:32, 48:64] = 255, 255
    for file in clips.iterdir():
        if file.stem != "amy_bye":
            file.unlink()
    write_video(clips / "moving.gif", video)
    (clips / "moving.txt").write_text("moving", encoding="utf-8")
    assert inspect("--clip-fit=signer") == 0
    lines = capsys.readouterr().out.splitlines()
    assert (
        "movement      within 27% to 27% of the picture, median 27%; none in 1 clip; 1 cut to it and 1 to the centre"
        in lines
    )
    assert any("1 of 2 show no movement" in line and "such as amy_bye.gif" in line for line in lines)
    assert any(line.endswith("(2 clips as the training sees them)") for line in lines)
    found = {clip["clip"]: clip["region"] for clip in json.loads((tmp_path / "all.json").read_text("utf-8"))["clips"]}
    assert found["amy_bye.gif"] is None
    assert [96 * found["moving.gif"][side] for side in ("left", "right")] == pytest.approx([24 - 6, 64 + 6])
    sheet = imageio.v3.imread(tmp_path / "sheet.png")[:, 260:]
    boxes = (sheet == (255, 210, 0)).all(-1)
    rows = [boxes[row * 102 : row * 102 + 96, :96] for row in range(4)]
    assert sorted(bool(row.any()) for row in rows) == [False, False, True, True]  # of each clip, the whole pictures
    widths = sorted(numpy.ptp(numpy.flatnonzero(row.any(0))) + 1 for row in rows if row.any())
    # The wide picture is 96 wide, and the box is as high as wide: 52. Of the still one, 48 x 32, the middle 32.
    assert widths == pytest.approx([52, 64], abs=1)


def test_it_ends_with_a_command_that_can_be_pasted(inspect, clips, tmp_path, capsys):
    clips.rename(tmp_path / "my clips")
    kept = ["--seed=3", "--model-channels=32,32,32", f"--cache-dir={tmp_path / 'cache'}"]
    replaced = ["--image-size", "16", "--spatial-attention-sizes=4"]
    start = ["inspect", str(tmp_path / "my clips"), f"--sheet={tmp_path / 'sheet.png'}"]
    assert main([*start, *replaced, *kept]) == 0
    *_, advice, train = capsys.readouterr().out.splitlines()
    assert advice == (
        "advice        95% of the clips have at most 8 frames at 10 a second, as most are stored; pictures are "
        "1.5 times as wide as high, but 1 of 5 have another shape, of which crop would cut off too much"
    )
    words = shlex.split(train)
    assert words[:5] == ["train", "python", "main.py", "--data-root", str(tmp_path / "my clips")]
    recommended = ["--frames-per-second", "10", "--image-size", "32,48", "--spatial-attention-sizes", "8"]
    recommended += ["--clip-fit", "pad"]
    assert words[5:] == [*kept, *recommended]
    assert load_settings(Config, PRESETS, words[3:], program="main.py").config.IMAGE_SIZE == (32, 48)
    assert main([*start, *words[5:]]) == 0
    *_, advice, again = capsys.readouterr().out.splitlines()
    assert advice.endswith(": these settings suit the clips")
    assert again == train


def test_what_was_inspected_is_not_decoded_again_by_the_next_start(inspect, monkeypatch, capsys):
    inspect()
    first = capsys.readouterr().out

    def refuse(*arguments):
        raise AssertionError("decoded again")

    monkeypatch.setattr("data.inspection.decode_media", refuse)
    assert inspect() == 0
    assert capsys.readouterr().out == first


def test_sentences_of_signs_are_counted_and_shown(inspect, capsys, tmp_path):
    assert inspect("--compose-signs=2", "--epoch-size=20", "--validation-clips=2") == 0
    out = capsys.readouterr().out
    assert "\nsplits        training 5, held out 0 (all signs are trained on, and sentences held out)" in out
    assert re.search(r"\ncomposed      sentences of 1 to 2 of 4 signs, 20 an epoch: 4 to 4 frames, .* on 2 held", out)
    assert f"\ncontact sheet {tmp_path / 'sheet.png'} (20 clips as the training sees them)" in out
    assert re.search(r"\nadvice        95% of the sentences have at most \d+ frames at 10 a second, as most are", out)


def test_captions_of_which_nothing_is_left_are_counted(inspect, clips, capsys):
    (clips / "bob_hello.txt").write_text("你好 谢谢", encoding="utf-8")
    inspect()
    assert (
        "nothing is left of 1 of 5, which then look all the same, such as '你好 谢谢': choose"
        in capsys.readouterr().out
    )


def test_long_captions_are_counted(inspect, capsys):
    inspect("--max-caption-length=5")
    assert (
        "2 of 5 are longer than 5 characters and are cut off; MAX_CAPTION_LENGTH=7 would read all"
        in capsys.readouterr().out
    )


def test_where_most_is_broken_what_was_found_comes_before_the_error(inspect, clips, capsys):
    for name in ("amy_hello", "amy_bye", "bob_hello"):
        (clips / f"{name}.txt").unlink()
    assert inspect() == 1
    printed = capsys.readouterr()
    assert "clips         2 usable, 5 unusable" in printed.out
    assert printed.err.endswith(
        ": 5 of 7 clips cannot be used, which looks like a mistake. Put them right or take them away.\n"
    )


def test_a_single_clip_is_reported_plainly(inspect, clips, capsys):
    for file in clips.iterdir():
        if file.stem != "amy_hello":
            file.unlink()
    assert inspect() == 0
    printed = capsys.readouterr()
    assert "captions      1 only; 5 characters\n" in printed.out
    assert "(validation on training clips: there is one clip)" in printed.out
    (clips / "amy_hello.txt").unlink()
    assert inspect() == 1
    assert capsys.readouterr().err.endswith(
        ": no clip has a caption: write amy_hello.txt beside amy_hello.gif, and so on.\n"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["inspect", "/nowhere/at/all"], 1, "'/nowhere/at/all' does not exist"),
        (["inspect", "none"], 1, "'none' does not exist"),
        (["inspect", "CLIPS", "--sheet=/nowhere/at/all/sheet.png"], 1, "no file in a folder that exists"),
        (["inspect", "CLIPS", "--validation-clips=0"], 1, "VALIDATION_CLIPS"),
        (["inspect", "CLIPS", "--data-format=wlasl"], 1, "holds no WLASL_v0.3.json"),
        (["inspect", "CLIPS", "--split-by=signer"], 1, "SPLIT_BY=signer needs a signer"),
        (["inspect", "CLIPS", "--sheet=CLIPS.mp4"], 1, "give a file that ends in .png"),
        (["inspect", "CLIPS", "--json=caption.txt"], 1, "give a file that ends in .json"),
        (["inspect", ""], 2, "it is empty"),
        (["inspect", "~nobody_of_this_name"], 1, "nobody of this name has a home folder"),
        (["inspect", "CLIPS", "--text-encoder=/no/model"], 1, "TEXT_ENCODER='/no/model'"),
        (["inspect", "--image-size=32", "CLIPS"], 2, "what inspect works on comes first"),
        (["inspect", "--image-size", "32", "CLIPS"], 2, "what inspect works on comes first"),
        (["inspect", "CLIPS", "--data-root=elsewhere"], 2, "--data-root is what comes first already"),
        (["shard", "CLIPS", "--seed", "3", "OUT"], 2, "what shard works on comes first"),
        (["shard", "CLIPS", "OUT", "--shard-megabytes=many"], 2, "'many' is not a whole number"),
        (["shard", "CLIPS", "CLIPS"], 1, "is not empty"),
        (["inspect"], 2, "path"),
        (["inspekt"], 2, "invalid choice"),
    ],
)
def test_what_cannot_work_is_an_error_and_no_traceback(clips, tmp_path, monkeypatch, capsys, arguments, code, message):
    arguments = [str(clips) if argument == "CLIPS" else argument for argument in arguments]
    monkeypatch.chdir(tmp_path)
    try:
        result: object = main([*arguments, f"--cache-dir={tmp_path / 'cache'}", *SMALL])
    except SystemExit as error:
        result = error.code
    assert result == code
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_the_real_command(clips, tmp_path):
    command = [sys.executable, "-m", "data", "inspect", str(clips), *SMALL, f"--cache-dir={tmp_path / 'cache'}"]
    done = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": ""}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "5 usable, 2 unusable" in done.stdout
    assert (tmp_path / "inspection.png").exists()


@pytest.mark.slow
def test_a_reader_that_has_seen_enough_is_no_error(clips, tmp_path):
    command = f"{sys.executable} -m data inspect {clips} {' '.join(SMALL)} --cache-dir={tmp_path / 'cache'} | head -1"
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.count("\n") == 1
    assert "Broken" not in done.stderr  # there may be a line on fonts
    assert "error" not in done.stderr
    assert (tmp_path / "inspection.png").exists()


@pytest.mark.slow
def test_a_signal_ends_it_and_leaves_nothing_half_written(clips, tmp_path):
    """Shards are written into a folder that has another name until the last is finished."""
    program = (
        "import os, signal, sys, data.shards\n"
        "original = data.shards.prepare_sample\n"
        "def slow(root, row):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return original(root, row)\n"
        "data.shards.prepare_sample = slow\n"
        "from data.__main__ import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", program, "shard", str(clips), str(tmp_path / "out" / "shards"), *SMALL]
    command.append(f"--cache-dir={tmp_path / 'cache'}")
    before = sorted(tmp_path.iterdir())
    done = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": ""}, capture_output=True)
    assert done.returncode == 143, done.stderr
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "cache"])


def test_shards_hold_what_can_be_used_and_are_read_back(clips, tmp_path, capsys):
    options = [*SMALL, f"--cache-dir={tmp_path / 'cache'}"]
    assert main(["shard", str(clips), str(tmp_path / "shards"), *options]) == 0
    printed = capsys.readouterr().out
    assert "5 clips in 1 shard:" in printed
    assert "2 left out: " in printed
    assert main(["inspect", str(tmp_path / "shards"), f"--sheet={tmp_path / 'sheet.png'}", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "WebDataset" in lines[0]
    assert "clips         5 usable, 0 unusable" in lines
    assert "resolutions   48 x 32 (4), 20 x 20 (1)" in lines
