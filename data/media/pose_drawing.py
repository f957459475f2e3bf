"""Drawing a signer: the hands as in finger-spelling, and behind them, in quieter colours, body, face and arms."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy
from PIL import Image, ImageDraw

from data.hand_drawing import (
    FINGER_WIDTH,
    HAND_SIZE_PALMS,
    OVERSAMPLING,
    PALM_OUTLINE,
    RIM_WIDTH,
    Colour,
    HandPalette,
    draw_bone,
    draw_hand,
)
from data.media.pose_landmarks import Signer, palm_length, shoulder_width
from data.rows import UnusableClip

# The window has the picture's shape. Lengths are in shoulder widths: the distance between the two shoulder joints.
HEAD_TOP = 1.02  # above the shoulders
HIGHEST_HEAD = 2.0  # above the shoulders: a face that is higher is a mistake of the tracker
WAIST = 1.05  # below the shoulders
SKULL = 0.25  # above the top of the face, as a share of the face's height
SMALLEST_PALM, USUAL_PALM, LARGEST_PALM = 0.2, 0.28, 0.4
# In shorter sides of the window.
MARGIN = 0.03  # for the width of a finger
HAND_MARGIN = 0.1  # around a file that has only hands
FARTHEST = 2.0  # from the middle: what lies beyond is not drawn

# Small pictures are drawn at more times their size: a finger is then a few of the drawing's pixels wide.
DRAWN_SIDE = 384  # pixels
MOST_OVERSAMPLING = 6
# Fingers are drawn wider than they are, up to this many pixels of the finished picture and this many times as wide. At
# 32 pixels, of 144 letters that were moved by parts of a pixel, 3 were nearest to another at 1.6 times, none at 2.4.
FINGER_PIXELS = 2.2
WIDEST_FINGERS = 2.4
LEAST_PUPIL = 0.8  # pixels of the finished picture: a smaller one would only darken the eye

PALETTE = HandPalette.of()
HAIR_COLOUR = (48, 42, 50)
_TRUNK_COLOUR = (38, 44, 68)
_UPPER_ARM_COLOUR = (62, 66, 92)
_FOREARM_COLOUR = (92, 86, 84)
_FACE_COLOUR = (112, 98, 90)
_EYE_COLOUR = (255, 255, 255)
_LIPS_COLOUR = (230, 110, 120)
_DARK = (16, 12, 18)

# In shoulder widths.
_TRUNK_EDGE, _NECK, _UPPER_ARM, _FOREARM, _ARM_RIM = 0.22, 0.26, 0.16, 0.13, 0.03
_TRUNK_LENGTH = 1.43  # from the shoulders to the hips
_BROW, _MOUTH, _EYE_RADIUS = 0.045, 0.06, 0.032
# The skull, from the outline of the face: this much larger, and moved up by this share of the face's height.
_SKULL_SIZE, _SKULL_RISE = 1.18, 0.1
# If only eyes and mouth are known, in distances between them: centre below the eyes, half height, half width.
_CENTRE, _HALF_HEIGHT, _HALF_WIDTH = 0.38, 1.34, 1.11


@dataclass(frozen=True)
class _Pen:
    """Draws one frame. Points are [N, 2 or 3] in the drawing's pixels, NaN where they are missing."""

    draw: ImageDraw.ImageDraw
    unit: float  # width of the shoulders in the drawing's pixels; widths are given as shares of it
    oversampling: int  # pixels of the drawing for one of the finished picture

    def limb(self, ends: numpy.ndarray, width: float, colour: Colour, rim: float = 0.0) -> None:
        """Draw a thick line with round ends, with a dark rim along its sides, if both ends are known."""
        if _are_known(ends):
            start, end = ends.tolist()
            draw_bone(self.draw, start, end, width * self.unit, rim * self.unit, colour, PALETTE.rim)

    def stroke(self, points: numpy.ndarray, width: float, colour: Colour) -> None:
        """Draw a line through the points that are known."""
        known = points[numpy.isfinite(points).all(-1), :2]
        if len(known) > 1:
            self.draw.line(known.ravel().tolist(), fill=colour, width=max(1, round(width * self.unit)), joint="curve")

    def shape(self, points: numpy.ndarray, colour: Colour) -> None:
        """Fill the closed line through the points that are known."""
        known = points[numpy.isfinite(points).all(-1), :2]
        if len(known) > 2:
            self.draw.polygon(known.ravel().tolist(), fill=colour)

    def oval(self, centre: numpy.ndarray, half_width: float, half_height: float, colour: Colour) -> None:
        """Fill an oval around a point that is known; its halves are in the drawing's pixels."""
        x, y = centre[:2].tolist()
        self.draw.ellipse((x - half_width, y - half_height, x + half_width, y + half_height), fill=colour)


def _are_known(points: numpy.ndarray) -> bool:
    return bool(numpy.isfinite(points).all())


def draw_signer(signer: Signer, frames: Sequence[int], image_size: tuple[int, int]) -> numpy.ndarray:
    """Draw some frames, which may repeat, as uint8 [T, *image_size, 3].

    The window holds everything that is drawn in any frame. Both directions have one scale, and nothing is mirrored.

    Raises:
        UnusableClip: the hands have no size.
    """
    shortest = min(image_size)
    height, width = image_size[0] / shortest, image_size[1] / shortest
    points, shoulders, hand_size = _place_in_window(signer, height, width)
    oversampling = min(max(math.ceil(DRAWN_SIDE / shortest), OVERSAMPLING), MOST_OVERSAMPLING)
    side = shortest * oversampling
    drawn: dict[int, numpy.ndarray] = {}
    for number in set(frames):
        image = Image.new("RGB", (image_size[1] * oversampling, image_size[0] * oversampling), PALETTE.background)
        pen = _Pen(ImageDraw.Draw(image), shoulders * side, oversampling)
        _draw_frame(pen, Signer(points[number] * side, signer.left_is_nearer[number]), hand_size * side)
        drawn[number] = numpy.asarray(image.reduce(oversampling))
    return numpy.stack([drawn[number] for number in frames])


def _place_in_window(signer: Signer, height: float, width: float) -> tuple[numpy.ndarray, float, float]:
    """Return the points, the width of the shoulders and the size of a hand (see data.hand_drawing) in the window.

    The window's top left corner is 0. Its shorter side is 1, and `height` and `width` are its sides.
    """
    palm = palm_length(signer.hands)
    shoulders = shoulder_width(signer)
    if not palm > 0:
        raise UnusableClip("shows hands without a palm, or with all their points in one place")
    if numpy.isfinite(shoulders):
        low, high, margin = *_around_upper_body(signer, shoulders), MARGIN
    else:
        low, high, margin = *_around_everything(signer), HAND_MARGIN
        shoulders = palm / USUAL_PALM
    sides = numpy.array([width, height])
    side = float(((high - low) / sides).max()) * (1 + 2 * margin)
    corner = (low + high - side * sides) / 2
    points = (signer.points - numpy.array([*corner, 0.0])) / side
    points[(numpy.abs(points[..., :2] - sides / 2) > FARTHEST).any(-1)] = numpy.nan
    palm = float(numpy.clip(palm, SMALLEST_PALM * shoulders, LARGEST_PALM * shoulders))
    return points, shoulders / side, HAND_SIZE_PALMS * palm / side


def _around_upper_body(signer: Signer, width: float) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Return two corners, top left and bottom right, around the head, the waist and the hands; shoulders in the middle.

    `width` is that of the shoulders.
    """
    middles = signer.pair("SHOULDER")[..., :2].mean(1)
    middle_x, shoulders_y = numpy.nanmedian(middles, axis=0).tolist()
    hands = signer.hands[..., :2].reshape(-1, 2)
    hands = hands[numpy.isfinite(hands).all(-1)]
    head_top = max(_head_top(signer, shoulders_y - HEAD_TOP * width), shoulders_y - HIGHEST_HEAD * width)
    top = min(head_top, float(hands[:, 1].min()))
    bottom = max(shoulders_y + WAIST * width, float(hands[:, 1].max()))
    half_width = float(numpy.abs(hands[:, 0] - middle_x).max())
    return numpy.array([middle_x - half_width, top]), numpy.array([middle_x + half_width, bottom])


def _head_top(signer: Signer, usual: float) -> float:
    """Return how high the top of the skull comes, a few frames aside; `usual` if no face is seen."""
    outline = signer.face_line("outline")[..., 1]
    outline = outline[numpy.isfinite(outline).all(-1)]
    if not len(outline):
        return usual
    tops = outline.min(-1) - SKULL * numpy.ptp(outline, axis=-1)
    return float(numpy.quantile(tops, 0.05))


def _around_everything(signer: Signer) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Return two corners, top left and bottom right, around all points that are seen."""
    points = signer.points[..., :2].reshape(-1, 2)
    points = points[numpy.isfinite(points).all(-1)]
    return points.min(0), points.max(0)


def _draw_frame(pen: _Pen, signer: Signer, hand_size: float) -> None:
    # The farthest part comes first.
    _draw_trunk(pen, signer)
    _draw_face(pen, signer)
    for arm in (0, 1) if signer.left_is_nearer else (1, 0):
        _draw_arm(pen, signer, arm)
        _draw_hand(pen, signer.hands[arm], hand_size)


def _draw_trunk(pen: _Pen, signer: Signer) -> None:
    shoulders, hips = signer.pair("SHOULDER"), signer.pair("HIP")
    if not _are_known(shoulders):
        return
    down = numpy.array([0.0, _TRUNK_LENGTH * pen.unit, 0.0])
    hips = numpy.where(numpy.isfinite(hips), hips, shoulders + down)
    pen.limb(shoulders, _TRUNK_EDGE, _TRUNK_COLOUR)
    pen.shape(numpy.stack([*shoulders, hips[1], hips[1] + down, hips[0] + down, hips[0]]), _TRUNK_COLOUR)
    middle, nose = shoulders.mean(0), signer.head[0]
    pen.limb(numpy.stack([middle, (middle + nose) / 2]), _NECK, HAIR_COLOUR)


def _draw_arm(pen: _Pen, signer: Signer, arm: int) -> None:
    shoulder, elbow, wrist = (signer.pair(joint)[arm] for joint in ("SHOULDER", "ELBOW", "WRIST"))
    if _are_known(signer.hands[arm, 0]):
        wrist = signer.hands[arm, 0]  # the hand's own is the more exact one
    pen.limb(numpy.stack([shoulder, elbow]), _UPPER_ARM, _UPPER_ARM_COLOUR, rim=_ARM_RIM)
    pen.limb(numpy.stack([elbow, wrist]), _FOREARM, _FOREARM_COLOUR, rim=_ARM_RIM)


def _draw_hand(pen: _Pen, hand: numpy.ndarray, hand_size: float) -> None:
    """Draw a hand, with a rim around its palm that parts it from face and body."""
    palm = hand[list(PALM_OUTLINE)]
    pen.stroke(numpy.concatenate([palm, palm[:1]]), 4 * RIM_WIDTH * hand_size / pen.unit, PALETTE.rim)
    wished = FINGER_PIXELS * pen.oversampling / (FINGER_WIDTH * hand_size)
    draw_hand(pen.draw, hand.tolist(), hand_size, min(max(wished, 1.0), WIDEST_FINGERS), PALETTE)


def _draw_face(pen: _Pen, signer: Signer) -> None:
    outline = signer.face_line("outline")
    if not _are_known(outline):
        _draw_plain_face(pen, signer.head)
        return
    middle, up = outline.mean(0), outline[0] - outline[len(outline) // 2]
    pen.shape(middle + (outline - middle) * _SKULL_SIZE + _SKULL_RISE * up, HAIR_COLOUR)
    pen.shape(outline, _FACE_COLOUR)
    for side in ("right", "left"):
        upper, lower = numpy.split(signer.face_line(f"{side}_brow"), 2)
        pen.stroke((upper + lower[::-1]) / 2, _BROW, _DARK)
        eye = signer.face_line(f"{side}_eye")
        pen.shape(eye, _EYE_COLOUR)
        _draw_pupil(pen, eye, signer.face_line(f"{side}_iris"))
    pen.shape(signer.face_line("lips"), _LIPS_COLOUR)
    pen.shape(signer.face_line("mouth"), _DARK)


def _draw_pupil(pen: _Pen, eye: numpy.ndarray, iris: numpy.ndarray) -> None:
    """Show where the eye looks, no higher than the eye is open."""
    if not (_are_known(eye) and _are_known(iris)):
        return
    radius = float(numpy.ptp(iris[:, 0])) / 2
    if radius >= LEAST_PUPIL * pen.oversampling:
        pen.oval(iris.mean(0), radius, min(radius, float(numpy.ptp(eye[:, 1])) / 2), _DARK)


def _draw_plain_face(pen: _Pen, head: numpy.ndarray) -> None:
    eyes, mouth = head[1:3, :2], head[5:7, :2]
    if not (_are_known(eyes) and _are_known(mouth)):
        return
    down = mouth.mean(0) - eyes.mean(0)
    aside = numpy.array([down[1], -down[0]])
    angles = numpy.linspace(0, 2 * numpy.pi, 36, endpoint=False)[:, None]
    outline = _HALF_WIDTH * numpy.cos(angles) * aside + _HALF_HEIGHT * numpy.sin(angles) * down
    middle = eyes.mean(0) + _CENTRE * down
    pen.shape(middle + outline * _SKULL_SIZE - 2 * _HALF_HEIGHT * _SKULL_RISE * down, HAIR_COLOUR)
    pen.shape(middle + outline, _FACE_COLOUR)
    for eye in eyes:
        pen.oval(eye, _EYE_RADIUS * pen.unit, _EYE_RADIUS * pen.unit, _EYE_COLOUR)
    pen.stroke(mouth, _MOUTH, _LIPS_COLOUR)
