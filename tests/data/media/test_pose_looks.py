import numpy
import pytest

from data.fingerspelling.lexicon import language_entries, read_recording
from tests.data.media.pose_pictures import BLUE, GREEN, RED, VIOLET, YELLOW, drawer, eyes, where
from tests.data.media.pose_signers import (
    BODY,
    BROWS,
    CENTRE,
    EYES,
    HAND,
    INNER_LIPS,
    OUTER_LIPS,
    OVAL,
    face_points,
    signer,
)


@pytest.fixture
def draw(tmp_path):
    return drawer(tmp_path)


def crossed_hands(depths):
    """Return a signer with one hand before the other; the left wrist is so far behind the right one."""
    sign = signer(len(depths))
    for side in ("RIGHT", "LEFT"):
        sign.move(side, numpy.broadcast_to((CENTRE, 480.0), (len(depths), 2)))
    sign.points["POSE_LANDMARKS"][:, BODY.index("LEFT_WRIST"), 2] = depths
    return sign


def left_is_on_top(image):
    """The index finger of the hand on top is seen whole: that of the left hand is on the left of its wrist."""
    columns = where(image, YELLOW)[:, 1]
    return (columns < 32).sum() > (columns >= 32).sum()


def test_each_finger_is_drawn_where_it_points_and_nothing_is_mirrored(draw):
    image = draw(signer(), size=128)[0]
    left_half, right_half = image[:, :64], image[:, 64:]
    right_hand = {colour: where(left_half, colour).mean(0) for colour in (RED, YELLOW, GREEN, BLUE, VIOLET)}
    columns = [right_hand[colour][1] for colour in (VIOLET, BLUE, GREEN, YELLOW, RED)]
    assert columns == sorted(columns)  # the signer's right hand, on the left of the picture, has its thumb on the right
    left_hand = [where(right_half, colour).mean(0)[1] for colour in (RED, YELLOW, GREEN, BLUE, VIOLET)]
    assert left_hand == sorted(left_hand)
    assert right_hand[GREEN][0] < right_hand[RED][0] - 5  # fingers up, thumb aside


def test_a_finger_that_is_missing_is_left_out(draw):
    sign = signer()
    for side in ("RIGHT", "LEFT"):
        sign.hide(f"{side}_HAND_LANDMARKS", slice(None), slice(HAND.index("PINKY_MCP"), HAND.index("PINKY_TIP") + 1))
    image = draw(sign)[0]
    assert len(where(image, VIOLET)) == 0
    assert len(where(image, GREEN)) > 5


def test_the_nearer_of_two_fingers_covers_the_other(draw):
    counts = []
    for depth in (-20, 20):
        sign = signer()
        hand = sign.points["RIGHT_HAND_LANDMARKS"]
        hand[:, 5:9, :2] = hand[:, 9:13, :2]  # the index finger lies on the middle finger
        hand[:, 5:9, 2] = depth
        image = draw(sign)[0][:, :32]
        counts.append((len(where(image, YELLOW)), len(where(image, GREEN))))
    assert counts[0][0] > 5 * counts[0][1]
    assert counts[1][1] > 5 * counts[1][0]


def test_the_nearer_of_two_hands_covers_the_other(draw):
    assert all(left_is_on_top(image) for image in draw(crossed_hands(numpy.full(20, -30))))
    assert not any(left_is_on_top(image) for image in draw(crossed_hands(numpy.full(20, 30))))
    hands_change_places = draw(crossed_hands(numpy.linspace(-30, 30, 20)), frames=20)
    assert [left_is_on_top(image) for image in hands_change_places] == [True] * 10 + [False] * 10


def test_one_frame_with_another_depth_does_not_change_which_hand_is_on_top(draw):
    depths = numpy.full(20, -30.0)
    depths[8] = 60
    assert all(left_is_on_top(image) for image in draw(crossed_hands(depths), frames=20))


def test_a_face_shows_raised_brows_and_an_open_mouth(draw):
    faces = {}
    for name, changes in {"calm": {}, "brows": {"brows": 0.25}, "mouth": {"mouth": 0.2}}.items():
        sign = signer()
        sign.points["FACE_LANDMARKS"][:] = face_points(**changes)
        faces[name] = draw(sign)[0].astype(int)
    brows, mouth = (numpy.abs(faces[name] - faces["calm"]).max(-1) for name in ("brows", "mouth"))
    eyes_row = eyes(faces["calm"])[:, 0].mean()
    assert 8 <= (brows > 25).sum() <= 60
    assert numpy.argwhere(brows > 25)[:, 0].max() < eyes_row
    assert (mouth > 25).sum() >= 8
    assert numpy.argwhere(mouth > 25)[:, 0].min() > eyes_row


def test_the_contours_of_a_face_are_enough(draw):
    kept = sorted({*OVAL, *OUTER_LIPS, *INNER_LIPS, *EYES[-1], *EYES[1], *BROWS[-1], *BROWS[1]})
    sign = signer()
    sign.points["FACE_LANDMARKS"] = sign.points["FACE_LANDMARKS"][:, kept]
    sign.confidence["FACE_LANDMARKS"] = sign.confidence["FACE_LANDMARKS"][:, kept]
    sign.names["FACE_LANDMARKS"] = [str(number) for number in kept]
    sign.components = ["RIGHT_HAND_LANDMARKS", "FACE_LANDMARKS", "POSE_LANDMARKS", "LEFT_HAND_LANDMARKS"]
    assert (draw(sign) == draw(signer())).all()


def test_without_landmarks_of_the_face_a_plain_one_is_drawn(draw):
    sign = signer()
    sign.components = ["POSE_LANDMARKS", "RIGHT_HAND_LANDMARKS", "LEFT_HAND_LANDMARKS"]
    image = draw(sign)[0]
    assert 2 <= len(eyes(image[:20])) <= 12  # two eyes
    assert numpy.abs(image[6:18].astype(int) - image[6:18, ::-1]).mean() < 3


def test_depth_in_canvas_units_and_in_widths_of_the_canvas_look_the_same(draw):
    pixels, widths = signer(), signer()
    for sign, unit in ((pixels, 1), (widths, 1000)):
        sign.points["RIGHT_HAND_LANDMARKS"][..., 2] = numpy.linspace(-30, 30, 21) / unit
        sign.components = ["POSE_LANDMARKS", "RIGHT_HAND_LANDMARKS"]
    assert numpy.abs(draw(pixels).astype(int) - draw(widths)).max() <= 2


@pytest.mark.parametrize(("size", "most_wrong"), [(32, 1), (64, 0)])
def test_handshapes_of_real_letters_are_told_apart_wherever_they_are(draw, size, most_wrong):
    recordings = {entry.symbol: read_recording(entry) for entry in language_entries("ase")}
    letters = [recording.hands[len(recording.hands) // 2, 0] for recording in recordings.values()]
    hands = numpy.stack([letter - letter[0] for letter in letters])
    palms = numpy.linalg.norm(hands[:, 9, :2], axis=-1)
    hands *= (56 / palms)[:, None, None]  # a usual palm for these shoulders

    def pictures(offset):
        sign = signer(len(hands))
        sign.points["RIGHT_HAND_LANDMARKS"][:] = hands + numpy.array([*offset, 0.0]) + numpy.array([350.0, 470.0, 0.0])
        return draw(sign, frames=len(hands), size=size)[:, :, : size // 2].astype(float)

    templates = pictures((0, 0))
    pixel = 440 / size  # the left hand keeps the window at this side
    wrong = 0
    for offset in ((0.4, 0.0), (-0.3, 0.3), (0.0, -0.4)):
        moved = pictures(numpy.array(offset) * pixel)
        distances = numpy.square(moved[:, None] - templates).mean((2, 3, 4))
        wrong += int((distances.argmin(1) != numpy.arange(len(hands))).sum())
    assert wrong <= most_wrong  # of 78
