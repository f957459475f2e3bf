"""generate.py on the checkpoint of a real run."""

import io
import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy
import pytest
import torch
from PIL import Image
from torch import Tensor

import generate
from sampling.sampler import ClipSampler
from sampling.trained_run import SamplingRequest, TrainedRun, open_trained_run


@pytest.fixture
def expected_frames(finished_run: Path) -> Callable[..., list[int]]:
    """Return a function from texts, and how many times longer, to the frames of the nearest length, by hand."""
    trained = open_trained_run(SamplingRequest(run=finished_run, device="cpu"))

    def frames(*texts: str, times: float = 1) -> list[int]:
        expected = trained.sampler.seconds(trained.model, texts)
        return [max(4, 4 * math.floor(times * seconds * 12 / 4 + 0.5)) for seconds in expected]

    return frames


def frames_of(path: Path) -> numpy.ndarray:
    with av.open(path) as container:
        return numpy.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def run(*arguments: str) -> int:
    return generate.main(list(arguments))


def test_one_text_makes_one_playable_file(
    finished_run: Path,
    tmp_path: Path,
    expected_frames: Callable[..., list[int]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "new" / "cab.mp4"
    assert run("--run", str(finished_run), "--text", "CAB", "--output", str(output), "--scale", "4") == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(output)
    assert frames_of(output).shape == (*expected_frames("CAB"), 64, 64, 3)


def test_a_gif_loops_and_keeps_every_frame(
    finished_run: Path, tmp_path: Path, expected_frames: Callable[..., list[int]]
) -> None:
    output = tmp_path / "a.GIF"
    assert run("--run", str(finished_run), "--text", "a", "--output", str(output)) == 0
    image = Image.open(io.BytesIO(output.read_bytes()))
    assert [image.n_frames] == expected_frames("A")
    assert image.info["loop"] == 0


def test_clips_last_as_long_as_the_model_expects_unless_told_otherwise(
    finished_run: Path, tmp_path: Path, expected_frames: Callable[..., list[int]]
) -> None:
    """Also longer than MAX_FRAMES, which is 8 in this run: in its time, a letter is a letter in words of any length."""

    def lengths(*options: str) -> list[int]:
        folder = tmp_path / "-".join(options or ("plain",))
        texts = ("A", "SIGN TO ME")
        assert run("--run", str(finished_run), "--text", *texts, "--output", str(folder), "--steps", "1", *options) == 0
        return [len(frames_of(folder / name)) for name in ("A.mp4", "SIGN_TO_ME.mp4")]

    short, long = lengths()
    assert [short, long] == expected_frames("A", "SIGN TO ME")
    assert long > max(short, 8)
    assert lengths("--speed", "0.5") == expected_frames("A", "SIGN TO ME", times=2)
    assert lengths("--speed", "4") == expected_frames("A", "SIGN TO ME", times=0.25)
    assert lengths("--seconds", "1.6") == [20, 20]  # of 19.2 frames
    assert lengths("--seconds", "0.01") == [4, 4]


def test_another_speed_and_the_same_seed_begin_with_the_same_noise(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noises = []

    def sample(sampler: ClipSampler, model: Any, prompts: Any, given: Sequence[Tensor], seed: int) -> Sequence[Tensor]:
        noises.extend(given)
        return given

    monkeypatch.setattr(ClipSampler, "sample", sample)
    for seconds in ("1", "2"):
        output = str(tmp_path / f"{seconds}.mp4")
        assert run("--run", str(finished_run), "--text", "A", "--seconds", seconds, "--output", output) == 0
    assert [noise.shape[1] for noise in noises] == [12, 24]
    assert torch.equal(noises[0], noises[1][:, :12])


@pytest.mark.parametrize("option", [("--seconds", "2"), ("--speed", "0.7")])
def test_how_long_a_clip_is_cannot_be_asked_where_all_are_as_long(
    finished_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: tuple[str, str],
) -> None:
    def stretched(request: SamplingRequest) -> TrainedRun:
        opened = open_trained_run(request)
        return replace(opened, config=opened.config.model_copy(update={"CLIP_TIMING": "stretched"}))

    monkeypatch.setattr(generate, "open_trained_run", stretched)
    monkeypatch.chdir(tmp_path)
    assert run("--run", str(finished_run), "--text", "A", "--output", "new/a.mp4", *option) == 1
    message = "--seconds and --speed: all clips of the run have 8 frames (CLIP_TIMING is 'stretched')"
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_several_texts_go_into_a_folder_and_none_changes_another(finished_run: Path, tmp_path: Path) -> None:
    assert run("--run", str(finished_run), "--text", "A", "B", "A", "--output", str(tmp_path / "three")) == 0
    assert sorted(path.name for path in (tmp_path / "three").iterdir()) == ["A.2.mp4", "A.mp4", "B.mp4"]
    assert run("--run", str(finished_run), "--text", "A", "--output", str(tmp_path / "one.mp4")) == 0
    alone, together = frames_of(tmp_path / "one.mp4"), frames_of(tmp_path / "three" / "A.mp4")
    assert numpy.abs(alone.astype(int) - together).mean() < 2  # equal up to rounding in another batch size
    repeated = frames_of(tmp_path / "three" / "A.2.mp4")
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
        (["--text", "CAB?"], "'CAB?': the run knows no '?'; it knows: A B C"),
        (["--text", ""], "there is nothing to sign"),
        (["--text", " "], "there is nothing to sign"),
        (["--text", "A", "--language", "gsg"], "--language gsg: the run does not sign it; it signs: ase"),
        (["--text", "A", "--steps", "0"], "--steps 0: must be between 1 and 1000"),
        (["--text", "A", "--guidance-scale", "nan"], "--guidance-scale nan: must be between 0 and 100"),
        (["--text", "A", "--sampler", "magic"], "--sampler magic: choose from ddim"),
        (["--text", "A", "--scale", "0"], "--scale 0: must be between 1 and 256"),
        (["--text", "A", "--scale", "5000"], "--scale 5000: must be between 1 and 256"),
        (["--text", "A", "--seconds", "0"], "--seconds 0: must be above 0, and at most 85.3"),
        (["--text", "A", "--seconds", "86"], "--seconds 86: must be above 0, and at most 85.3"),
        (["--text", "A", "--seconds", "nan"], "--seconds nan: must be above 0"),
        (["--text", "A", "--speed", "0.2"], "--speed 0.2: must be between 0.25 and 4"),
        (["--text", "A", "--speed", "nan"], "--speed nan: must be between"),
        (["--text", "ABCDEFGHIJKL M"], "13 letters are too many; it can have 12"),
        (["--text", "A  B"], "one space is between two words"),
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
    (tmp_path / "config.json").write_text("{}")
    assert run("--run", str(tmp_path), "--text", "A") == 1
    assert "no checkpoint in" in capsys.readouterr().err
    assert run("--run", str(tmp_path / "none"), "--text", "A") == 1
    assert "there is no such folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--output", "file/a.mp4"], "--output file/a.mp4 cannot be written"),
        (["--output", "folder.mp4"], "--output folder.mp4: that is a folder"),
        (["--output", "folder"], "--output folder/A.mp4: that is a folder"),
        (["--output", f"{'x' * 252}.mp4"], "cannot be written: .*too long"),
        (["--contact-sheet", "folder.png"], "--contact-sheet folder.png: that is a folder"),
    ],
)
def test_an_output_that_cannot_be_written_is_named_before_anything_is_sampled(
    options: list[str],
    message: str,
    finished_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ClipSampler, "sample", None)
    (tmp_path / "file").write_text("")
    for folder in ("folder.mp4", "folder/A.mp4", "folder.png"):
        (tmp_path / folder).mkdir(parents=True)
    assert run("--run", str(finished_run), "--text", "A", *options) == 1
    assert re.search(message, capsys.readouterr().err)


def test_the_newest_run_is_taken_and_said_where_none_is_named(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it prints is the path alone, for scripts; which run it took goes to stderr."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "words").symlink_to(finished_run, target_is_directory=True)
    assert run("--text", "A", "--scale", "1", "--steps", "1") == 0
    assert capsys.readouterr() == ("A.mp4\n", f"Run: {Path('logs') / 'words'}\n")


def names_of(folder: Path, *texts: str) -> list[str]:
    """Return the names of the files of texts, once they are written."""
    names = generate._file_names(texts, folder)
    for name in names:
        (folder / name).write_text("")
    return names


def test_a_text_in_any_script_is_the_name_of_its_file(tmp_path: Path) -> None:
    texts = ("CAB", "good morning", "T-SHIRT", "क्षत्रिय", "สวัสดี", "你好", "שלום", "e\N{COMBINING ACUTE ACCENT}te")
    assert names_of(tmp_path, *texts) == [
        *(
            "CAB.mp4",
            "good_morning.mp4",
            "T-SHIRT.mp4",
            "क्षत्रिय.mp4",
            "สวัสดี.mp4",
            "你好.mp4",
            "שלום.mp4",
            "éte.mp4",
        )
    ]


NAMESAKES = (
    *("a b", "a_b", "a  b", " a b", "a b!", "a/b", "../a b", "A b", "a B", "a\nb", "a\0b", "a\u200db", "a\udcffb"),
    *("...", "?", "_", "con", "_con", "CON", "com¹", "straße", "strasse", "é", "É", "\ufb01", "fi"),
    *("x" * 300, "x" * 301, "你" * 100, "你" * 101, "x" * 200, "-x", "x.mp4"),
)


def test_different_texts_never_share_a_name_on_any_file_system_in_one_run_or_several(tmp_path: Path) -> None:
    (tmp_path / "together").mkdir()
    (tmp_path / "apart").mkdir()
    together = names_of(tmp_path / "together", *NAMESAKES)
    apart = [name for text in NAMESAKES for name in names_of(tmp_path / "apart", text)]
    assert together == apart == [name for text in NAMESAKES for name in names_of(tmp_path / "apart", text)]
    for form in ("NFC", "NFD"):
        assert len({unicodedata.normalize(form, name.casefold()) for name in apart}) == len(NAMESAKES)
    reserved = {
        "CON",
        "PRN",
        "AUX",
        "NUL",
        *(f"{port}{number}" for port in ("COM", "LPT") for number in "123456789¹"),
    }
    for name in apart:
        assert len(name.encode()) <= 255
        assert name.split(".")[0].upper() not in reserved
        assert name.split(".")[0].rstrip(" .") not in ("", *"-")
        assert not set(name) & set('/\\:*?"<>|')
        assert name.isprintable()
        assert name.endswith(".mp4")
        assert not name.startswith((".", "-", " "))
        assert (tmp_path / "apart" / name).is_file()


def test_a_text_that_comes_again_is_numbered(tmp_path: Path) -> None:
    names = names_of(tmp_path, "A", "B!", "A", "B!", "A")
    assert [re.sub(r"[0-9a-f]{8}", "HASH", name) for name in names] == [
        *("A.mp4", "B.HASH.mp4", "A.2.mp4", "B.HASH.2.mp4", "A.3.mp4")
    ]


def test_a_contact_sheet_shows_real_above_generated(finished_run: Path, tmp_path: Path) -> None:
    """A row is 16 x 16 frames enlarged to 96, twelve of the longer clip, beside a label; rows are 6 pixels apart."""
    sheet, clip = tmp_path / "sheet.png", tmp_path / "clip.gif"
    options = ("--output", str(clip), "--scale", "1", "--contact-sheet", str(sheet), "--seconds", "1")
    assert run("--run", str(finished_run), "--text", "B", *options) == 0
    pixels = numpy.asarray(Image.open(sheet))
    assert pixels.shape == (2 * 96 + 6, 130 + 12 * 96, 3)
    strip = pixels[96 + 6 :: 6, 130::6]
    image = Image.open(clip)
    assert image.n_frames == 12
    for frame in range(12):
        image.seek(frame)
        wanted = numpy.asarray(image.convert("RGB")).astype(int)
        assert numpy.abs(strip[:, 16 * frame : 16 * frame + 16] - wanted).mean() < 6  # a GIF has 256 colours a frame
    real = pixels[:96, 130 : 130 + 4 * 96].astype(int)  # of a single letter: four frames
    assert numpy.abs(real - pixels[102:, 130 : 130 + 4 * 96]).mean() > 10
    assert (pixels[:96, 130 + 4 * 96 :] == 255).all()
