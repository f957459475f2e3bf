"""The region in which a clip moves, and clips that are cut to it. Numbers are computed by hand."""

import numpy
import pytest
from PIL import Image

import data.media.resample
from common.field_types import both_sides
from data.media.decode import decode_media
from data.media.motion import GREY_SIDE, WATCHED_FRAMES, Region, grey_copy, moving_frames, moving_region
from data.media.resample import window
from data.rows import Media
from tests.shapes import stretched

SIDE = 20  # of a white square, in a grey picture of 100 x 200
TOP, LEFTS = 40, (60, 120)  # where it is: it jumps in the middle of the clip


def jumping(frames=WATCHED_FRAMES, background=100.0):
    """The clip, uint8 [T, 100, 200, 3]; `background` may be [T, 100, 200, 3]."""
    video = numpy.broadcast_to(background, (frames, 100, 200, 3)).copy()
    for number in range(frames):
        left = LEFTS[2 * number >= frames]
        video[number, TOP : TOP + SIDE, left : left + SIDE] = 255
    return video.clip(0, 255).round().astype(numpy.uint8)


def region_of(video):
    return moving_region([grey_copy(frame) for frame in video])


def approx(top, left, bottom, right, abs=1e-6):
    return Region(*(pytest.approx(edge, abs=abs) for edge in (top, left, bottom, right)))


# 80 of 200 columns, with 0.15 times as much on each side. 20 of 100 rows, 10 above and 3 below, are less than a half,
# which is laid around their middle.
EXPECTED = approx(0.465 - 0.25, 0.5 - 0.26, 0.465 + 0.25, 0.5 + 0.26)


def test_the_box_holds_all_places_of_what_moves_and_a_margin():
    assert grey_copy(jumping()[0]).shape == (50, 100)  # two pixels a cell
    assert region_of(jumping()) == EXPECTED


def test_there_is_more_room_above_for_a_face_that_holds_still():
    # Of 50 rows the square fills 20 to 40: 10 more above and 3 below.
    assert region_of(jumping()[:, 20:70]) == approx(0.2, 0.5 - 0.26, 0.86, 0.5 + 0.26)


def test_a_region_at_the_edge_stays_within_the_picture():
    assert region_of(jumping()[:, 40:, 60:]) == approx(0, 0, 33 / 60, 8 * 1.15 / 14 + 8 * 0.15 / 14)


@pytest.mark.parametrize("noise", [2, 8, 20])
def test_camera_noise_does_not_widen_it(noise):
    background = numpy.random.default_rng(0).normal(100, noise, (WATCHED_FRAMES, 100, 200, 3))
    assert region_of(jumping(background=background)) == EXPECTED


def test_a_flicker_a_change_of_light_and_a_still_picture_are_no_movement():
    flickering = jumping()
    flickering[5, 90:94, 4:8] = 255
    assert region_of(flickering) == EXPECTED
    light = jumping().astype(float) * 0.8
    light[::2] += 20
    assert region_of(light.round().astype(numpy.uint8)) == EXPECTED
    still = numpy.full((WATCHED_FRAMES, 100, 200, 3), 100, numpy.uint8)
    assert region_of(still) is None
    still[::2] += 40
    assert region_of(still) is None
    still[5, 90:94, 4:8] = 255
    assert region_of(still) is None


def test_pictures_that_change_their_size_have_no_region():
    assert moving_region([grey_copy(numpy.zeros((32, side, 3), numpy.uint8)) for side in (32, GREY_SIDE)]) is None


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((52, 104), (24, 48, 52, 104)),  # wider than the region: the rows grow
        (32, (0, 48, 100, 104)),  # the picture has no more rows: 2 are black above and below
        ((16, 64), (37, 33.4, 26, 104)),
    ],
)
def test_the_window_is_the_smallest_of_the_shape_that_holds_the_region(size, expected):
    region = Region(0.4, 0.24, 0.6, 0.76)  # 20 x 104 pixels around (50, 100)
    tall, wide = both_sides(size)
    rows = max(20, 104 * tall / wide)
    top, left, height, width = window(100.0, 200.0, stretched(4, size, "signer"), region)
    assert (height, width) == pytest.approx((rows, rows * wide / tall))
    assert (top + height / 2, left + width / 2) == pytest.approx((50, 100))


def test_the_window_is_moved_into_the_picture_where_that_is_large_enough():
    square = stretched(4, 32, "signer")
    assert window(100.0, 200.0, square, Region(0.0, 0.75, 0.2, 1.0)) == pytest.approx((0, 150, 50, 50))
    assert window(100.0, 200.0, square, Region(0.9, 0.0, 1.0, 0.25)) == pytest.approx((50, 0, 50, 50))
    assert window(100.0, 200.0, square, None) == pytest.approx((0, 50, 100, 100))  # as "crop"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "clip").mkdir()
    for number, frame in enumerate(jumping()):
        Image.fromarray(frame).save(tmp_path / "clip" / f"{number}.png")
    return tmp_path


MEDIA = Media("frames", "clip")


def test_every_frame_of_a_clip_is_cut_to_the_same_window_whatever_its_length(root):
    region = decode_media(root, MEDIA, stretched(4, 16)).facts.region
    assert region == EXPECTED
    for frames in (4, 16, 64):
        clip = decode_media(root, MEDIA, stretched(frames, (25, 26), "signer"))
        assert clip.facts.region == region
        # 104 columns from 48 on and 100 rows: four pixels become one.
        assert clip.pixels_THWC.shape == (frames, 25, 26, 3)
        for half, left in ((clip.pixels_THWC[: frames // 2], 3), (clip.pixels_THWC[frames // 2 :], 18)):
            bright = half > 200  # antialiasing blends its edges
            assert bright[:, 10:15, left : left + 5].all()
            assert bright.sum() == len(half) * 5 * 5 * 3


def test_a_clip_that_does_not_move_is_cut_as_by_crop(root):
    for path in (root / "clip").iterdir():
        Image.fromarray(jumping()[0]).save(path)
    signer, crop = (decode_media(root, MEDIA, stretched(4, 16, fit)) for fit in ("signer", "crop"))
    assert signer.facts.region is None
    assert (signer.pixels_THWC == crop.pixels_THWC).all()


def test_frames_are_decoded_twice_only_where_the_region_is_not_known(root, monkeypatch):
    passes = []
    one_pass = data.media.resample._one_pass
    monkeypatch.setattr(
        data.media.resample, "_one_pass", lambda *given, **named: passes.append(given) or one_pass(*given, **named)
    )
    shape = stretched(4, 16, "signer")
    first = decode_media(root, MEDIA, shape)
    assert len(passes) == 2
    again = decode_media(root, MEDIA, shape, first.facts)
    assert len(passes) == 3
    assert again.facts == first.facts
    assert (again.pixels_THWC == first.pixels_THWC).all()
    decode_media(root, MEDIA, stretched(4, 16, "pad"))
    assert len(passes) == 4


def test_when_a_clip_moves():
    """A square goes one cell a frame, from frame 5 to frame 11, in a clip whose light changes at frame 2."""
    video = numpy.full((16, 96, 96, 3), 100, numpy.uint8)
    for number, frame in enumerate(video):
        left = 10 + min(max(number - 4, 0), 6)
        frame[40:60, left : left + 20] = 220
    video[2:] += 20
    assert moving_frames([grey_copy(frame) for frame in video]) == (4, 11)
    assert moving_frames([grey_copy(frame) for frame in video[:4]]) is None
    assert moving_frames([grey_copy(video[0])]) is None
