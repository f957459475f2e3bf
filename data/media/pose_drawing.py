"""Drawing a signer: the hands as in finger-spelling, and behind them, in quieter colours, body, face and arms."""

import math
from collections.abc import Sequence

import numpy
from PIL import Image, ImageDraw

from data.hand_drawing import FINGER_WIDTH, OVERSAMPLING, PALM_OUTLINE, RIM_WIDTH, draw_hand
from data.media.pose_face import HAIR_COLOUR, draw_face
from data.media.pose_landmarks import Signer
from data.media.pose_pen import PALETTE, Pen, are_known
from data.media.pose_window import PlacedSigner

# Small pictures are drawn at more times their size: a finger is then a few of the drawing's pixels wide.
DRAWN_SIDE = 384  # pixels
MOST_OVERSAMPLING = 6
# Fingers are drawn wider than they are, up to so many pixels of the finished picture, and so many times as wide. At 32
# pixels, of 144 letters that were moved by parts of a pixel, 3 were nearest to another one at 1.6 times, none at 2.4.
FINGER_PIXELS = 2.2
WIDEST_FINGERS = 2.4

_TRUNK_COLOUR = (38, 44, 68)
_UPPER_ARM_COLOUR = (62, 66, 92)
_FOREARM_COLOUR = (92, 86, 84)
# In shoulder widths.
_TRUNK_EDGE, _NECK, _UPPER_ARM, _FOREARM, _ARM_RIM = 0.22, 0.26, 0.16, 0.13, 0.03
_TRUNK_LENGTH = 1.43  # from the shoulders to the hips


def draw_signer(placed: PlacedSigner, frames: Sequence[int], image_size: int) -> numpy.ndarray:
    """Draw some frames, which may repeat, as uint8 [T, image_size, image_size, 3]."""
    oversampling = min(max(math.ceil(DRAWN_SIDE / image_size), OVERSAMPLING), MOST_OVERSAMPLING)
    side = image_size * oversampling
    drawn: dict[int, numpy.ndarray] = {}
    for number in set(frames):
        image = Image.new("RGB", (side, side), PALETTE.background)
        pen = Pen(ImageDraw.Draw(image), placed.shoulder_width * side, oversampling)
        signer = Signer(placed.signer.points[number] * side, placed.signer.left_is_nearer[number])
        _draw_frame(pen, signer, placed.hand_size * side)
        drawn[number] = numpy.asarray(image.reduce(oversampling))
    return numpy.stack([drawn[number] for number in frames])


def _draw_frame(pen: Pen, signer: Signer, hand_size: float) -> None:
    """Draw a single frame, the farthest part first."""
    _draw_trunk(pen, signer)
    draw_face(pen, signer)
    for arm in (0, 1) if signer.left_is_nearer else (1, 0):
        _draw_arm(pen, signer, arm)
        _draw_hand(pen, signer.hands[arm], hand_size)


def _draw_trunk(pen: Pen, signer: Signer) -> None:
    """Draw shoulders, neck, and the trunk down to the picture's edge."""
    shoulders, hips = signer.pair("SHOULDER"), signer.pair("HIP")
    if not are_known(shoulders):
        return
    down = numpy.array([0.0, _TRUNK_LENGTH * pen.unit, 0.0])
    hips = numpy.where(numpy.isfinite(hips), hips, shoulders + down)
    pen.limb(shoulders, _TRUNK_EDGE, _TRUNK_COLOUR)
    pen.shape(numpy.stack([*shoulders, hips[1], hips[1] + down, hips[0] + down, hips[0]]), _TRUNK_COLOUR)
    middle, nose = shoulders.mean(0), signer.head[0]
    pen.limb(numpy.stack([middle, (middle + nose) / 2]), _NECK, HAIR_COLOUR)


def _draw_arm(pen: Pen, signer: Signer, arm: int) -> None:
    shoulder, elbow, wrist = (signer.pair(joint)[arm] for joint in ("SHOULDER", "ELBOW", "WRIST"))
    if are_known(signer.hands[arm, 0]):
        wrist = signer.hands[arm, 0]  # the hand's own is the more exact one
    pen.limb(numpy.stack([shoulder, elbow]), _UPPER_ARM, _UPPER_ARM_COLOUR, rim=_ARM_RIM)
    pen.limb(numpy.stack([elbow, wrist]), _FOREARM, _FOREARM_COLOUR, rim=_ARM_RIM)


def _draw_hand(pen: Pen, hand: numpy.ndarray, hand_size: float) -> None:
    """Draw a hand, with a rim around its palm that parts it from face and body."""
    palm = hand[list(PALM_OUTLINE)]
    pen.stroke(numpy.concatenate([palm, palm[:1]]), 4 * RIM_WIDTH * hand_size / pen.unit, PALETTE.rim)
    wished = FINGER_PIXELS * pen.oversampling / (FINGER_WIDTH * hand_size)
    draw_hand(pen.draw, hand.tolist(), hand_size, min(max(wished, 1.0), WIDEST_FINGERS), PALETTE)
