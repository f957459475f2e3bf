"""The data benchmark runs, and what it reports follows from what it measured."""

import json
import os

import av
import pytest
import torch

from benchmarks import data_pipeline
from benchmarks.data_pipeline import (
    BARE,
    LengthsCost,
    Step,
    decode_all_frames,
    report,
    report_lengths,
    steps_of,
    write_clips,
)
from benchmarks.runner import SMALL_NETWORK
from common.settings import load_settings
from config import PRESETS, Config
from data.media.files import PlainFile
from data.media.video import decode_video
from main import main as train
from tests.shapes import stretched

SMALL = (4, 32, 24, 6)
OPTIONS = ("--image-size=16", "--patch-size=2", "--max-frames=4", "--max-word-letters=2")


def test_a_small_measurement_from_end_to_end(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(data_pipeline, "QUICK", SMALL)
    path = tmp_path / "figures.json"
    assert data_pipeline.main(["--quick", "--alternations=1", f"--json={path}", *OPTIONS]) == 0
    printed = capsys.readouterr().out
    figures = json.loads(path.read_text())
    assert printed.startswith(figures["machine"] + "\n\nMedian")
    rates = figures["clips_per_second"]
    assert len(rates) == 4
    for way, (rate,) in rates.items():
        assert f"| {way} | {rate:.1f} (" in printed
        assert f"| {rate / rates[BARE][0]:.2f} (" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--json=/nowhere/at/all.json"], "a folder that exists"),
        (["--batch-size=0"], "BATCH_SIZE"),
        (["--alternation=3"], "alternation"),  # no guessing of what was meant
    ],
)
def test_options_that_cannot_work_are_an_error_and_no_traceback(capsys, arguments, message):
    try:
        code: object = data_pipeline.main(["--quick", *arguments])
    except SystemExit as error:
        code = error.code
    assert code in (1, 2)
    assert message in capsys.readouterr().err


def test_no_alternation_at_all_is_an_error(capsys):
    with pytest.raises(SystemExit) as raised:
        data_pipeline.main(["--alternations=0"])
    assert raised.value.code == 2
    assert "--alternations" in capsys.readouterr().err


def test_the_files_are_different_clips_of_the_size_asked_for(tmp_path):
    folder = write_clips(tmp_path / "clips", [9, 12], 64, 48)
    paths = [folder / f"clip_{number:03}.mp4" for number in range(2)]
    for path, frames in zip(paths, (9, 12), strict=True):
        assert decode_all_frames(path) == frames
        with av.open(str(path)) as container:
            assert (container.streams.video[0].width, container.streams.video[0].height) == (64, 48)
            assert container.streams.video[0].codec_context.name == "h264"
        assert 3 <= len(path.with_suffix(".txt").read_text().strip()) <= 6
    first, second = (decode_video(PlainFile(path), stretched(4, 16)).pixels_THWC for path in paths)
    assert (first != second).any()


def test_rates_are_measured_on_one_core_and_the_process_gets_its_cores_and_threads_back(tmp_path, monkeypatch):
    cores = []

    def decode(path):
        cores.append((len(os.sched_getaffinity(0)), torch.get_num_threads()))

    monkeypatch.setattr(data_pipeline, "decode_all_frames", decode)
    before = os.sched_getaffinity(0), torch.get_num_threads()
    clips = write_clips(tmp_path / "clips", [4, 4], 32, 24)
    config = load_settings(Config, PRESETS, list(OPTIONS), program="main.py").config
    data_pipeline.measure_clip_rates(clips, 1, config, tmp_path / "rates")
    assert cores == [(1, 1)] * 2
    assert (os.sched_getaffinity(0), torch.get_num_threads()) == before


def test_the_report_compares_with_bare_pyav():
    lines = report({BARE: [100.0], "films": [123.4]})
    assert "| films | 123.4 (123.4 to 123.4) | 1.23 (1.23 to 1.23) |" in lines


def test_a_small_list_of_mixed_lengths_from_end_to_end(tmp_path, capsys, monkeypatch):
    """Clips of about one and two seconds at 4 frames a second, of which one or two are a step of at most 8 frames."""
    monkeypatch.setattr(data_pipeline, "SECONDS", (1, 2))
    monkeypatch.setattr(data_pipeline, "LIST_SIZE", (32, 24))
    monkeypatch.setattr(data_pipeline, "run_process", lambda command: train(command[1:]))
    path = tmp_path / "figures.json"
    sizes = ("--frames-per-second=4", "--max-frames=8", "--batch-size=1", "--num-workers=0")
    code = data_pipeline.main(["--lengths", "--alternations=1", f"--json={path}", *SMALL_NETWORK, *sizes])
    printed = capsys.readouterr().out
    figures = json.loads(path.read_text())
    assert code == 0
    assert sorted((step["frames"], step["clips"]) for step in figures["steps"]) == [(4, 2), (8, 1)]
    assert all(0 <= step["waited"] < step["seconds"] for step in figures["steps"])
    assert figures["frames"] == 2 * 4 + 8
    assert figures["stretched"] == pytest.approx(4 / 25 * (4 + 3 + 2))  # files of 21, 22 and 48 frames, 25 a second
    assert "| 8 | 1 | 8 | 1 | " in printed


def test_steps_are_read_from_the_points_of_a_run():
    rates = {
        "Step_Time_Seconds": 0.5,
        "Data_Wait_Percent": 10.0,
        "Samples_Per_Second": 80.0,
        "Frames_Per_Second": 960.0,
    }
    points = {f"05_Performance/{name}": [value] for name, value in rates.items()}
    assert steps_of(points) == [Step(frames=12, clips=40, seconds=0.5, waited=0.05)]


def test_the_report_of_lengths_compares_their_medians():
    steps = [Step(12, 2, 1.0, 0.1), Step(12, 2, 3.0, 0.0), Step(12, 2, 2.0, 0.0), Step(20, 1, 2.5, 0.07)]
    assert report_lengths(LengthsCost(frames=100, stretched=3.0, steps=steps)) == [
        "padding: none; stretched: 3.00 % of 100 frames",
        "waiting for data: 2.00 % of 8 s",
        "the longest median step above the shortest: 25.0 % in time, 20.0 % in frames",
        "",
        "| frames of a clip | clips | frames of a step | steps | step |",
        "|---|---|---|---|---|",
        "| 12 | 2 | 24 | 3 | 2.00 s (1.00 to 3.00) |",
        "| 20 | 1 | 20 | 1 | 2.50 s (2.50 to 2.50) |",
        "",
    ]
