import io

import av
import numpy
import pytest
from PIL import Image

from common.video_encoding import encode_gif, encode_mp4, encode_png, video_frame


@pytest.fixture
def few_colours():
    """A bar that moves over black, but stands still between frames 3 and 4."""
    video = numpy.zeros((8, 6, 10, 3), dtype=numpy.uint8)
    for number in range(8):
        video[number, :, 3 if number == 4 else number] = [250, 60, 10 + number]
    video[4] = video[3]
    return video


def decode_gif(content):
    with Image.open(io.BytesIO(content)) as gif:
        frames, durations = [], []
        for number in range(gif.n_frames):
            gif.seek(number)
            frames.append(numpy.asarray(gif.convert("RGB")))
            durations.append(gif.info["duration"])
        return numpy.stack(frames), durations, gif.info.get("loop")


def test_gif_keeps_every_frame_every_colour_and_loops(few_colours):
    frames, durations, loop = decode_gif(encode_gif(few_colours, 10.0))
    assert numpy.array_equal(frames, few_colours)
    assert durations == [100] * 8
    assert loop == 0


def test_still_clip_remains_a_clip():
    frames, _, _ = decode_gif(encode_gif(numpy.full((5, 4, 4, 3), 7, numpy.uint8), 8.0))
    assert frames.shape == (5, 4, 4, 3)
    assert (frames == 7).all()


def test_gif_as_a_whole_keeps_its_speed(few_colours):
    _, durations, _ = decode_gif(encode_gif(few_colours, 8.0))
    assert sum(durations) == 1000  # 8 frames at 8 per second
    assert set(durations) == {120, 130}


def test_gif_never_goes_below_the_delay_that_browsers_respect(few_colours):
    _, durations, _ = decode_gif(encode_gif(few_colours, 240.0))
    assert durations == [20] * 8


def test_gif_enlarges_by_repeating_pixels(few_colours):
    frames, _, _ = decode_gif(encode_gif(few_colours, 8.0, scale=3))
    assert numpy.array_equal(frames, few_colours.repeat(3, axis=1).repeat(3, axis=2))


def test_gif_of_many_colours_stays_close():
    axis = numpy.linspace(0, 255, 32)
    frame = numpy.stack([*numpy.meshgrid(axis, axis), numpy.full((32, 32), 90.0)], axis=2).astype(numpy.uint8)
    frames, _, _ = decode_gif(encode_gif(frame[None], 8.0))
    error = numpy.abs(frames[0].astype(int) - frame)
    assert error.mean() < 8
    assert error.max() <= 40


def test_mp4_plays_all_frames_at_the_right_speed():
    video = numpy.zeros((9, 16, 16, 3), dtype=numpy.uint8)
    video[:, :, 8:] = numpy.arange(9)[:, None, None, None] * 25
    content = encode_mp4(video, 12.5, scale=2)
    with av.open(io.BytesIO(content)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.average_rate) == ("h264", 12.5)
        frames = numpy.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])
    assert frames.shape == (9, 32, 32, 3)
    assert numpy.abs(frames.astype(int) - video.repeat(2, 1).repeat(2, 2)).mean() < 4


def test_an_image_is_converted_to_the_same_frame_every_time():
    image = numpy.random.default_rng(0).integers(0, 255, (36, 52, 3), dtype=numpy.uint8)
    luma = [video_frame(image, "yuv420p10le").planes[0] for _ in range(300)]
    rows = {numpy.frombuffer(plane, "<u2").reshape(36, -1)[:, :52].tobytes() for plane in luma}
    assert len(rows) == 1


def test_mp4_of_odd_size_grows_by_a_pixel():
    with av.open(io.BytesIO(encode_mp4(numpy.full((2, 5, 7, 3), 200, numpy.uint8), 8.0))) as container:
        frame = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert frame.shape == (6, 8, 3)
    assert numpy.abs(frame.astype(int) - 200).max() < 8


@pytest.mark.parametrize("encode", [encode_gif, encode_mp4])
@pytest.mark.parametrize(
    ("video", "rate", "scale"),
    [
        (numpy.zeros((0, 4, 4, 3), numpy.uint8), 8.0, 1),
        (numpy.zeros((1, 4, 4, 3), numpy.float32), 8.0, 1),
        (numpy.zeros((1, 4, 4, 1), numpy.uint8), 8.0, 1),
        (numpy.zeros((1, 4, 4, 3), numpy.uint8), 0.0, 1),
        (numpy.zeros((1, 4, 4, 3), numpy.uint8), float("nan"), 1),
        (numpy.zeros((1, 4, 4, 3), numpy.uint8), 8.0, 0),
        (numpy.zeros((1, 4, 4, 3), numpy.uint8), 8.0, 20_000),
    ],
)
def test_bad_arguments_are_refused(encode, video, rate, scale):
    with pytest.raises(ValueError, match=r"uint8|frames_per_second|scale"):
        encode(video, rate, scale)


def test_png_is_exact():
    image = numpy.random.default_rng(1).integers(0, 256, (3, 5, 3), dtype=numpy.uint8)
    with Image.open(io.BytesIO(encode_png(image))) as decoded:
        assert numpy.array_equal(numpy.asarray(decoded), image)
