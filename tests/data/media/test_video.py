from fractions import Fraction
from types import SimpleNamespace

import av
import numpy
import pytest
from PIL import Image

import data.media.budget
import data.media.resample
import data.media.video
from common.video_encoding import video_frame
from data.media.files import PlainFile
from data.media.resample import fitted, uniform_indices
from data.media.video import decode_video
from data.rows import WHOLE, TimeSpan, UnusableClip
from tests.grids import mostly_slow
from tests.shapes import stretched


def decode_clip(path, num_frames, image_size, span=WHOLE):
    return decode_video(PlainFile(path), stretched(num_frames, image_size), span).pixels_THWC


def test_indices_are_uniform_over_the_whole_duration():
    times = [frame / 10 for frame in range(10)]
    assert uniform_indices(times, 1.0, 5) == [1, 3, 5, 7, 9]
    assert uniform_indices(times, 1.0, 20) == [frame // 2 for frame in range(20)]
    assert uniform_indices([3.0, 3.9], 1.0, 4) == [0, 0, 0, 0]  # the first frame is on the screen nearly all the time
    assert uniform_indices([3.0, 3.2], 1.0, 4) == [0, 1, 1, 1]


def test_the_centre_square_is_kept():
    frame = numpy.zeros((20, 40, 3), numpy.uint8)
    frame[:, 10:30] = 200
    assert (fitted(frame, stretched(1, 8)) == 200).all()
    assert (fitted(frame.transpose(1, 0, 2), stretched(1, 8)) == 200).all()


@pytest.mark.parametrize(("height", "width"), [(40, 40), (20, 60), (90, 30)])
def test_a_picture_gets_the_height_and_width_that_are_asked_for_upright(height, width):
    """Top left is red, top right green, bottom left blue, whatever is cut off or added."""
    frame = numpy.zeros((height, width, 3), numpy.uint8)
    frame[: height // 2, : width // 2, 0], frame[: height // 2, width // 2 :, 1] = 200, 200
    frame[height // 2 :, : width // 2, 2] = 200
    cut = fitted(frame, stretched(1, (12, 8)))
    assert cut.shape == (12, 8, 3)
    assert (cut[:5, :3] == (200, 0, 0)).all()
    assert (cut[:5, 5:] == (0, 200, 0)).all()
    assert (cut[7:, :3] == (0, 0, 200)).all()
    padded = fitted(frame, stretched(1, (12, 8), "pad"))
    rows, columns = (numpy.flatnonzero(padded.any((axis, 2))) for axis in (1, 0))
    scale = min(12 / height, 8 / width)
    assert len(rows) == pytest.approx(height * scale, abs=1)
    assert len(columns) == pytest.approx(width * scale, abs=1)
    assert abs(rows[0] + rows[-1] - 11) <= 1
    assert abs(columns[0] + columns[-1] - 7) <= 1
    assert padded[rows[0], columns[0]].argmax() == 0
    assert padded[rows[0], columns[-1]].argmax() == 1
    assert padded[rows[-1], columns[0]].argmax() == 2


def test_a_picture_that_is_padded_keeps_everything_and_its_shape():
    frame = numpy.full((20, 40, 3), 200, numpy.uint8)
    padded = fitted(frame, stretched(1, 16, "pad"))
    assert (padded[4:12] == 200).all()
    assert (padded[:4] == 0).all()
    assert (padded[12:] == 0).all()
    assert (fitted(frame.transpose(1, 0, 2), stretched(1, 16, "pad"))[:, 4:12] == 200).all()


def test_pixels_that_are_not_square_are_stretched_before_the_picture_is_cut_or_padded():
    frame = numpy.zeros((20, 20, 3), numpy.uint8)
    frame[:, 5:15] = 200  # shown 40 wide and 20 high, this is the centre square
    assert (fitted(frame, stretched(1, 8), pixel_aspect=2.0) == 200).all()
    padded = fitted(frame, stretched(1, 16, "pad"), pixel_aspect=2.0)
    assert (padded[:4] == 0).all()
    assert (padded[5:11, 5:11] == 200).all()


def test_resizing_is_antialiased():
    stripes = numpy.zeros((64, 64, 3), numpy.uint8)
    stripes[::2] = 200
    assert abs(fitted(stripes, stretched(1, 16))[4:12].astype(int) - 100).max() <= 15


@pytest.mark.parametrize("extension", [".gif", ".mp4", ".webm", ".mov", ".avi", ".mkv"])
def test_every_format_is_decoded(tmp_path, write_video, brightening_video, extension):
    path = tmp_path / f"clip{extension}"
    write_video(path, brightening_video)
    clip = decode_clip(path, 5, 16)
    assert clip.shape == (5, 16, 16, 3)
    assert clip.dtype == numpy.uint8
    assert clip.mean((1, 2, 3)) == pytest.approx([25, 75, 125, 175, 225], abs=6)


@pytest.mark.parametrize("name", ["a.gif", "a.mp4"])
def test_a_part_that_goes_on_after_its_file_has_ended_is_refused(tmp_path, write_video, brightening_video, name):
    write_video(tmp_path / name, brightening_video)  # one second
    for end in (0.9, 1.0, 1.15):
        assert decode_clip(tmp_path / name, 4, 16, TimeSpan(0.5, end)).shape == (4, 16, 16, 3)
    with pytest.raises(UnusableClip, match=r"ends after 1 seconds, before its part from 0\.5 to 1\.5 does"):
        decode_clip(tmp_path / name, 4, 16, TimeSpan(0.5, 1.5))


def test_gif_frames_count_by_their_duration(tmp_path):
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
        with pytest.raises(UnusableClip):
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
    ids=["empty", "text", "playlist", "GIF", "MP4", "GIF as MP4"],
)
def test_what_is_no_video_is_refused_with_the_reason(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnusableClip, match=reason):
        decode_clip(tmp_path / name, 4, 16)


@pytest.mark.parametrize("name", ["a.gif", "a.mp4"])
@pytest.mark.parametrize(
    ("budget", "value", "reason"),
    [
        ("MOST_BYTES", 100, "larger than"),
        ("MOST_PIXELS", 1000, "frames of 48 x 32 pixels"),
        ("MOST_FRAMES", 5, "more than 5 frames"),
        ("MOST_PIXELS_IN_ALL", 10_000, "too long"),
    ],
)
def test_budgets_stop_large_files(tmp_path, write_video, brightening_video, monkeypatch, name, budget, value, reason):
    write_video(tmp_path / name, brightening_video)
    for module in (data.media.budget, data.media.files, data.media.gif, data.media.video):
        if hasattr(module, budget):
            monkeypatch.setattr(module, budget, value)
    with pytest.raises(UnusableClip, match=reason):
        decode_clip(tmp_path / name, 4, 16)


def two_passes(path, num_frames, image_size):
    """Decode everything, then choose: the plain way, with no guess at which frames will be wanted."""
    if path.suffix == ".gif":
        times, images, time = [], [], 0.0
        with Image.open(path) as image:
            for number in range(image.n_frames):
                image.seek(number)
                times.append(time)
                images.append(numpy.array(image.convert("RGB")))
                duration = image.info.get("duration", 0) / 1000 or 0.1
                time += duration
    else:
        with av.open(str(path)) as container:
            frames = list(container.decode(video=0))
            duration = 1 / float(container.streams.video[0].average_rate)
        times = sorted(frame.time for frame in frames)
        images = [frame.to_ndarray(format="rgb24") for frame in frames]
    wanted = uniform_indices(times, times[-1] - times[0] + duration, num_frames)
    return numpy.stack([fitted(images[index], stretched(1, image_size)) for index in wanted])


@pytest.fixture
def moving_video():
    """Forty frames of 50 x 66: smooth noise that drifts, so that no two frames and no two rows are alike."""
    coarse = numpy.random.default_rng(0).integers(0, 255, (12, 60, 3), dtype=numpy.uint8)
    picture = numpy.asarray(Image.fromarray(coarse).resize((300, 50), Image.Resampling.BILINEAR))
    return numpy.stack([picture[:, 3 * frame : 3 * frame + 66] for frame in range(40)])


@pytest.fixture
def passes(monkeypatch):
    """A list that grows by one at each pass through a file's frames."""
    made = []
    decode = data.media.resample._one_pass

    def counted(*arguments, **named):
        made.append(named["kept"])
        return decode(*arguments, **named)

    monkeypatch.setattr(data.media.resample, "_one_pass", counted)
    return made


@pytest.mark.parametrize("extension", [".gif", ".mp4", ".webm", ".mov", ".avi", ".mkv"])
@pytest.mark.parametrize("num_frames", mostly_slow([16, 4, 90]))
def test_frames_are_the_same_as_in_two_passes_and_take_one(
    tmp_path, write_video, moving_video, passes, extension, num_frames
):
    path = tmp_path / f"clip{extension}"
    write_video(path, moving_video)
    assert (decode_clip(path, num_frames, 16) == two_passes(path, num_frames, 16)).all()
    assert len(passes) == 1


def test_frames_of_uneven_durations_are_the_same_as_in_two_passes(tmp_path, moving_video, passes):
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 50, 66, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, image in enumerate(moving_video):
            frame = video_frame(image, "yuv420p")
            frame.pts, frame.time_base = 500 + 3 * number**2, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    even = uniform_indices([number / 25 for number in range(40)], 1.6, 9)
    assert (decode_clip(tmp_path / "a.mkv", 9, 16) == two_passes(tmp_path / "a.mkv", 9, 16)).all()
    assert len(passes) == 1
    assert list(passes[0].shown) != even


def test_gif_frames_of_uneven_durations_are_the_same_as_in_two_passes(tmp_path, moving_video, passes):
    images = [Image.fromarray(frame) for frame in moving_video]
    durations = [0] * 5 + [10] * 10 + [20] * 10 + [100] * 14 + [700]
    images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:], duration=durations, loop=0)
    assert (decode_clip(tmp_path / "a.gif", 10, 16) == two_passes(tmp_path / "a.gif", 10, 16)).all()
    assert len(passes) == 1


@pytest.mark.parametrize("name", ["a.gif", "a.mp4"])
@pytest.mark.parametrize("times", [([], 0.0), ([0.0], 0.1), ([0.0, 7.0], 7.1), ([i / 1000 for i in range(900)], 9.0)])
def test_wrong_times_of_the_container_change_nothing(
    tmp_path, write_video, moving_video, monkeypatch, passes, name, times
):
    write_video(tmp_path / name, moving_video)
    monkeypatch.setattr(data.media.video, "_packet_times", lambda file, family, span: times)
    monkeypatch.setattr(data.media.video, "_gif_times", lambda file, span: times)
    assert (decode_clip(tmp_path / name, 10, 16) == two_passes(tmp_path / name, 10, 16)).all()
    assert len(passes) == 2


def test_what_ffmpeg_cannot_open_may_still_be_a_gif(tmp_path, write_video, moving_video, monkeypatch):
    def refuse(*arguments, **named):
        raise av.InvalidDataError(1, "refused")

    write_video(tmp_path / "a.gif", moving_video)
    monkeypatch.setattr(av, "open", refuse)
    assert (decode_clip(tmp_path / "a.gif", 10, 16) == two_passes(tmp_path / "a.gif", 10, 16)).all()


def test_a_gif_that_is_too_large_never_reaches_ffmpeg(tmp_path, write_video, brightening_video, monkeypatch):
    write_video(tmp_path / "a.gif", brightening_video)
    monkeypatch.setattr(data.media.budget, "MOST_PIXELS", 1000)
    monkeypatch.setattr(av, "open", lambda *arguments, **named: pytest.fail("it was opened"))
    with pytest.raises(UnusableClip, match="frames of 48 x 32 pixels"):
        decode_clip(tmp_path / "a.gif", 4, 16)


class EndlessContainer:
    """A file whose header names one megabyte again and again."""

    streams = SimpleNamespace(video=(SimpleNamespace(average_rate=25, start_time=None, time_base=None),))
    start_time = None

    def __init__(self):
        self.packets = 0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def demux(self, stream):
        while True:
            self.packets += 1
            yield SimpleNamespace(size=1 << 20, is_discard=True, pts=0, time_base=Fraction(1, 25), duration=1)


def test_guessing_the_times_has_a_budget_of_bytes(tmp_path, monkeypatch):
    container = EndlessContainer()
    monkeypatch.setattr(av, "open", lambda *arguments, **named: container)
    monkeypatch.setattr(data.media.video, "MOST_BYTES", 5 << 20)
    assert data.media.video._packet_times(PlainFile(tmp_path / "a.mp4"), "mov", WHOLE) == ([], 0.0)
    assert container.packets == 6


def test_more_packets_than_frames_can_be_are_refused_before_decoding(tmp_path, monkeypatch):
    container = EndlessContainer()
    monkeypatch.setattr(av, "open", lambda *arguments, **named: container)
    monkeypatch.setattr(data.media.video, "MOST_FRAMES", 7)
    with pytest.raises(UnusableClip, match="more than 7 frames"):
        data.media.video._packet_times(PlainFile(tmp_path / "a.mp4"), "mov", WHOLE)
    assert container.packets == 8
