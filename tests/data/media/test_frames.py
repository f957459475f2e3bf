import numpy
import pytest
from PIL import Image

from data.media.decode import decode_media, media_digest
from data.rows import WHOLE, Media, TimeSpan, UnusableClip
from tests.shapes import stretched


@pytest.fixture
def folder(tmp_path):
    """Twelve grey pictures of 24 x 16, numbered without zeros in front, each 20 brighter than the one before."""
    (tmp_path / "clip").mkdir()
    for number in range(1, 13):
        Image.new("RGB", (24, 16), (20 * number,) * 3).save(tmp_path / "clip" / f"frame_{number}.png")
    return tmp_path


def shades(root, frames=12, span=WHOLE):
    clip = decode_media(root, Media("frames", "clip", span, 25.0), stretched(frames, 16))
    return clip.pixels_THWC.mean((1, 2, 3)).tolist(), clip.facts


def test_frames_come_in_the_order_of_their_numbers(folder):
    found, facts = shades(folder)
    assert found == [20 * number for number in range(1, 13)]
    assert (facts.width, facts.height, facts.frames) == (24, 16, 12)
    assert facts.seconds == pytest.approx(12 / 25)


def test_frames_are_spread_over_the_whole_clip_or_a_part_of_it(folder):
    assert shades(folder, 4)[0] == [40, 100, 160, 220]
    assert shades(folder, 4, TimeSpan(0.16, 0.32))[0] == [100, 120, 140, 160]


def test_hidden_files_and_others_are_no_frames(folder):
    (folder / "clip" / "._frame_1.png").write_bytes(b"what another system puts there")
    (folder / "clip" / "notes.txt").write_text("no frame")
    assert len(shades(folder)[0]) == 12


def test_a_damaged_frame_is_found_whether_or_not_it_is_wanted(folder):
    noise = numpy.random.default_rng(0).integers(0, 255, (16, 24, 3), dtype=numpy.uint8)
    Image.fromarray(noise).save(folder / "clip" / "frame_5.png")
    content = (folder / "clip" / "frame_5.png").read_bytes()
    (folder / "clip" / "frame_5.png").write_bytes(content[: len(content) // 2])
    for frames in (1, 4, 12):
        with pytest.raises(UnusableClip):
            shades(folder, frames)


def test_the_digest_is_that_of_every_frame_in_order(folder):
    media = Media("frames", "clip")
    first = media_digest(folder, media)
    assert media_digest(folder, media) == first
    one, other = folder / "clip" / "frame_1.png", folder / "clip" / "frame_2.png"
    contents = one.read_bytes(), other.read_bytes()
    one.write_bytes(contents[1])
    other.write_bytes(contents[0])
    assert media_digest(folder, media) != first


@pytest.mark.parametrize(("count", "reason"), [(0, "has no frames"), (1, "has only one frame")])
def test_too_few_frames_are_refused(folder, count, reason):
    for number in range(count + 1, 13):
        (folder / "clip" / f"frame_{number}.png").unlink()
    with pytest.raises(UnusableClip, match=reason):
        shades(folder)
