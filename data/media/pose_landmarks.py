"""The landmarks of MediaPipe Holistic that are drawn: found by their names, cleaned, and without short gaps.

Files may hold a part of the skeleton (no legs, contours of the face alone), so nothing is found by its number.
"""

import itertools
from dataclasses import dataclass

import numpy

from data.media.files import printable
from data.media.pose_file import PoseFile
from data.rows import UnusableClip

LONGEST_GAP = 0.3  # seconds: a point that is missed for longer is not there
ARM_REACH = 3.2  # shoulder widths from the middle of the shoulders: hands beyond are mistakes of the tracker
ORDER_SECONDS = 0.5  # over which the depths of the two arms are averaged: from frame to frame they are not sure
PALM_KNUCKLES = (5, 9, 17)  # of index, middle and little finger
LONGEST_HAND = 1.0  # shoulder widths from the wrist: twice the usual, for hands that are held towards the camera
LEAST_SHOULDERS = 1.5  # heights of the face: shoulders that seem narrower are seen from the side
FLAT_DEPTH = 0.05  # palm lengths: hands that seem flatter have their depth in widths of the canvas

_FINGERS = ("INDEX_FINGER", "MIDDLE_FINGER", "RING_FINGER", "PINKY")
_HAND_NAMES = (
    "WRIST",
    *(f"THUMB_{joint}" for joint in ("CMC", "MCP", "IP", "TIP")),
    *(f"{finger}_{joint}" for finger in _FINGERS for joint in ("MCP", "PIP", "DIP", "TIP")),
)
_HAND_COMPONENTS = ("RIGHT_HAND_LANDMARKS", "LEFT_HAND_LANDMARKS")
# Pairs are the signer's right and left side.
_PAIRS = ("SHOULDER", "ELBOW", "WRIST", "HIP")
_HEAD_NAMES = ("NOSE", "RIGHT_EYE", "LEFT_EYE", "RIGHT_EAR", "LEFT_EAR", "MOUTH_RIGHT", "MOUTH_LEFT")
_BODY_NAMES = (*(f"{side}_{joint}" for joint in _PAIRS for side in ("RIGHT", "LEFT")), *_HEAD_NAMES)
# Closed lines of MediaPipe's face mesh; right and left are the signer's.
_LEFT_CHEEK = (10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377)
_RIGHT_CHEEK = (152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109)
FACE_LINES = {
    "outline": _LEFT_CHEEK + _RIGHT_CHEEK,
    "right_eye": (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246),
    "left_eye": (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466),
    "right_brow": (70, 63, 105, 66, 107, 55, 65, 52, 53, 46),
    "left_brow": (300, 293, 334, 296, 336, 285, 295, 282, 283, 276),
    "lips": (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185),
    "mouth": (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191),
    "right_iris": (469, 470, 471, 472),
    "left_iris": (474, 475, 476, 477),
}
_FACE_NAMES = tuple(str(number) for line in FACE_LINES.values() for number in line)
_LISTED_COMPONENTS, _NAME_LENGTH = 8, 40  # in a message
_HANDS, _FACE = 42, 42 + len(_BODY_NAMES)  # where the points of the hands end, and those of the face begin
_LINE_STARTS = dict(
    zip(FACE_LINES, itertools.accumulate((len(line) for line in FACE_LINES.values()), initial=0), strict=False)
)


@dataclass(frozen=True)
class Signer:
    """One person's hands, arms and face, frame by frame, or in a single frame.

    The axis of two is the signer's right and left. x grows to the right of the picture, y downwards, depth away from
    the camera; the depths of two hands do not compare. Missing points are NaN.
    """

    points: numpy.ndarray  # float64 [..., P, 3]
    left_is_nearer: numpy.ndarray  # bool [...]: the left arm is before the right one

    @property
    def hands(self) -> numpy.ndarray:
        """Return [..., 2, 21, 3]."""
        return self.points[..., :_HANDS, :].reshape(*self.points.shape[:-2], 2, 21, 3)

    def pair(self, joint: str) -> numpy.ndarray:
        """Return "SHOULDER", "ELBOW", "WRIST" or "HIP" of both sides, [..., 2, 3]."""
        first = _HANDS + 2 * _PAIRS.index(joint)
        return self.points[..., first : first + 2, :]

    @property
    def head(self) -> numpy.ndarray:
        """Return nose, eyes, ears and corners of the mouth as the body's landmarks have them, [..., 7, 3]."""
        return self.points[..., _FACE - len(_HEAD_NAMES) : _FACE, :]

    def face_line(self, name: str) -> numpy.ndarray:
        """Return one of FACE_LINES, [..., N, 3]."""
        first = _FACE + _LINE_STARTS[name]
        return self.points[..., first : first + len(FACE_LINES[name]), :]


def find_signer(pose: PoseFile, frames: slice) -> Signer:
    """Return the first person of a part of a file, cleaned.

    Raises:
        UnusableClip: the skeleton is another one, or no hand is seen in any frame.
    """
    signer = Signer(_wanted_points(pose, frames), numpy.zeros(0, bool))
    hands = signer.hands  # a view: what is done to it is done to the points
    hands[_mistaken_hands(signer)] = numpy.nan
    if not numpy.isfinite(hands).any():
        raise UnusableClip("shows no hand in any frame")
    if _spread(hands) < FLAT_DEPTH * palm_length(hands):
        hands[..., 2] *= pose.width
    _fill_short_gaps(signer.points, int(LONGEST_GAP * pose.frames_per_second + 1e-6))
    smoothed = max(1, round(ORDER_SECONDS * pose.frames_per_second))
    return Signer(signer.points, _left_is_nearer(signer, smoothed))


def palm_length(hands: numpy.ndarray) -> float:
    """Return the usual length of a palm in space, which does not shrink when the hand turns away; NaN if unseen."""
    lengths = numpy.linalg.norm(hands[..., PALM_KNUCKLES, :] - hands[..., :1, :], axis=-1)
    lengths = lengths[numpy.isfinite(lengths)]
    return float(numpy.median(lengths)) if len(lengths) else numpy.nan


def shoulder_width(signer: Signer) -> float:
    """Return the usual distance of the shoulders, as if seen from the front; NaN if they are unseen."""
    right, left = numpy.moveaxis(signer.pair("SHOULDER")[..., :2], 1, 0)
    distances = numpy.linalg.norm(left - right, axis=-1)
    distances = distances[numpy.isfinite(distances)]
    if not len(distances):
        return numpy.nan
    outline = signer.face_line("outline")[..., 1]
    heights = numpy.ptp(outline[numpy.isfinite(outline).all(-1)], axis=-1)
    face = float(numpy.median(heights)) if len(heights) else 0.0
    return max(float(numpy.median(distances)), LEAST_SHOULDERS * face)


def _wanted_points(pose: PoseFile, frames: slice) -> numpy.ndarray:
    """Return the points that are drawn, in the order of `Signer`; those that the file lacks are missing."""
    columns: dict[tuple[str, str], int] = {}
    first = 0
    for component, names in pose.components:
        for number, name in enumerate(names):
            columns.setdefault((component, name), first + number)
        first += len(names)
    wanted = [(hand, name) for hand in _HAND_COMPONENTS for name in _HAND_NAMES]
    if not any(key in columns for key in wanted):
        listed = ", ".join(printable(name)[:_NAME_LENGTH] for name, _ in pose.components[:_LISTED_COMPONENTS])
        more = ", ..." if len(pose.components) > _LISTED_COMPONENTS else ""
        raise UnusableClip(
            f"has the components {listed}{more}; those of MediaPipe Holistic are needed: "
            f"{' or '.join(_HAND_COMPONENTS)}, and POSE_LANDMARKS and FACE_LANDMARKS for the rest of the signer"
        )
    wanted += [("POSE_LANDMARKS", name) for name in _BODY_NAMES]
    wanted += [("FACE_LANDMARKS", name) for name in _FACE_NAMES]
    found = numpy.array([columns.get(key, -1) for key in wanted])
    points = pose.points[frames][:, found].astype(numpy.float64)
    points[:, found < 0] = numpy.nan
    return points


def _mistaken_hands(signer: Signer) -> numpy.ndarray:
    """Return which hands are farther from the shoulders than arms are long, or too large, bool [F, 2].

    Files whose gaps were filled with smooth curves have many.
    """
    middle = signer.pair("SHOULDER")[..., :2].mean(1)
    middle = middle[numpy.isfinite(middle).all(-1)]
    if not len(middle):
        return numpy.zeros(signer.hands.shape[:2], bool)
    hands, width = signer.hands[..., :2], shoulder_width(signer)
    return _farthest(hands, numpy.median(middle, axis=0), ARM_REACH * width) | _farthest(
        hands, hands[:, :, :1], LONGEST_HAND * width
    )


def _farthest(hands: numpy.ndarray, origin: numpy.ndarray, limit: float) -> numpy.ndarray:
    distances = numpy.linalg.norm(hands - origin, axis=-1)
    return numpy.asarray(numpy.where(numpy.isfinite(distances), distances, 0.0).max(-1) > limit)


def _spread(hands: numpy.ndarray) -> float:
    """Return the usual difference in depth between the nearest and the farthest point of a hand."""
    depths = hands[..., 2]
    depths = depths[numpy.isfinite(depths).all(-1)]
    return float(numpy.median(numpy.ptp(depths, axis=-1))) if len(depths) else 0.0


def _left_is_nearer(signer: Signer, frames: int) -> numpy.ndarray:
    """Return in which frames the left wrist is before the right one, on average over some frames."""
    depths = signer.pair("WRIST")[..., 2]
    behind = numpy.nan_to_num(depths[:, 1] - depths[:, 0], nan=0.0)
    padded = numpy.pad(behind, (frames // 2, frames - 1 - frames // 2), mode="edge")
    return numpy.asarray(numpy.convolve(padded, numpy.ones(frames), mode="valid") < 0)


def _fill_short_gaps(points: numpy.ndarray, longest: int) -> None:
    """Interpolate, in place, points that are missing in no more than `longest` frames between two sightings."""
    count = len(points)
    numbers = numpy.arange(count)[:, None]
    seen = numpy.isfinite(points[..., 0])
    before = numpy.maximum.accumulate(numpy.where(seen, numbers, -1), axis=0)
    after = numpy.minimum.accumulate(numpy.where(seen, numbers, count)[::-1], axis=0)[::-1]
    frame, point = numpy.nonzero(~seen & (before >= 0) & (after < count) & (after - before <= longest + 1))
    start, end = before[frame, point], after[frame, point]
    share = ((frame - start) / (end - start))[:, None]
    points[frame, point] = (1 - share) * points[start, point] + share * points[end, point]
