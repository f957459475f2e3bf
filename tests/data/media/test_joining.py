"""How signs are joined: numbers are computed by hand, for a fade of three frames at 12 a second."""

import numpy
import pytest

from data.media.joining import JoinedSign, Timeline, join_clips, plan_timeline


def test_rest_between_signs_is_cut_off_and_at_the_ends_kept():
    """Each clip is shown for two frames before and after it moves, which is half a fade, rounded up."""
    timeline = plan_timeline([JoinedSign(20, (5, 12)), JoinedSign(16, (6, 10)), JoinedSign(18, (1, 9))], 12.0)
    assert timeline == Timeline(((0, 14), (4, 12), (0, 18)), (3, 3))
    assert timeline.frames == 14 + 8 + 18 - 3 - 3
    assert timeline.starts == (0, 11, 16)
    assert timeline.edges.tolist() == [0.0, 12.5, 17.5, 34.0]


def test_one_sign_keeps_all_and_what_does_not_move_is_whole():
    assert plan_timeline([JoinedSign(20, (5, 12))], 12.0).spans == ((0, 20),)
    assert plan_timeline([JoinedSign(20, None), JoinedSign(9, None)], 12.0) == Timeline(((0, 20), (0, 9)), (3,))


def test_fades_leave_half_of_short_clips():
    timeline = plan_timeline([JoinedSign(3, None), JoinedSign(5, None), JoinedSign(1, None)], 12.0)
    assert timeline.fades == (1, 0)
    assert timeline.frames == 8


def test_frames_of_both_are_blended_from_one_to_the_other():
    clips = [numpy.full((6, 1, 1, 3), value, numpy.uint8) for value in (0, 160)]
    joined = join_clips(clips, Timeline(((0, 6), (0, 6)), (3,)))
    # In four steps: 3 t^2 - 2 t^3 at 1/4, 1/2 and 3/4 is 5/32, 1/2 and 27/32.
    assert joined[:, 0, 0, 0].tolist() == [0, 0, 0, 25, 80, 135, 160, 160, 160]
    assert joined.dtype == numpy.uint8


def test_each_frame_of_a_clip_is_shown_at_its_place():
    clips = [10 * numpy.arange(10, dtype=numpy.uint8)[:, None, None, None].repeat(3, 3) + shift for shift in (0, 5)]
    joined = join_clips(clips, Timeline(((0, 6), (2, 10)), (2,)))[:, 0, 0, 0].tolist()
    assert joined[:4] == [0, 10, 20, 30]
    assert joined[6:] == [45, 55, 65, 75, 85, 95]
    third = 3 / 9 - 2 / 27  # of the ramp
    assert joined[4:6] == pytest.approx([40 + third * (25 - 40), 35 + third * (50 - 35)], abs=0.5)
