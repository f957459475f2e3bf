"""Drawing a face: eyes, brows and mouth are there because they carry grammar."""

import numpy

from data.media.pose_landmarks import Signer
from data.media.pose_pen import Pen, are_known

LEAST_PUPIL = 0.8  # pixels of the finished picture: a smaller one would only darken the eye
HAIR_COLOUR = (48, 42, 50)
_FACE_COLOUR = (112, 98, 90)
_EYE_COLOUR = (255, 255, 255)
_LIPS_COLOUR = (230, 110, 120)
_DARK = (16, 12, 18)
_BROW, _MOUTH, _EYE_RADIUS = 0.045, 0.06, 0.032  # in shoulder widths
# The skull, from the outline of the face: so much larger, and moved up by this share of the face's height.
_SKULL_SIZE, _SKULL_RISE = 1.18, 0.1
# Where only eyes and mouth are known, in distances between them: centre below the eyes, half height, half width.
_CENTRE, _HALF_HEIGHT, _HALF_WIDTH = 0.38, 1.34, 1.11


def draw_face(pen: Pen, signer: Signer) -> None:
    """Draw the face of a single frame, from the face's landmarks or, without them, from the body's."""
    outline = signer.face_line("outline")
    if not are_known(outline):
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


def _draw_pupil(pen: Pen, eye: numpy.ndarray, iris: numpy.ndarray) -> None:
    """Show where the eye looks, no higher than the eye is open."""
    if not (are_known(eye) and are_known(iris)):
        return
    radius = float(numpy.ptp(iris[:, 0])) / 2
    if radius >= LEAST_PUPIL * pen.oversampling:
        pen.oval(iris.mean(0), radius, min(radius, float(numpy.ptp(eye[:, 1])) / 2), _DARK)


def _draw_plain_face(pen: Pen, head: numpy.ndarray) -> None:
    eyes, mouth = head[1:3, :2], head[5:7, :2]
    if not (are_known(eyes) and are_known(mouth)):
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
