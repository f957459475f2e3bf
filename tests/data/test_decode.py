import numpy
import pytest

import data.decode
from data.decode import UnusableVideo, decode_clip
from data.resample import square_resize, uniform_indices


def test_indices_are_uniform_over_the_whole_duration():
    times = [frame / 10 for frame in range(10)]
    assert uniform_indices(times, 1.0, 5) == [1, 3, 5, 7, 9]
    assert uniform_indices(times, 1.0, 20) == [frame // 2 for frame in range(20)]
    assert uniform_indices([3.0, 3.9], 1.0, 4) == [0, 0, 0, 0]  # the first frame is on the screen nearly all the time
    assert uniform_indices([3.0, 3.2], 1.0, 4) == [0, 1, 1, 1]


def test_the_centre_square_is_kept():
    frame = numpy.zeros((20, 40, 3), numpy.uint8)
    frame[:, 10:30] = 200
    assert (square_resize(frame, 8) == 200).all()
    assert (square_resize(frame.transpose(1, 0, 2), 8) == 200).all()


def test_resizing_is_antialiased():
    stripes = numpy.zeros((64, 64, 3), numpy.uint8)
    stripes[::2] = 200
    assert abs(square_resize(stripes, 16)[4:12].astype(int) - 100).max() <= 15


@pytest.mark.parametrize("extension", [".gif", ".mp4", ".webm", ".mov", ".avi", ".mkv"])
def test_every_format_is_decoded(tmp_path, write_video, brightening_video, extension):
    path = tmp_path / f"clip{extension}"
    write_video(path, brightening_video)
    clip = decode_clip(path, 5, 16)
    assert clip.shape == (5, 16, 16, 3)
    assert clip.dtype == numpy.uint8
    assert clip.mean((1, 2, 3)) == pytest.approx([25, 75, 125, 175, 225], abs=6)


def test_gif_frames_count_by_their_duration(tmp_path):
    from PIL import Image

    images = [Image.new("RGB", (16, 16), (shade, shade, shade)) for shade in (0, 200)]
    images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:], duration=[100, 300], loop=0)
    assert decode_clip(tmp_path / "a.gif", 4, 16).mean((1, 2, 3)).tolist() == [0, 200, 200, 200]


def test_videos_that_lie_on_their_side_are_turned(tmp_path, write_video):
    video = numpy.zeros((4, 32, 32, 3), numpy.uint8)
    video[:, :16] = 220  # bright above
    write_video(tmp_path / "a.mp4", video, rotation=90)  # counterclockwise: bright on the left
    clip = decode_clip(tmp_path / "a.mp4", 2, 16)
    assert clip[:, :, :6].mean() > 200
    assert clip[:, :, 10:].mean() < 20


def test_a_file_that_is_cut_off_is_refused(tmp_path, write_video, brightening_video):
    for name in ("a.mp4", "a.gif"):
        noise = numpy.random.default_rng(0).integers(0, 255, (10, 64, 64, 3), dtype=numpy.uint8)
        write_video(tmp_path / name, noise)
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(UnusableVideo):
            decode_clip(tmp_path / name, 4, 16)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.mp4", b"", "is empty"),
        ("a.mp4", b"hello, I am text", "not a video of a known kind"),
        ("a.mp4", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "not a video of a known kind"),
        ("a.gif", b"GIF89a" + b"\0" * 40, "GIF|decoded|frames"),
        ("a.mp4", b"\0\0\0\x18ftypmp42" + b"\0" * 200, "cannot be decoded"),
        ("a.mp4", b"GIF89a" + b"\0" * 40, "is not a .mp4 file: its content is gif"),
    ],
)
def test_what_is_no_video_is_refused_with_the_reason(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnusableVideo, match=reason):
        decode_clip(tmp_path / name, 4, 16)


@pytest.mark.parametrize("name", ["a.gif", "a.mp4"])
@pytest.mark.parametrize(
    ("budget", "value", "reason"),
    [
        ("MOST_BYTES", 100, "larger than"),
        ("MOST_PIXELS", 1000, "frames of 48 x 32 pixels"),
        ("MOST_FRAMES", 5, "too long"),
        ("MOST_PIXELS_IN_ALL", 10_000, "too long"),
    ],
)
def test_budgets_stop_large_files(tmp_path, write_video, brightening_video, monkeypatch, name, budget, value, reason):
    write_video(tmp_path / name, brightening_video)
    monkeypatch.setattr(data.decode, budget, value)
    with pytest.raises(UnusableVideo, match=reason):
        decode_clip(tmp_path / name, 4, 16)
