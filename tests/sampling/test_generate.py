"""generate.py on the checkpoint of a real run."""

import io
from pathlib import Path

import av
import numpy
import pytest
from PIL import Image

import generate


def frames_of(path: Path) -> numpy.ndarray:
    with av.open(path) as container:
        return numpy.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def run(*arguments: str) -> int:
    return generate.main(list(arguments))


def test_one_text_makes_one_playable_file(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new" / "cab.mp4"
    assert run("--run", str(finished_run), "--text", "CAB", "--output", str(output), "--scale", "4") == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(output)
    assert frames_of(output).shape == (8, 64, 64, 3)


def test_a_gif_loops_and_keeps_every_frame(finished_run: Path, tmp_path: Path) -> None:
    output = tmp_path / "a.GIF"
    assert run("--run", str(finished_run), "--text", "a", "--output", str(output)) == 0
    image = Image.open(io.BytesIO(output.read_bytes()))
    assert image.n_frames == 8
    assert image.info["loop"] == 0


def test_several_texts_go_into_a_folder_and_none_changes_another(finished_run: Path, tmp_path: Path) -> None:
    assert run("--run", str(finished_run), "--text", "A", "B", "A", "--output", str(tmp_path / "three")) == 0
    assert sorted(path.name for path in (tmp_path / "three").iterdir()) == ["A.mp4", "A_2.mp4", "B.mp4"]
    assert run("--run", str(finished_run), "--text", "A", "--output", str(tmp_path / "one.mp4")) == 0
    alone, together = frames_of(tmp_path / "one.mp4"), frames_of(tmp_path / "three" / "A.mp4")
    assert numpy.abs(alone.astype(int) - together).mean() < 2  # equal up to rounding in another batch size
    repeated = frames_of(tmp_path / "three" / "A_2.mp4")
    assert numpy.abs(repeated.astype(int) - together).mean() > 2  # another noise


def test_seed_steps_sampler_and_guidance_each_change_the_clip(finished_run: Path, tmp_path: Path) -> None:
    variants = {
        "plain": [],
        "again": [],
        "seed": ["--seed", "1"],
        "steps": ["--steps", "2"],
        "sampler": ["--sampler", "ddpm"],
        "guidance": ["--guidance-scale", "50"],
        "raw": ["--raw-weights"],
    }
    contents = {}
    for name, options in variants.items():
        path = tmp_path / f"{name}.gif"
        assert run("--run", str(finished_run), "--text", "B", "--output", str(path), "--scale", "1", *options) == 0
        contents[name] = path.read_bytes()
    assert contents["again"] == contents["plain"]
    assert len(set(contents.values())) == len(contents) - 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--text", "CAB?"], "'CAB?': the run knows no '?'; it was trained on: A B C"),
        (["--text", ""], "there is nothing to sign"),
        (["--text", "A", "--steps", "0"], "--steps 0: must be between 1 and 1000"),
        (["--text", "A", "--guidance-scale", "nan"], "--guidance-scale nan: must be between 0 and 100"),
        (["--text", "A", "--sampler", "magic"], "--sampler magic: choose from ddim"),
        (["--text", "A", "--scale", "0"], "--scale 0: must be between 1 and 256"),
        (["--text", "A", "--scale", "5000"], "--scale 5000: must be between 1 and 256"),
        (["--text", "ABCDEFGHI"], "9 letters are too many for a clip of 8 frames"),
        (["--text", "A", "--contact-sheet", "a.txt"], "a contact sheet is a PNG"),
        (["--text", "A", "--output", "a.webm"], "only .mp4 and .gif can be written"),
        (["--text", "A", "B", "--output", "x.mp4"], "2 texts make several files; name a folder"),
    ],
)
def test_bad_requests_are_named_and_write_nothing(
    finished_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("--run", str(finished_run), *arguments) == 1
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_a_checkpoint_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--run", str(tmp_path), "--text", "A") == 1
    assert "no checkpoint in" in capsys.readouterr().err
    assert run("--run", str(tmp_path / "none"), "--text", "A") == 1
    assert "there is no such folder" in capsys.readouterr().err


def test_an_output_that_cannot_be_written_is_named(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert run("--run", str(finished_run), "--text", "A", "--output", str(tmp_path / "file" / "a.mp4")) == 1
    assert "cannot make the folder" in capsys.readouterr().err


def test_a_contact_sheet_shows_real_above_generated(finished_run: Path, tmp_path: Path) -> None:
    """A row is 16 x 16 frames enlarged to 96, eight of them, beside a label; rows are 6 pixels apart."""
    sheet, clip = tmp_path / "sheet.png", tmp_path / "clip.gif"
    options = ("--output", str(clip), "--scale", "1", "--contact-sheet", str(sheet))
    assert run("--run", str(finished_run), "--text", "B", *options) == 0
    pixels = numpy.asarray(Image.open(sheet))
    assert pixels.shape == (2 * 96 + 6, 130 + 8 * 96, 3)
    strip = pixels[96 + 6 :: 6, 130::6]
    image = Image.open(clip)
    for frame in range(8):
        image.seek(frame)
        wanted = numpy.asarray(image.convert("RGB")).astype(int)
        assert numpy.abs(strip[:, 16 * frame : 16 * frame + 16] - wanted).mean() < 6  # a GIF has 256 colours a frame
    assert numpy.abs(pixels[:96, 130:].astype(int) - pixels[102:, 130:]).mean() > 10
