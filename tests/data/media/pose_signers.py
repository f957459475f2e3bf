"""Whole signs for tests: a signer of simple shapes, written with pose-format."""

import io
from dataclasses import dataclass, field

import numpy
from pose_format import Pose
from pose_format.numpy import NumPyPoseBody
from pose_format.pose_header import PoseHeader, PoseHeaderComponent, PoseHeaderDimensions

WIDTH, HEIGHT = 1000, 800  # of the canvas
CENTRE, SHOULDERS_Y, SHOULDER_WIDTH = 500.0, 400.0, 200.0
FACE_CENTRE, FACE_HALVES = (500.0, 285.0), (47.0, 57.0)
RESTING = {"RIGHT": (330.0, 560.0), "LEFT": (670.0, 560.0)}  # wrists
FRAMES_PER_SECOND = 25.0

_SIDES = ("LEFT", "RIGHT")
BODY = [
    "NOSE",
    *(f"{side}_EYE{part}" for side in _SIDES for part in ("_INNER", "", "_OUTER")),
    *("LEFT_EAR", "RIGHT_EAR", "MOUTH_LEFT", "MOUTH_RIGHT"),
    *(f"{side}_{joint}" for joint in ("SHOULDER", "ELBOW", "WRIST", "PINKY", "INDEX", "THUMB") for side in _SIDES),
    *(f"{side}_{joint}" for joint in ("HIP", "KNEE", "ANKLE", "HEEL", "FOOT_INDEX") for side in _SIDES),
]
HAND = [
    *("WRIST", "THUMB_CMC", "THUMB_MCP", "THUMB_IP", "THUMB_TIP"),
    *("INDEX_FINGER_MCP", "INDEX_FINGER_PIP", "INDEX_FINGER_DIP", "INDEX_FINGER_TIP"),
    *("MIDDLE_FINGER_MCP", "MIDDLE_FINGER_PIP", "MIDDLE_FINGER_DIP", "MIDDLE_FINGER_TIP"),
    *("RING_FINGER_MCP", "RING_FINGER_PIP", "RING_FINGER_DIP", "RING_FINGER_TIP"),
    *("PINKY_MCP", "PINKY_PIP", "PINKY_DIP", "PINKY_TIP"),
]
# From the palm to the tip, of a right hand whose palm faces the camera; the palm is 56 units long.
FINGERS = (
    ((25, -20), (65, -60)),
    ((20, -56), (28, -120)),
    ((5, -58), (6, -128)),
    ((-9, -54), (-14, -118)),
    ((-22, -46), (-38, -98)),
)
# Of the face mesh, the points that the shapes need, by their order along lines; -1 is the signer's right.
OVAL = [
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
]
EYES = {
    -1: [33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246],
    1: [263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466],
}
BROWS = {-1: [70, 63, 105, 66, 107, 55, 65, 52, 53, 46], 1: [300, 293, 334, 296, 336, 285, 295, 282, 283, 276]}
OUTER_LIPS = [61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185]
INNER_LIPS = [78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191]


@dataclass
class Sign:
    """A signer frame by frame; tests change what they like before it is written."""

    points: dict[str, numpy.ndarray]  # component to [F, N, 3]
    confidence: dict[str, numpy.ndarray]  # component to [F, N]
    names: dict[str, list[str]]
    frames_per_second: float = FRAMES_PER_SECOND
    size: tuple[int, int] = (WIDTH, HEIGHT)
    point_format: str = "XYZC"
    components: list[str] = field(default_factory=list)  # those that are written; all if empty

    def move(self, side: str, wrists: numpy.ndarray) -> None:
        """Move a hand, and the arm that holds it, to wrists of [F, 2]."""
        hand = self.points[f"{side}_HAND_LANDMARKS"]
        hand[..., :2] += (wrists - hand[:, 0, :2])[:, None]
        body = self.points["POSE_LANDMARKS"]
        body[:, BODY.index(f"{side}_WRIST"), :2] = wrists

    def hide(self, component: str, frames: slice, points: slice = slice(None)) -> None:
        self.confidence[component][frames, points] = 0

    def content(self) -> bytes:
        return written([self], self.frames_per_second)


def signer(frames: int = 20) -> Sign:
    """A signer who holds up two open hands."""
    body = numpy.zeros((frames, len(BODY), 3))
    for sign, side in ((-1, "RIGHT"), (1, "LEFT")):
        for name, x, y in (
            ("SHOULDER", CENTRE + sign * 100, SHOULDERS_Y),
            ("ELBOW", CENTRE + sign * 140, 540),
            ("HIP", CENTRE + sign * 70, 690),
            ("EYE", CENTRE + sign * 20, 270),
            ("EAR", CENTRE + sign * 45, 285),
        ):
            body[:, BODY.index(f"{side}_{name}"), :2] = x, y
        body[:, BODY.index(f"MOUTH_{side}"), :2] = CENTRE + sign * 15, 312
    body[:, BODY.index("NOSE"), :2] = CENTRE, 292
    face = numpy.broadcast_to(face_points(), (frames, 468, 3)).copy()
    points = {"POSE_LANDMARKS": body, "FACE_LANDMARKS": face}
    names = {"POSE_LANDMARKS": BODY, "FACE_LANDMARKS": [str(number) for number in range(468)]}
    for sign, side in ((1, "LEFT"), (-1, "RIGHT")):
        component = f"{side}_HAND_LANDMARKS"
        points[component] = numpy.broadcast_to(open_hand(sign), (frames, 21, 3)).copy()
        names[component] = HAND
    made = Sign(points, {name: numpy.ones(array.shape[:2]) for name, array in points.items()}, names)
    for side, wrist in RESTING.items():
        made.move(side, numpy.broadcast_to(wrist, (frames, 2)))
    return made


def open_hand(sign: int) -> numpy.ndarray:
    """Return [21, 3] of a hand with its wrist at 0; -1 is a right one, with its thumb on the right of the picture."""
    hand = numpy.zeros((21, 3))
    for finger, (base, tip) in enumerate(FINGERS):
        hand[1 + 4 * finger : 5 + 4 * finger, :2] = numpy.linspace(base, tip, 4)
    hand[:, 0] *= -sign
    return hand


def face_points(*, brows: float = 0.0, mouth: float = 0.0) -> numpy.ndarray:
    """Return [468, 3] of a face; brows are raised, and the mouth is opened, by shares of the face's half height."""
    places = numpy.zeros((468, 2))

    def oval(numbers: list[int], x: float, y: float, half_width: float, half_height: float, start: float) -> None:
        angles = start + numpy.arange(len(numbers)) / len(numbers) * 2 * numpy.pi
        places[numbers, 0] = x + half_width * numpy.cos(angles)
        places[numbers, 1] = y + half_height * numpy.sin(angles)

    oval(OVAL, 0, 0, 1, 1, -numpy.pi / 2)
    for sign in (-1, 1):
        oval(EYES[sign], sign * 0.42, -0.25, 0.2, 0.09, 0)
        line = sign * numpy.linspace(0.68, 0.2, 5)
        places[BROWS[sign][:5]] = numpy.stack([line, numpy.full(5, -0.5 - brows)], -1)
        places[BROWS[sign][5:]] = numpy.stack([line[::-1], numpy.full(5, -0.44 - brows)], -1)
    oval(OUTER_LIPS, 0, 0.48, 0.33, 0.09 + mouth, numpy.pi)
    oval(INNER_LIPS, 0, 0.48, 0.25, 0.02 + mouth, numpy.pi)
    points = numpy.zeros((468, 3))
    points[:, :2] = numpy.array(FACE_CENTRE) + places * FACE_HALVES
    return points


def written(people: list[Sign], frames_per_second: float = FRAMES_PER_SECOND) -> bytes:
    """Return a file of format version 0.2 with one or more people."""
    first = people[0]
    chosen = first.components or list(first.points)
    header = PoseHeader(
        0.2,
        PoseHeaderDimensions(*first.size, 0),
        [PoseHeaderComponent(name, first.names[name], [], [], first.point_format) for name in chosen],
    )
    dimensions = len(first.point_format) - 1
    data = numpy.stack([numpy.concatenate([sign.points[name] for name in chosen], 1) for sign in people], 1)
    confidence = numpy.stack([numpy.concatenate([sign.confidence[name] for name in chosen], 1) for sign in people], 1)
    buffer = io.BytesIO()
    Pose(header, NumPyPoseBody(frames_per_second, data[..., :dimensions], confidence)).write(buffer)
    return buffer.getvalue()
