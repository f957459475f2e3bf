"""Which square of the canvas is drawn: one for the whole clip, so that what moves in it has moved."""

from dataclasses import dataclass, replace

import numpy

from data.hand_drawing import HAND_SIZE_PALMS
from data.media.pose_landmarks import Signer, palm_length, shoulder_width
from data.unusable import UnusableClip

# In shoulder widths, which is the distance between the two shoulder joints.
HEAD_TOP = 1.02  # above the shoulders
HIGHEST_HEAD = 2.0  # above the shoulders: a face that is higher is a mistake of the tracker
WAIST = 1.05  # below the shoulders
SKULL = 0.25  # above the top of the face, as a share of the face's height
SMALLEST_PALM, USUAL_PALM, LARGEST_PALM = 0.2, 0.28, 0.4
# In sides of the window.
MARGIN = 0.03  # for the width of a finger
HAND_MARGIN = 0.1  # around a file that has hands alone
FARTHEST = 2.0  # from the middle: what lies beyond is not drawn


@dataclass(frozen=True)
class PlacedSigner:
    """A signer in window coordinates: the picture's top left corner is 0, its side 1."""

    signer: Signer
    shoulder_width: float
    hand_size: float  # see data.hand_drawing


def place_in_window(signer: Signer) -> PlacedSigner:
    """Choose the window and move the signer into it. Both directions have one scale, and nothing is mirrored.

    Raises:
        UnusableClip: the hands have no size.
    """
    palm = palm_length(signer.hands)
    width = shoulder_width(signer)
    if not palm > 0:
        raise UnusableClip("shows hands without a palm, or with all their points in one place")
    if numpy.isfinite(width):
        left, top, side = _around_upper_body(signer, width)
    else:
        left, top, side = _around_everything(signer)
        width = palm / USUAL_PALM
    points = (signer.points - numpy.array([left, top, 0.0])) / side
    points[(numpy.abs(points[..., :2] - 0.5) > FARTHEST).any(-1)] = numpy.nan
    palm = float(numpy.clip(palm, SMALLEST_PALM * width, LARGEST_PALM * width))
    return PlacedSigner(replace(signer, points=points), width / side, HAND_SIZE_PALMS * palm / side)


def _around_upper_body(signer: Signer, width: float) -> tuple[float, float, float]:
    """Return left, top and side of a square with the shoulders in the middle, from the head to the waist."""
    middles = signer.pair("SHOULDER")[..., :2].mean(1)
    middle_x, shoulders_y = numpy.nanmedian(middles, axis=0).tolist()
    hands = signer.hands[..., :2].reshape(-1, 2)
    hands = hands[numpy.isfinite(hands).all(-1)]
    head_top = max(_head_top(signer, shoulders_y - HEAD_TOP * width), shoulders_y - HIGHEST_HEAD * width)
    top = min(head_top, float(hands[:, 1].min()))
    bottom = max(shoulders_y + WAIST * width, float(hands[:, 1].max()))
    half_width = float(numpy.abs(hands[:, 0] - middle_x).max())
    side = max(bottom - top, 2 * half_width) * (1 + 2 * MARGIN)
    return middle_x - side / 2, (top + bottom - side) / 2, side


def _head_top(signer: Signer, usual: float) -> float:
    """Return how high the top of the skull comes, a few frames aside; `usual` if no face is seen."""
    outline = signer.face_line("outline")[..., 1]
    outline = outline[numpy.isfinite(outline).all(-1)]
    if not len(outline):
        return usual
    tops = outline.min(-1) - SKULL * numpy.ptp(outline, axis=-1)
    return float(numpy.quantile(tops, 0.05))


def _around_everything(signer: Signer) -> tuple[float, float, float]:
    """Return left, top and side of the square around all points that are seen."""
    points = signer.points[..., :2].reshape(-1, 2)
    points = points[numpy.isfinite(points).all(-1)]
    low, high = points.min(0), points.max(0)
    side = float((high - low).max()) * (1 + 2 * HAND_MARGIN)
    left, top = ((low + high - side) / 2).tolist()
    return left, top, side
