"""Parts of files, and timestamps of every kind: exactly the frames that begin within a span are shown."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy
import pytest
from PIL import Image

from common.video_encoding import video_frame
from data.media.decode import decode_media
from data.media.resample import DecodedClip
from data.rows import WHOLE, Media, TimeSpan, UnusableClip
from tests.data.media.hostile_containers import Matroska, Mp4, box, full_box, numbers
from tests.data.media.hostile_pictures import GifPart, gif, jpeg
from tests.shapes import stretched

FRAMES, RATE = 120, 25


def x264(keyint: int, more: str = "") -> dict[str, str]:
    """Options for many frames between two that stand alone, some of them stored long before they are shown."""
    return {"preset": "medium", "x264-params": f"keyint={keyint}:bframes=8:b-pyramid=2:scenecut=0:qp=1{more}"}


@dataclass(frozen=True)
class Recipe:
    """How a file of 120 frames is made, whose shades tell their numbers."""

    name: str
    codec: str
    options: dict[str, str]
    container: dict[str, str]
    first: int = 0  # number that the container gives to the first frame


VP9 = {"deadline": "good", "cpu-used": "8", "g": "30", "crf": "4", "lag-in-frames": "16", "auto-alt-ref": "1"}
MPEG4 = {"bf": "3", "g": "30", "qmin": "1", "qmax": "2"}
RECIPES = [
    Recipe("long.mp4", "libx264", x264(250), {}),
    Recipe("short.mp4", "libx264", x264(30), {}),
    Recipe("open.mp4", "libx264", x264(30, ":open-gop=1:b-adapt=0"), {}),
    Recipe("pieces.mp4", "libx264", x264(30), {"movflags": "frag_keyframe+empty_moov"}),
    Recipe("old.mp4", "mpeg4", MPEG4, {}),
    Recipe("short.mkv", "libx264", x264(30, ":open-gop=1:b-adapt=0"), {}),
    Recipe("late.mkv", "libx264", x264(30), {}, first=90_000),
    Recipe("early.mkv", "libx264", x264(30), {}, first=-20),
    Recipe("good.webm", "libvpx-vp9", VP9, {}),
    Recipe("live.webm", "libvpx-vp9", VP9, {"live": "1"}),
    Recipe("short.avi", "libx264", x264(30, ":open-gop=1:b-adapt=0"), {}),
    Recipe("old.avi", "mpeg4", MPEG4, {}),
    Recipe("every.mov", "mjpeg", {}, {}),
    Recipe("good.gif", "", {}, {}),
]
SPANS = [
    TimeSpan(0, 0.4),
    TimeSpan(0.04, 0.44),
    TimeSpan(1.0, 1.4),
    TimeSpan(1.16, 1.24),
    TimeSpan(1.2, 1.28),
    TimeSpan(1.236, 2.0),  # begins shortly before a frame
    TimeSpan(2.316, 2.52),
    TimeSpan(2.404, 2.52),  # begins shortly after a frame
    TimeSpan(4.0, None),
    TimeSpan(4.72, 4.98),  # ends shortly after the file
    WHOLE,
]


def shade(number: int) -> int:
    """The grey of a frame."""
    return 5 + 2 * number


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The files of all recipes."""
    root = tmp_path_factory.mktemp("times")
    for recipe in RECIPES:
        write(root / recipe.name, recipe)
    return root


def write(path: Path, recipe: Recipe) -> None:
    if path.suffix == ".gif":
        images = [Image.new("L", (16, 16), shade(number)) for number in range(FRAMES)]
        images[0].save(path, save_all=True, append_images=images[1:], duration=1000 // RATE)
        return
    with av.open(str(path), "w", options=recipe.container) as container:
        stream = container.add_stream(recipe.codec, rate=RATE)
        stream.width = stream.height = 16
        stream.pix_fmt = "yuvj420p" if recipe.codec == "mjpeg" else "yuv420p"
        stream.options = recipe.options
        for number in range(FRAMES):
            pixels = numpy.full((16, 16, 3), shade(number), numpy.uint8)
            frame = video_frame(pixels, stream.pix_fmt)
            frame.pts, frame.time_base = number + recipe.first, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def decoded(root: Path, name: str, span: TimeSpan, num_frames: int) -> DecodedClip:
    return decode_media(root, Media("video", name, span), stretched(num_frames, 8))


def shades(clip: DecodedClip) -> list[float]:
    return clip.pixels_THWC.mean((1, 2, 3)).tolist()


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_a_span_is_exactly_the_frames_that_begin_within_it(folder, recipe):
    for span in SPANS:
        end = float("inf") if span.end is None else span.end
        wanted = [number for number in range(FRAMES) if span.start <= number / RATE < end]
        clip = decoded(folder, recipe.name, span, len(wanted))
        assert clip.facts.frames == len(wanted), span
        assert shades(clip) == pytest.approx([shade(number) for number in wanted], abs=1.6), span
        seconds = len(wanted) / RATE if span.end is None else min(len(wanted) / RATE, span.end - wanted[0] / RATE)
        assert clip.facts.seconds == pytest.approx(seconds, abs=1e-3), span


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
@pytest.mark.parametrize(
    ("span", "reason"),
    [
        (TimeSpan(5, None), "^has no frames between 5 and the end seconds$"),
        (TimeSpan(1e9, None), "^has no frames between"),
        (TimeSpan(1e300, None), "^has no frames between|^cannot be decoded"),
        (TimeSpan(1.205, 1.206), "^has no frames between"),
        (TimeSpan(1.19, 1.21), "^has only one frame"),
        (TimeSpan(4.76, None), "^has only one frame"),
        (TimeSpan(2, 1), "^has no frames between"),
    ],
)
def test_a_span_without_frames_is_refused(folder, recipe, span, reason):
    with pytest.raises(UnusableClip, match=reason):
        decoded(folder, recipe.name, span, 4)


def test_a_slow_video_is_entered_early_enough(tmp_path):
    """Two frames a second: one that stands alone is stored seven seconds before it is shown."""
    options = x264(30, ":open-gop=1:b-adapt=0:bframes=16")
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=2, options=options)
        stream.width = stream.height = 16
        stream.pix_fmt = "yuv420p"
        for number in range(90):
            pixels = numpy.full((16, 16, 3), shade(number), numpy.uint8)
            container.mux(stream.encode(video_frame(pixels, "yuv420p")))
        container.mux(stream.encode())
    for first in range(20, 40):
        clip = decoded(tmp_path, "a.mp4", TimeSpan(first / 2, first / 2 + 2), 4)
        assert shades(clip) == pytest.approx([shade(first + number) for number in range(4)], abs=1.6)


def test_an_avi_file_that_lost_its_index_is_decoded(folder, tmp_path):
    content = (folder / "old.avi").read_bytes()
    (tmp_path / "a.avi").write_bytes(content[: content.rindex(b"idx1")])
    clip = decoded(tmp_path, "a.avi", TimeSpan(1.0, 1.4), 10)
    assert shades(clip) == pytest.approx([shade(number) for number in range(25, 35)], abs=1.6)


GREYS = [jpeg(16, 16, 20 * number) for number in range(10)]


def edited(*edits: tuple[int, int]) -> bytes:
    """A video of ten frames of which parts are shown: frames that they last, and the first one of each."""
    entries = b"".join(numbers(length, start & 0xFFFFFFFF, 0x10000) for length, start in edits)
    edit_list = box(b"edts", full_box(b"elst", numbers(len(edits)), entries))
    return Mp4(GREYS, 16, 16, edits=edit_list).to_bytes()


@pytest.mark.parametrize(
    ("edits", "wanted"),
    [
        ([(4, 6)], [120, 140, 160, 180]),  # cut out by an editor: more is hidden than is shown
        ([(3, 0)], [0, 20, 40]),
        ([(10, 0)], [20 * number for number in range(10)]),
        ([(5, -1), (3, 2)], [40, 60, 80]),  # appears after a while: that is no part of the clip
    ],
)
def test_what_an_editor_hid_is_not_shown(tmp_path, edits, wanted):
    (tmp_path / "a.mp4").write_bytes(edited(*edits))
    clip = decoded(tmp_path, "a.mp4", WHOLE, len(wanted))
    assert shades(clip) == pytest.approx(wanted, abs=2)
    assert clip.facts.frames == len(wanted)
    assert shades(decoded(tmp_path, "a.mp4", TimeSpan(0.04, None), len(wanted) - 1)) == pytest.approx(wanted[1:], abs=2)


@pytest.mark.parametrize(
    ("times", "start", "wanted"),
    [
        (None, 0, [0, 20, 40, 60]),
        (None, 3_000_000_000, [0, 20, 40, 60]),  # five weeks
        ([-300, -200, -100, 0], 0, [0, 20, 40, 60]),  # what is below zero is no time: frames are counted
        ([-300, -200, -100, 0], 300, [0, 20, 40, 60]),
        ([0, 10, 20, 30_000], 0, [40, 40, 40, 40]),
        ([0, 0, 0, 100], 0, [40, 40, 40, 60]),  # several frames at one moment: the last one is seen
    ],
)
def test_strange_times_of_a_container_are_understood(tmp_path, times, start, wanted):
    (tmp_path / "a.mkv").write_bytes(Matroska(GREYS[:4], 16, 16, times=times, start=start).to_bytes())
    assert shades(decoded(tmp_path, "a.mkv", WHOLE, 4)) == pytest.approx(wanted, abs=2)


def test_no_part_of_a_file_without_times_can_be_found(tmp_path):
    (tmp_path / "a.mkv").write_bytes(Matroska(GREYS[:4], 16, 16, times=[-300, -200, -100, 0]).to_bytes())
    with pytest.raises(UnusableClip, match="has frames without a time"):
        decoded(tmp_path, "a.mkv", TimeSpan(0, 0.3), 4)


@pytest.mark.parametrize("hundredths", [0, None])
def test_gif_frames_without_a_duration_last_a_tenth_of_a_second(tmp_path, hundredths):
    parts = [GifPart(numpy.full((8, 8), number), hundredths=30 if number == 2 else hundredths) for number in range(4)]
    greys = numpy.arange(256)[:, None] * numpy.array([50, 50, 50])
    (tmp_path / "a.gif").write_bytes(gif(parts, 8, 8, greys))
    clip = decoded(tmp_path, "a.gif", WHOLE, 6)
    assert shades(clip) == [0, 50, 100, 100, 100, 150]
    assert clip.facts.seconds == pytest.approx(0.6)
    assert shades(decoded(tmp_path, "a.gif", TimeSpan(0.1, 0.3), 2)) == [50, 100]
