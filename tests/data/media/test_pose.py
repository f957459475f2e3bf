import numpy
import pytest

from data.media.decode import decode_pose
from data.media.files import FileInTar, PlainFile
from data.media.resample import MediaFacts
from data.rows import TimeSpan, UnusableClip
from tests.data.media.pose_pictures import YELLOW, drawer, fingers, where
from tests.data.media.pose_signers import BODY, CENTRE, RESTING, signer, written
from tests.shapes import stretched


@pytest.fixture
def draw(tmp_path):
    return drawer(tmp_path)


def side_to_side(frames, low, high, y):
    return numpy.stack([numpy.linspace(low, high, frames), numpy.full(frames, y)], -1)


@pytest.mark.parametrize(("size", "frames"), [(8, 4), (32, 16), (50, 7), (128, 2)])
def test_a_clip_has_the_shape_that_is_asked_for_and_says_what_it_was(tmp_path, size, frames):
    (tmp_path / "sign.pose").write_bytes(signer(30).content())
    clip = decode_pose(PlainFile(tmp_path / "sign.pose"), stretched(frames, size))
    assert clip.pixels_THWC.shape == (frames, size, size, 3)
    assert clip.pixels_THWC.dtype == numpy.uint8
    assert clip.facts == MediaFacts(1000, 800, 30, 1.2)


@pytest.mark.parametrize("size", [(64, 40), (40, 64)])
def test_in_pictures_that_are_not_square_nothing_is_cut_or_distorted(draw, size):
    """The signer needs a place about as wide as high, so the shorter side decides how large it is."""
    sign = signer(4)
    sign.move("RIGHT", numpy.array([[300.0, 400.0], [450.0, 400.0], [300.0, 550.0], [300.0, 550.0]]))
    video = draw(sign, 4, size)
    assert video.shape == (4, *size, 3)
    places = [where(image, YELLOW).mean(0) for image in video]
    down, right = places[2] - places[0], places[1] - places[0]
    assert right[1] == pytest.approx(down[0], abs=1)
    assert max(abs(right[0]), abs(down[1])) < 1
    square = [where(image, YELLOW).mean(0) for image in draw(sign, 4, 40)]
    assert right[1] > (square[1] - square[0])[1] - 1
    assert len(fingers(video[0])) >= len(fingers(draw(sign, 4, 40)[0])) - 3


def test_a_file_in_a_tar_file_is_the_same_clip(tmp_path):
    content = signer().content()
    (tmp_path / "a.pose").write_bytes(content)
    (tmp_path / "b.tar").write_bytes(b"x" * 512 + content + b"y" * 512)
    inside = FileInTar(tmp_path / "b.tar", 512, len(content), ".pose")
    whole, part = (decode_pose(file, stretched(4, 32)) for file in (PlainFile(tmp_path / "a.pose"), inside))
    assert (whole.pixels_THWC == part.pixels_THWC).all()


def test_the_shoulders_are_in_the_middle_wherever_the_signer_stands(draw):
    image, moved = draw(signer())[0], signer()
    for points in moved.points.values():
        points[..., 0] += 170
        points[..., 1] -= 90
    assert numpy.abs(draw(moved)[0].astype(int) - image).mean() < 0.2
    assert numpy.abs(image[5:20].astype(int) - image[5:20, ::-1]).mean() < 3  # the head
    assert numpy.abs(image[50:].astype(int) - image[50:, ::-1]).mean() < 8  # trunk and elbows


def test_twice_the_canvas_is_the_same_picture(draw):
    larger = signer()
    larger.size = (2000, 1600)
    for points in larger.points.values():
        points *= 2
    assert numpy.abs(draw(larger).astype(int) - draw(signer())).mean() < 0.2


def test_both_directions_have_the_same_scale(draw):
    sign = signer(3)
    sign.move("RIGHT", numpy.array([[300.0, 400.0], [450.0, 400.0], [300.0, 550.0]]))  # 150 right, then 150 down
    sign.hide("LEFT_HAND_LANDMARKS", slice(None))
    origin, right, down = (fingers(image).mean(0) for image in draw(sign, frames=3, size=128))
    assert (right - origin)[1] == pytest.approx((down - origin)[0], abs=1)
    assert (right - origin)[1] > 30
    assert abs((right - origin)[0]) < 1
    assert abs((down - origin)[1]) < 1


def test_the_camera_stands_still(draw):
    sign = signer()
    sign.move("RIGHT", side_to_side(20, 290, 400, 560))
    video = draw(sign, frames=10)
    head, left_side = video[:, :20, 20:44], video[:, :, 40:]
    assert (head == head[0]).all()
    assert (left_side == left_side[0]).all()


@pytest.mark.parametrize("wrist", [(500, 180), (60, 400), (250, 930), (940, 120)])
def test_wherever_a_hand_is_seen_it_is_in_the_picture(draw, wrist):
    usual, sign = draw(signer(), frames=20), signer()
    sign.move("LEFT", numpy.linspace(RESTING["LEFT"], wrist, 20))
    for image in draw(sign, frames=20, size=64):
        seen = fingers(image)
        assert len(where(image, YELLOW)) >= 2
        assert seen.min() >= 1
        assert seen.max() <= 62
    assert len(fingers(usual[0])) > len(fingers(draw(sign)[0]))  # farther away, because the window is larger


def test_lines_thinner_than_a_pixel_are_drawn(draw):
    sign = signer()
    sign.move("LEFT", numpy.linspace(RESTING["LEFT"], (1020, 130), 20))
    for side in ("RIGHT", "LEFT"):
        hand = sign.points[f"{side}_HAND_LANDMARKS"]
        hand[:] = hand[:, :1] + 0.3 * (hand - hand[:, :1])
    assert draw(sign, size=8)[0].max() > 60


def test_head_and_waist_are_in_the_picture(draw):
    image = draw(signer())[0].astype(int)
    background = image[0, 0]
    assert (image[0] == background).all()  # above the head
    assert numpy.abs(image[4, 28:36] - background).max() > 20  # hair
    assert numpy.abs(image[63, 24:40] - background).max() > 20  # the trunk goes on


def test_a_hand_that_is_missed_for_a_moment_is_filled_in(draw):
    whole, gap = signer(40), signer(40)
    for sign in (whole, gap):
        sign.move("RIGHT", side_to_side(40, 290, 400, 560))
    gap.hide("RIGHT_HAND_LANDMARKS", slice(10, 17))  # 7 of 25 frames a second: 0.28 seconds
    assert numpy.abs(draw(gap, frames=40).astype(int) - draw(whole, frames=40)).mean() < 0.02


def test_a_hand_that_is_missed_for_longer_is_not_drawn(draw):
    sign = signer(40)
    sign.hide("RIGHT_HAND_LANDMARKS", slice(10, 18))  # 0.32 seconds
    seen = [len(fingers(image[:, :32])) > 0 for image in draw(sign, frames=40)]
    assert seen == [not 10 <= frame < 18 for frame in range(40)]


def test_a_hand_is_not_drawn_before_it_is_seen_first_or_after_it_is_seen_last(draw):
    sign = signer(20)
    sign.hide("RIGHT_HAND_LANDMARKS", slice(0, 3))
    sign.hide("RIGHT_HAND_LANDMARKS", slice(17, 20))
    seen = [len(fingers(image[:, :32])) > 0 for image in draw(sign, frames=20)]
    assert seen == [3 <= frame < 17 for frame in range(20)]


@pytest.mark.parametrize("value", [numpy.nan, numpy.inf, -numpy.inf])
def test_points_without_a_finite_place_are_missing(draw, value):
    broken, hidden = signer(), signer()
    for component in ("LEFT_HAND_LANDMARKS", "FACE_LANDMARKS"):
        hidden.hide(component, slice(3, 20))
        broken.points[component][3:] = value
    assert (draw(broken) == draw(hidden)).all()


@pytest.mark.parametrize("missing", ["LEFT_ELBOW", "RIGHT_SHOULDER", "NOSE", "LEFT_HIP", "RIGHT_WRIST"])
def test_a_body_with_a_part_missing_is_drawn(draw, missing):
    sign = signer()
    number = BODY.index(missing)
    sign.hide("POSE_LANDMARKS", slice(None), slice(number, number + 1))
    assert len(fingers(draw(sign)[0])) > 20


def test_hands_alone_fill_the_picture(draw):
    sign = signer()
    sign.components = ["RIGHT_HAND_LANDMARKS"]
    seen = fingers(draw(sign)[0])
    assert numpy.ptp(seen[:, 0]) > 35
    assert seen.min() > 2
    assert seen.max() < 61


def test_points_in_the_plane_are_enough(draw):
    sign = signer()
    sign.point_format = "XYC"
    assert (draw(sign) == draw(signer())).all()


def test_the_first_of_two_people_is_drawn(draw):
    first, second = signer(), signer()
    for points in second.points.values():
        points[..., 0] += 300
    assert (draw(written([first, second])) == draw(first)).all()


def test_a_hand_that_jumps_out_of_reach_is_a_mistake_and_changes_nothing(draw):
    sign = signer()
    sign.points["RIGHT_HAND_LANDMARKS"][8, :, 0] += 3000
    sign.points["LEFT_HAND_LANDMARKS"][12] = (sign.points["LEFT_HAND_LANDMARKS"][12] - 600) * 9
    assert (draw(sign, frames=20) == draw(signer(), frames=20)).all()


def test_a_clip_is_resampled_over_its_whole_duration(draw):
    sign = signer(40)
    sign.move("RIGHT", side_to_side(40, 290, 400, 560))
    every, some = draw(sign, frames=40), draw(sign, frames=4)
    assert (some == every[[5, 15, 25, 35]]).all()
    assert (draw(sign, frames=80) == every.repeat(2, axis=0)).all()


def test_a_span_is_drawn_as_if_it_were_the_file(tmp_path, draw):
    sign, part = signer(50), signer(20)
    sign.move("RIGHT", side_to_side(50, 290, 400, 560))
    part.move("RIGHT", side_to_side(50, 290, 400, 560)[10:30])
    assert (draw(sign, span=TimeSpan(0.4, 1.2)) == draw(part)).all()
    clip = decode_pose(PlainFile(tmp_path / "sign.pose"), stretched(2, 16), TimeSpan(0.2, 0.4))
    assert clip.facts.frames == 5
    assert clip.facts.seconds == pytest.approx(0.2)
    ends_within_a_frame = decode_pose(PlainFile(tmp_path / "sign.pose"), stretched(2, 16), TimeSpan(0.2, 0.39))
    assert ends_within_a_frame.facts.seconds == pytest.approx(0.19)


def test_a_span_that_ends_after_the_clip_ends_with_it(draw):
    sign = signer(25)
    assert (draw(sign, span=TimeSpan(0.4, 99.0)) == draw(sign, span=TimeSpan(0.4))).all()
    assert (draw(sign, span=TimeSpan(0.0, 1.0)) == draw(sign)).all()


@pytest.mark.parametrize("start", [1.0, 1.5, 60.0])
def test_a_span_that_begins_after_the_clip_is_refused(draw, start):
    with pytest.raises(UnusableClip, match=r"no frames between .* seconds: it lasts 1\.?0? ?"):
        draw(signer(25), span=TimeSpan(start, start + 1))


def test_a_span_of_one_frame_is_refused(draw):
    with pytest.raises(UnusableClip, match="only one frame"):
        draw(signer(25), span=TimeSpan(0.4, 0.44))


def test_drawing_is_repeatable(draw):
    assert (draw(signer()) == draw(signer())).all()


def test_a_sign_without_hands_is_refused(draw):
    sign = signer()
    for side in ("RIGHT", "LEFT"):
        sign.hide(f"{side}_HAND_LANDMARKS", slice(None))
    with pytest.raises(UnusableClip, match="shows no hand"):
        draw(sign)


def test_hands_without_extent_are_refused(draw):
    sign = signer()
    for side in ("RIGHT", "LEFT"):
        sign.points[f"{side}_HAND_LANDMARKS"][:] = (CENTRE, 400, 0)
    with pytest.raises(UnusableClip, match="all their points in one place"):
        draw(sign)


def test_another_skeleton_is_named(draw):
    sign = signer()
    for old, new in {"POSE_LANDMARKS": "pose_keypoints_2d", "RIGHT_HAND_LANDMARKS": "hand_right\nkeypoints_2d"}.items():
        for table in (sign.points, sign.confidence, sign.names):
            table[new] = table[old]
        sign.components.append(new)
    with pytest.raises(UnusableClip, match=r"pose_keypoints_2d, hand_right\\nkeypoints_2d; .*MediaPipe Holistic"):
        draw(sign)
