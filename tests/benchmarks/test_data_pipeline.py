"""The data benchmark runs, and what it reports follows from what it measured."""

import json
import os
import statistics

import av
import pytest
import torch

from benchmarks import data_pipeline
from benchmarks.data_pipeline import BARE, DataWait, Extent, decode_all_frames, measure_waits, report, write_clips
from common.settings import load_settings
from config import PRESETS, Config
from data.media.decode import decode_media
from data.media.files import PlainFile
from data.media.resample import ClipShape
from data.media.video import decode_video

SMALL = Extent(
    clips=4,
    size=(32, 24, 6),
    steps_per_block=2,
    options=(*data_pipeline.QUICK.options, "--num-workers=0", "--device=cpu", "--max-word-letters=2"),
)


@pytest.mark.slow
def test_a_small_measurement_from_end_to_end(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(data_pipeline, "QUICK", SMALL)
    path = tmp_path / "figures.json"
    assert data_pipeline.main(["--quick", "--alternations=1", f"--json={path}"]) == 0
    printed = capsys.readouterr().out
    figures = json.loads(path.read_text())
    assert printed.startswith(figures["machine"] + "\n\nMedian")
    assert "Stopped at step" not in printed  # the run's own lines are no part of the tables
    rates = figures["clips_per_second"]
    assert len(rates) == 5
    for way, (rate,) in rates.items():
        assert f"| {way} | {rate:.1f} (" in printed
        assert f"| {rate / rates[BARE][0]:.2f} (" in printed
    waits = {(wait["data"], wait["cache"]): wait for wait in figures["waits"]}
    assert set(waits) == {
        (data, cache) for data in ("finger-spelling", "folder of MP4") for cache in ("cold", "warm")
    } | {("folder of MP4", "emptied")}
    for wait in waits.values():
        assert 0 < statistics.median(wait["wait_percent"]) < 100
        assert min(wait["step_seconds"]) > 0
        assert f"| {wait['data']} | {wait['cache']} |" in printed


@pytest.mark.slow
def test_opening_a_folder_decodes_every_video_so_that_its_steps_find_the_cache_warm(tmp_path, monkeypatch):
    decoded = []

    def decode(root, media, shape):
        decoded.append(media.path)
        return decode_media(root, media, shape)

    monkeypatch.setattr("data.inspection.decode_media", decode)
    root = write_clips(tmp_path / "clips", 4, (32, 24, 6))
    options = [*SMALL.options, f"--data-root={root}", f"--cache-dir={tmp_path / 'cache'}"]
    for cache, expected in (("cold", 4), ("warm", 0)):
        decoded.clear()
        measure_waits(tmp_path / cache, 2, 1, options)
        assert len(decoded) == expected  # over the whole run: opening and steps together


def test_the_block_that_warms_up_and_the_last_step_do_not_count(tmp_path, monkeypatch):
    """Blocks of 2 steps end at steps 2, 4 and 6; step 7 makes videos."""

    def train(arguments):
        assert "--max-steps=7" in arguments
        (tmp_path / "run").mkdir()
        points = [
            {"tag": f"05_Performance/{tag}", "step": step, "value": step * factor}
            for step in (2, 4, 6, 7)
            for tag, factor in (("Step_Time_Seconds", 1.0), ("Data_Wait_Percent", 10.0))
        ]
        (tmp_path / "run" / "metrics.jsonl").write_text("\n".join(map(json.dumps, points)))
        return 0

    monkeypatch.setattr(data_pipeline, "train", train)
    assert measure_waits(tmp_path, 2, 2, []) == ([4.0, 6.0], [40.0, 60.0])


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
    folder = write_clips(tmp_path / "clips", 2, (64, 48, 9))
    paths = [folder / f"clip_{number:03}.mp4" for number in range(2)]
    for path in paths:
        assert decode_all_frames(path) == 9
        with av.open(str(path)) as container:
            assert (container.streams.video[0].width, container.streams.video[0].height) == (64, 48)
            assert container.streams.video[0].codec_context.name == "h264"
        assert 3 <= len(path.with_suffix(".txt").read_text().strip()) <= 6
    first, second = (decode_video(PlainFile(path), ClipShape(4, 16)).pixels_THWC for path in paths)
    assert (first != second).any()


def test_rates_are_measured_on_one_core_and_the_process_gets_its_cores_and_threads_back(tmp_path, monkeypatch):
    cores = []

    def decode(path):
        cores.append((len(os.sched_getaffinity(0)), torch.get_num_threads()))

    monkeypatch.setattr(data_pipeline, "decode_all_frames", decode)
    before = os.sched_getaffinity(0), torch.get_num_threads()
    clips = write_clips(tmp_path / "clips", 2, (32, 24, 4))
    config = load_settings(Config, PRESETS, list(SMALL.options), program="main.py").config
    data_pipeline.measure_clip_rates(clips, 1, config, tmp_path / "rates")
    assert cores == [(1, 1)] * 2
    assert (os.sched_getaffinity(0), torch.get_num_threads()) == before


def test_the_report_names_the_worst_block_with_a_warm_cache():
    waits = [DataWait("films", "warm", [0.4], [0.1, percent]) for percent in (0.2, 1.99)]
    waits.append(DataWait("films", "cold", [0.4], [5.0]))
    lines = report({BARE: [100.0], "films": [123.4]}, waits)
    assert "| films | 123.4 (123.4 to 123.4) | 1.23 (1.23 to 1.23) |" in lines
    assert "| films | cold | 400 ms (400 to 400) | 5.00 % (5.00 to 5.00) |" in lines
    assert lines[-1].endswith("at most 1.99 % of the time of a block.")
