import os

import av
import imageio.v3
import pytest

from data.fingerspelling.__main__ import main


@pytest.fixture
def render(tmp_path):
    def run(text="CAB\n", *options, words=None, output=None):
        listed = tmp_path / "words.txt"
        listed.write_bytes(text if isinstance(text, bytes) else text.encode())
        arguments = ["render", "--words", str(words or listed), "--output", str(output or tmp_path / "out")]
        return main([*arguments, *options])

    return run


def test_each_word_becomes_a_playable_video_and_its_text(render, tmp_path):
    assert render("cab\n\nL\nCAB\n", "--frames", "6", "--size", "64") == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["CAB.mp4", "CAB.txt", "L.mp4", "L.txt"]
    assert (tmp_path / "out" / "CAB.txt").read_text() == "CAB\n"
    with av.open(str(tmp_path / "out" / "CAB.mp4")) as container:
        codec = container.streams.video[0].codec_context
        assert (codec.name, codec.pix_fmt) == ("h264", "yuv420p")
    video = imageio.v3.imread(tmp_path / "out" / "CAB.mp4", plugin="pyav")
    assert video.shape == (6, 64, 64, 3)
    assert abs(video[0].astype(int) - video[-1]).mean() > 5  # C and B


def test_a_longer_word_is_a_longer_video(render, tmp_path):
    assert render("A\nAB CDEFGH\n", "--size", "32", "--frames-per-second", "30") == 0
    frames = [len(imageio.v3.imread(tmp_path / "out" / f"{word}.mp4", plugin="pyav")) for word in ("A", "AB CDEFGH")]
    assert 10 / 1.6 - 1 < frames[0] < 10 / 0.6 + 1
    assert frames[1] > 87.5 / 1.6 - 1  # 8 letters and a pause


@pytest.mark.slow
def test_the_seed_decides_the_look(render, tmp_path):
    videos = []
    for number, seed in enumerate(["0", "0", "1"]):
        assert render("L", "--frames", "4", "--size", "32", "--seed", seed, output=tmp_path / str(number)) == 0
        videos.append(imageio.v3.imread(tmp_path / str(number) / "L.mp4", plugin="pyav"))
    assert (videos[0] == videos[1]).all()
    assert (videos[0] != videos[2]).any()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("CAB\nC4B\n", "no symbol '4'"),
        ("\n \n", "holds no word"),
        pytest.param(b"\xff\xfe", "not UTF-8", id="not UTF-8"),
        ("ABC DE", "5 letters: too many for --frames 4"),
    ],
)
def test_a_bad_list_writes_nothing(render, tmp_path, capsys, text, message):
    assert render(text, "--frames", "4") == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_missing_list_and_an_unknown_language_are_named(render, tmp_path, capsys):
    assert render(words=tmp_path / "none.txt") == 1
    assert "none.txt" in capsys.readouterr().err
    assert render("A", "--language", "xx") == 1
    assert "ase" in capsys.readouterr().err


def test_an_output_that_is_no_folder_is_named(render, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert render(output=tmp_path / "file") == 1
    assert "cannot be written" in capsys.readouterr().err


def test_a_failure_half_way_leaves_nothing(render, tmp_path, capsys, monkeypatch):
    def fail(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    assert render() == 1
    assert "No space left" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "options", [["--size", "33"], ["--frames", "2"], ["--frames-per-second", "0"], ["--seed", "x"]]
)
def test_bad_options_are_usage_errors(render, options):
    with pytest.raises(SystemExit) as caught:
        render("A", *options)
    assert caught.value.code == 2


def test_languages_are_listed_with_their_symbols(capsys):
    assert main(["languages"]) == 0
    listed = capsys.readouterr().out
    assert "asq (de): ẞ A Ä B" in listed
    assert len(listed.splitlines()) == 20
