import io
from fractions import Fraction

import av
import numpy
import pytest
from PIL import Image

import data.media.encode
from common.video_encoding import video_frame
from data.media.decode import decode_media
from data.media.encode import encode_clip
from data.rows import WHOLE, Media, TimeSpan, UnusableClip
from tests.shapes import stretched


@pytest.fixture
def coloured_video():
    """Thirty frames of 46 x 62, a smooth picture that changes its colours and moves."""
    rows, columns = numpy.mgrid[0:46, 0:62]
    return numpy.stack(
        [
            numpy.stack([rows * 4 + 2 * t, columns * 3 + t, 255 - rows * 2 - columns - 2 * t], axis=2).clip(0, 255)
            for t in range(30)
        ]
    ).astype(numpy.uint8)


def write_frames(folder, video):
    folder.mkdir(parents=True)
    for number, frame in enumerate(video):
        Image.fromarray(frame).save(folder / f"{number:03d}.png")


def frames_of(content):
    """Return times in seconds and pixels, uint8 [T, H, W, 3], of all frames of an MP4 file."""
    with av.open(io.BytesIO(content), format="mp4") as container:
        frames = list(container.decode(video=0))
        return [frame.time for frame in frames], numpy.stack([frame.to_ndarray(format="rgb24") for frame in frames])


def difference(video, other):
    """Return the mean difference of two videos, in grey levels of 255."""
    assert video.shape == other.shape
    return numpy.abs(video.astype(int) - other.astype(int)).mean()


def test_a_folder_of_frames_becomes_the_same_video(tmp_path, coloured_video):
    video = coloured_video[:, 1:, 1:]  # of an odd size
    write_frames(tmp_path / "clip", video)
    times, pixels = frames_of(encode_clip(tmp_path, Media("frames", "clip", frames_per_second=12.5)))
    assert times == pytest.approx([number / 12.5 for number in range(30)], abs=1e-6)
    assert difference(pixels, video) < 1.0
    assert difference(pixels, video[::-1]) > 10.0  # what another clip would give


@pytest.mark.parametrize("span", [TimeSpan(0.5, 1.5), TimeSpan(1.0, None), TimeSpan(0.0, 0.75), TimeSpan(0.33, 1.49)])
@pytest.mark.parametrize("extension", ["mp4", "webm", "avi", "gif"])
def test_a_part_of_a_video_is_what_training_would_have_seen(
    tmp_path, write_video, coloured_video, monkeypatch, span, extension
):
    write_video(tmp_path / f"long.{extension}", coloured_video, rate=20)
    content = encode_clip(tmp_path, Media("video", f"long.{extension}", span))
    (tmp_path / "part.mp4").write_bytes(content)
    shape = stretched(40, 32)  # more than there are: all of them are compared
    part = decode_media(tmp_path, Media("video", "part.mp4"), shape)
    expected = decode_media(tmp_path, Media("video", f"long.{extension}", span), shape)
    assert part.facts.frames == expected.facts.frames
    assert part.facts.seconds == pytest.approx(expected.facts.seconds, abs=0.05)  # the last frame is never cut short
    if span.end is None or round(span.end * 20, 6).is_integer():
        assert part.facts.seconds == pytest.approx(expected.facts.seconds, abs=1e-4)
        assert difference(part.pixels_THWC, expected.pixels_THWC) < 1.0


def test_uneven_times_are_kept(tmp_path, coloured_video):
    times = [0, 33, 67, 100, 180, 181, 400, 433, 467, 900, 1001, 1234]  # milliseconds
    with av.open(str(tmp_path / "long.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.height, stream.width, stream.pix_fmt = 46, 62, "yuv444p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for frame, time in zip(coloured_video, times, strict=False):
            picture = video_frame(frame, "yuv444p")
            picture.pts, picture.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    content = encode_clip(tmp_path, Media("video", "long.mkv", TimeSpan(0.05, 1.2)))
    assert frames_of(content)[0] == pytest.approx([(time - 67) / 1000 for time in times[2:-1]], abs=1e-6)


@pytest.mark.parametrize("rate", [Fraction(30000, 1001), Fraction(24000, 1001), Fraction(50)])
def test_times_are_as_exact_as_frames_are_chosen(tmp_path, write_video, coloured_video, rate):
    write_video(tmp_path / "long.mp4", coloured_video, rate=rate)
    content = encode_clip(tmp_path, Media("video", "long.mp4", TimeSpan(0.1, None)))
    first = numpy.ceil(0.1 * float(rate))
    expected = [(number - first) / float(rate) for number in range(int(first), 30)]
    assert frames_of(content)[0] == pytest.approx(expected, abs=1e-6)


def test_a_video_that_lies_on_its_side_becomes_upright(tmp_path, write_video, coloured_video):
    write_video(tmp_path / "long.mp4", coloured_video, rate=20, rotation=90)
    content = encode_clip(tmp_path, Media("video", "long.mp4", TimeSpan(0.5, None)))
    pixels = frames_of(content)[1]
    assert pixels.shape == (20, 62, 46, 3)
    assert difference(pixels, numpy.rot90(coloured_video[10:], 1, axes=(1, 2))) < 6.0  # the original is not as exact
    assert difference(pixels, numpy.rot90(coloured_video[10:], 3, axes=(1, 2))) > 20.0


def test_the_shape_of_pixels_is_kept(tmp_path, coloured_video):
    with av.open(str(tmp_path / "long.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 46, 62, "yuv444p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        for frame in coloured_video:
            container.mux(stream.encode(video_frame(frame, "yuv444p")))
        container.mux(stream.encode(None))
    (tmp_path / "part.mp4").write_bytes(encode_clip(tmp_path, Media("video", "long.mp4", TimeSpan(1.0, None))))
    facts = decode_media(tmp_path, Media("video", "part.mp4"), stretched(8, 32)).facts
    assert (facts.width, facts.height) == (83, 46)


def test_the_same_clip_gives_the_same_bytes(tmp_path, coloured_video):
    write_frames(tmp_path / "clip", coloured_video)
    generator = numpy.random.default_rng(0)
    contents = set()
    for _ in range(8):
        contents.add(encode_clip(tmp_path, Media("frames", "clip")))
        garbage = [generator.integers(0, 255, size, numpy.uint8) for size in (3000, 5000, 9000, 20_000, 33_000)]
        del garbage  # memory that is used again is not empty
    assert len(contents) == 1


def test_what_cannot_be_encoded_is_refused(tmp_path, write_video, coloured_video, monkeypatch):
    def refused(media, reason):
        with pytest.raises(UnusableClip, match=reason):
            encode_clip(tmp_path, media)

    write_video(tmp_path / "long.mp4", coloured_video, rate=20)
    (tmp_path / "text.mp4").write_text("no video" * 10)
    write_frames(tmp_path / "sizes", coloured_video[:3])
    Image.fromarray(coloured_video[0, :40]).save(tmp_path / "sizes" / "009.png")
    write_frames(tmp_path / "damaged", coloured_video[:3])
    (tmp_path / "damaged" / "001.png").write_bytes(b"no picture")
    refused(Media("video", "gone.mp4", TimeSpan(1)), "does not exist")
    refused(Media("video", "text.mp4", TimeSpan(1)), "is not a video of a known kind")
    refused(Media("video", "long.mp4", TimeSpan(7, 9)), "has no frames between 7 and 9 seconds")
    refused(Media("video", "long.mp4", TimeSpan(7)), "has no frames between 7 and the end seconds")
    refused(Media("video", "long.mp4", TimeSpan(0.46, 0.51)), "has only one frame")
    refused(Media("frames", "gone"), "does not exist")
    refused(Media("frames", "sizes"), "has frames of different sizes")
    refused(Media("frames", "damaged"), "has a picture that cannot be read")
    refused(Media("frames", "sizes", frames_per_second=0.0001), "lasts 10000 seconds")
    monkeypatch.setattr(data.media.encode, "MOST_MEMBER_BYTES", 2000)
    refused(Media("video", "long.mp4", TimeSpan(0.1)), "is larger than 0 MiB when it is encoded anew")


def test_a_whole_file_may_be_encoded_too(tmp_path, write_video, coloured_video):
    write_video(tmp_path / "a.mp4", coloured_video, rate=20)
    assert len(frames_of(encode_clip(tmp_path, Media("video", "a.mp4", WHOLE)))[0]) == 30
