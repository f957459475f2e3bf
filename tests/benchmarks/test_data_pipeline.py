"""The data benchmark runs, and what it reports follows from what it measured."""

import json
import os

import av
import pytest
import torch

from benchmarks import data_pipeline
from benchmarks.data_pipeline import BARE, decode_all_frames, report, write_clips
from common.settings import load_settings
from config import PRESETS, Config
from data.media.files import PlainFile
from data.media.video import decode_video
from tests.shapes import stretched

SMALL = (4, 32, 24, 6)
OPTIONS = ("--image-size=16", "--max-frames=4", "--max-word-letters=2")


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
    folder = write_clips(tmp_path / "clips", 2, 64, 48, 9)
    paths = [folder / f"clip_{number:03}.mp4" for number in range(2)]
    for path in paths:
        assert decode_all_frames(path) == 9
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
    clips = write_clips(tmp_path / "clips", 2, 32, 24, 4)
    config = load_settings(Config, PRESETS, list(OPTIONS), program="main.py").config
    data_pipeline.measure_clip_rates(clips, 1, config, tmp_path / "rates")
    assert cores == [(1, 1)] * 2
    assert (os.sched_getaffinity(0), torch.get_num_threads()) == before


def test_the_report_compares_with_bare_pyav():
    lines = report({BARE: [100.0], "films": [123.4]})
    assert "| films | 123.4 (123.4 to 123.4) | 1.23 (1.23 to 1.23) |" in lines
