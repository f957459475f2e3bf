"""The data benchmark runs, and what it reports follows from what it measured."""

import json
import os

import av
import numpy
import pytest
import torch
from PIL import Image

from benchmarks import data_pipeline
from benchmarks.clip_files import ClipSize, write_clip_folders
from benchmarks.clip_rates import FLOOR, ClipRate, bare_pyav, find_videos, one_core
from benchmarks.data_pipeline import Extent, Figures, report
from benchmarks.data_wait import DataWait, RunPlan, _Clock, _summary, measure_data_wait
from benchmarks.loader_rates import UncachedClips
from benchmarks.spread import spread_of
from common.errors import UserError
from config import Config
from data.media.decode import decode_media
from data.media.files import PlainFile
from data.media.resample import ClipShape
from data.media.video import decode_video


def decode_clip(path, num_frames, image_size):
    return decode_video(PlainFile(path), ClipShape(num_frames, image_size)).pixels_THWC


SMALL = Extent(
    clips=4,
    clip_size=ClipSize(32, 24, 6),
    spelled_clips=2,
    loader_batches=1,
    steps_per_block=2,
    options=(*data_pipeline.QUICK.options, "--num-workers=0", "--device=cpu", "--max-word-letters=2"),
)


def test_a_small_measurement_from_end_to_end(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(data_pipeline, "QUICK", SMALL)
    path = tmp_path / "figures.json"
    assert data_pipeline.main(["--quick", "--alternations=1", f"--json={path}"]) == 0
    printed = capsys.readouterr().out
    figures = json.loads(path.read_text())
    assert printed.startswith(figures["machine"] + "\n\nMedian")
    assert "Stopped at step" not in printed  # the run's own lines are no part of the tables
    rates = {rate["source"]: rate for rate in figures["clips"]}
    assert len(rates) == 10
    for kind in ("MP4", "GIF"):
        floor = rates[f"{kind}: {FLOOR}"]["clips_per_second"]["median"]
        for source, rate in rates.items():
            if source.startswith(kind) or (kind == "MP4" and source.startswith("finger")):
                assert rate["to_bare_pyav"]["median"] == pytest.approx(rate["clips_per_second"]["median"] / floor)
    loader = {(rate["source"], rate["num_workers"]): rate for rate in figures["loader"]}
    assert len(loader) == 9
    for (source, _), rate in loader.items():
        alone = loader[source, 0]["batches_per_second"]["median"]
        assert rate["to_no_workers"]["median"] == pytest.approx(rate["batches_per_second"]["median"] / alone)
    waits = {(wait["data"], wait["cache"]): wait for wait in figures["waits"]}
    assert set(waits) == {
        (data, cache) for data in ("finger-spelling", "folder of MP4") for cache in ("cold", "warm")
    } | {("folder of MP4", "emptied")}
    for wait in waits.values():
        assert 0 < wait["clocked_percent"]["median"] < 100
        assert 0 < wait["logged_percent"]["median"] < 100
        assert f"| {wait['data']} | {wait['cache']} | {wait['opening_seconds']:.2f} s |" in printed
        assert f"| {1000 * wait['longest_wait_seconds']:.1f} ms |" in printed
    assert "Median (smallest to largest) of 1 alternations" in printed


def test_opening_a_folder_decodes_every_video_so_that_its_steps_find_the_cache_warm(tmp_path, monkeypatch):
    decoded = []

    def decode(root, media, shape):
        decoded.append(media.path)
        return decode_media(root, media, shape)

    monkeypatch.setattr("data.inspection.decode_media", decode)
    monkeypatch.setattr("data.inspection.decode_media", decode)
    folders = write_clip_folders(tmp_path, 4, ClipSize(32, 24, 6))
    options = [*SMALL.options, f"--data-root={folders['MP4']}"]
    for cache, expected in (("cold", 4), ("warm", 0)):
        decoded.clear()
        measure_data_wait("MP4", cache, RunPlan(2, 1), tmp_path / cache, options, cache_folder=tmp_path / "cache")
        assert len(decoded) == expected  # over the whole run: opening and steps together


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--clips=/nowhere/at/all"], "does not exist"),
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


def test_the_report_is_printed_before_the_figures_are_written(full_disk, tmp_path, capsys, monkeypatch):
    wait = DataWait("films", "warm", 0.5, spread_of([0.4]), spread_of([0.1]), spread_of([0.1]), 0.002)
    monkeypatch.setattr(data_pipeline, "measure", lambda *arguments: Figures("a machine", (), (), (wait,)))
    assert data_pipeline.main([f"--json={tmp_path / 'figures.json'}"]) == 1
    printed = capsys.readouterr()
    assert "| films | warm | 0.50 s |" in printed.out
    assert printed.err == "error: the disk is full\n"


def test_no_alternation_at_all_is_an_error(capsys):
    with pytest.raises(SystemExit) as raised:
        data_pipeline.main(["--alternations=0"])
    assert raised.value.code == 2
    assert "--alternations" in capsys.readouterr().err


def test_the_files_show_the_same_clips_in_both_kinds(tmp_path):
    folders = write_clip_folders(tmp_path, 2, ClipSize(64, 48, 9))
    for number in range(2):
        mp4, gif = folders["MP4"] / f"clip_{number:03}.mp4", folders["GIF"] / f"clip_{number:03}.gif"
        assert bare_pyav(mp4) == bare_pyav(gif) == 9
        with av.open(str(mp4)) as container:
            assert (container.streams.video[0].width, container.streams.video[0].height) == (64, 48)
            assert container.streams.video[0].codec_context.name == "h264"
        with Image.open(gif) as image:
            assert image.size == (64, 48)
        difference = decode_clip(mp4, 4, 16).astype(float) - decode_clip(gif, 4, 16)
        assert numpy.abs(difference).mean() < 8
        assert mp4.with_suffix(".txt").read_text() == gif.with_suffix(".txt").read_text()
    first, second = (decode_clip(folders["MP4"] / f"clip_{number:03}.mp4", 4, 16) for number in range(2))
    assert (first != second).any()


def test_a_folder_without_a_usable_video_is_refused(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"hello, I am text")
    (tmp_path / "a.txt").write_text("A")
    with pytest.raises(UserError, match=r"a\.mp4 is not a video"):
        find_videos("MP4", tmp_path, Config(), tmp_path / "cache")


def test_a_video_that_vanishes_is_an_error_for_people(tmp_path):
    folders = write_clip_folders(tmp_path, 2, ClipSize(32, 24, 4))
    config = Config()
    clips = UncachedClips(find_videos("GIF", folders["GIF"], config, tmp_path / "cache"), ClipShape(4, 16))
    assert len(clips) == 2
    assert (clips.load(clips.row(5, 1)) == decode_clip(folders["GIF"] / "clip_001.gif", 4, 16)).all()
    (folders["GIF"] / "clip_001.gif").unlink()
    with pytest.raises(UserError, match="clip_001"):
        clips.load(clips.row(0, 1))


def test_the_process_gets_its_cores_and_threads_back():
    before = os.sched_getaffinity(0), torch.get_num_threads()
    with one_core():
        assert len(os.sched_getaffinity(0)) == torch.get_num_threads() == 1
    assert (os.sched_getaffinity(0), torch.get_num_threads()) == before


def test_waits_are_summed_by_block_without_the_first_and_without_the_last_step():
    # Steps of 1 s. Batch n is waited for n / 100 s: 7 steps in all, blocks of 2, of which the first warms up.
    clock = _Clock(3.5, [float(step) for step in range(7)], [step + (step + 1) / 100 for step in range(7)])
    plan = RunPlan(steps_per_block=2, blocks=2)
    assert plan.steps == 7
    wait = _summary("films", "cold", plan, clock, [90.0, 11.0, 13.0, 70.0])
    assert wait.opening_seconds == 3.5
    assert (wait.clocked_percent.smallest, wait.clocked_percent.largest) == pytest.approx((3.5, 5.5))
    assert (wait.logged_percent.smallest, wait.logged_percent.largest) == (11.0, 13.0)
    assert wait.step_seconds.median == pytest.approx(1.0)
    assert wait.longest_wait_seconds == pytest.approx(0.06)


@pytest.mark.parametrize(("worst", "verdict"), [(1.99, "kept"), (2.01, "missed")])
def test_the_verdict_follows_the_worst_block(worst, verdict):
    waits = [
        DataWait("films", "warm", 0.5, spread_of([0.4]), spread_of([0.1]), spread_of([0.1, largest]), 0.002)
        for largest in (0.2, worst)
    ]
    rate = ClipRate("films", spread_of([123.4, 130.0]), spread_of([0.5, 0.7]))
    lines = report(Figures("a machine", (rate,), (), tuple(waits)), 2)
    assert lines[0] == "a machine"
    assert lines[2].startswith("Median (smallest to largest) of 2 alternations")
    assert "| training on | cache when opened | opened in | step |" in "\n".join(lines)
    assert "| films | 127 (123 to 130) | 0.60 (0.50 to 0.70) |" in lines
    assert lines[-1].endswith(f"{verdict} (worst block {worst:.2f} %).")
