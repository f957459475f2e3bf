"""Videos on their way through the writer: the worker thread, its bounds and its faults."""

import io
import threading

import numpy
import pytest
from PIL import Image

from logging_system.files import encoding_worker
from logging_system.files import writer as writer_module
from logging_system.files.encoding_worker import EncodingWorker
from logging_system.files.writer import Writer


@pytest.fixture
def clip():
    video = numpy.zeros((4, 8, 8, 3), dtype=numpy.uint8)
    for number in range(4):
        video[number, :, number] = [255, 128, 0]
    return video


def test_video_becomes_a_looping_gif_and_an_mp4(tmp_path, accumulate, clip):
    writer = Writer(tmp_path)
    writer.video("12/clip", clip, 3, 8.0, file_name="step_3_A", scale=2, description="A clip.")
    clip[:] = 0  # the writer has its own copy
    writer.close()
    run = accumulate(tmp_path)
    (event,) = run.Images("12/clip")
    assert (event.step, event.width, event.height) == (3, 16, 16)
    assert run.SummaryMetadata("12/clip").summary_description == "A clip."
    with Image.open(io.BytesIO(event.encoded_image_string)) as gif:
        assert (gif.format, gif.n_frames, gif.info["loop"]) == ("GIF", 4, 0)
        assert gif.convert("RGB").getpixel((1, 0)) == (255, 128, 0)
    assert [path.name for path in (tmp_path / "samples").iterdir()] == ["step_3_A.mp4"]
    assert (tmp_path / "samples" / "step_3_A.mp4").stat().st_size > 200
    assert (writer.dropped_videos, writer.failures) == (0, {})


def test_videos_of_a_tag_stay_in_order(tmp_path, accumulate, clip):
    writer = Writer(tmp_path)
    for step in range(10):
        writer.video("12/clip", clip, step, 8.0)
    writer.close()
    assert [event.step for event in accumulate(tmp_path).Images("12/clip")] == list(range(10))


def test_encoder_error_is_tried_again_counted_and_reported_once(tmp_path, accumulate, clip, monkeypatch):
    messages = []
    working = writer_module.encode_gif
    calls = []

    def failing_at_first(*arguments):
        calls.append(1)
        if len(calls) in (1, 3, 4):  # the first video at its first attempt, the second at both
            raise RuntimeError("broken encoder")
        return working(*arguments)

    monkeypatch.setattr(writer_module, "encode_gif", failing_at_first)
    writer = Writer(tmp_path, report=messages.append)
    for step in (1, 2, 3):
        writer.video("12/clip", clip, step, 8.0)
    writer.close()
    assert [event.step for event in accumulate(tmp_path).Images("12/clip")] == [1, 3]
    assert writer.failures == {"video": 3}
    assert len(messages) == 1
    assert "broken encoder" in messages[0]


def test_clip_whose_mp4_cannot_be_encoded_is_shown_once(tmp_path, accumulate, clip, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("no such codec")

    monkeypatch.setattr(writer_module, "encode_mp4", fail)
    writer = Writer(tmp_path, report=[].append)
    for step in (1, 2):
        writer.video("12/clip", clip, step, 8.0, file_name=f"step_{step}")
    writer.close()
    assert [event.step for event in accumulate(tmp_path).Images("12/clip")] == [1, 2]
    assert writer.failures == {"video": 4}  # two videos, two attempts each


def test_mp4_that_cannot_be_written_is_written_at_a_later_flush(tmp_path, clip):
    messages = []
    (tmp_path / "samples").write_text("in the way")
    writer = Writer(tmp_path, report=messages.append)
    writer.video("12/clip", clip, 1, 8.0, file_name="a")
    assert writer._worker.drain(lambda: 100)
    assert writer.failures == {"sample_file": 1}
    writer.flush()
    assert writer.failures == {"sample_file": 2}
    (tmp_path / "samples").unlink()
    writer.flush()
    assert (tmp_path / "samples" / "a.mp4").exists()
    assert len(messages) == 1
    writer.close()


def test_videos_beyond_the_bound_are_dropped_and_counted(tmp_path, clip, monkeypatch):
    messages = []
    release = threading.Event()
    monkeypatch.setattr(encoding_worker, "MAXIMUM_JOBS", 3)
    monkeypatch.setattr(writer_module, "encode_gif", lambda *arguments: release.wait(100) and b"GIF")
    writer = Writer(tmp_path, report=messages.append)
    for step in range(10):
        writer.video("12/clip", clip, step, 8.0)
    assert writer.dropped_videos in (6, 7)  # three wait, and perhaps one is being encoded
    assert len(messages) == 1
    release.set()
    writer.close()


def test_queue_is_bounded_in_bytes(monkeypatch):
    monkeypatch.setattr(encoding_worker, "MAXIMUM_BYTES", 100)
    release, started = threading.Event(), threading.Event()
    worker = EncodingWorker(lambda error: None)
    assert worker.submit(lambda: started.set() or release.wait(100), 500)  # alone, any size is taken
    assert started.wait(100)
    assert worker.submit(lambda: None, 60)
    assert not worker.submit(lambda: None, 60)
    assert worker.submit(lambda: None, 40)
    release.set()
    assert worker.close(lambda: 100)
    assert not worker.submit(lambda: None, 1)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_thread_that_dies_is_replaced():
    done = []

    def kill_thread():
        raise SystemExit

    worker = EncodingWorker(lambda error: None)
    for job in (kill_thread, lambda: done.append(1), kill_thread, lambda: done.append(2)):
        assert worker.submit(job, 1)
    assert worker.close(lambda: 100)
    assert done == [1, 2]


def test_stuck_encoder_does_not_hold_up_the_end():
    release = threading.Event()
    worker = EncodingWorker(lambda error: None)
    worker.submit(lambda: release.wait(100), 1)
    assert not worker.close(lambda: 0.2)
    release.set()
