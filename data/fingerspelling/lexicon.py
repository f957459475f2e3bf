"""The letters: motion capture of finger-spelling, read from the package `spoken-to-signed`.

Each letter is one recording of one signer, reduced to MediaPipe landmarks on a canvas of 500 x 500 units.
Hand landmarks are numbered as MediaPipe numbers them: 0 wrist, 1-4 thumb, 5-8 index finger, 9-12 middle finger,
13-16 ring finger, 17-20 little finger, from the palm to the tip.
"""

import csv
import importlib.resources
import io
import unicodedata
from dataclasses import dataclass
from functools import cache

import numpy
from pose_format import Pose

from common.errors import UserError

# MediaPipe gives the depth of a hand's points relative to its wrist, in units of the source video's width. Bones keep
# their length when a hand turns; over these recordings their lengths vary least when one such unit is taken for
# 700 canvas units (the optimum is flat: 600 to 1000, depending on the language).
DEPTH_UNITS = 700.0
CANVAS = 500.0  # side of the canvas in its own units
MINIMUM_CONFIDENCE = 0.1
# The two arms, each as (name of the hand's component, its elbow among the body's landmarks).
ARMS = (("RIGHT_HAND_LANDMARKS", 14), ("LEFT_HAND_LANDMARKS", 13))


@dataclass(frozen=True)
class Recording:
    """One letter as it was recorded, raising and lowering of the arm included.

    The second axis of the arrays is the arm: 0 right, 1 left. x grows to the right, y downwards, depth away from the
    camera with the wrist at 0; all in canvas units. Missing points are NaN.
    """

    symbol: str
    hands: numpy.ndarray  # float32 [F, 2, 21, 3]
    elbows: numpy.ndarray  # float32 [F, 2, 2], x and y
    frames_per_second: float


@dataclass(frozen=True)
class LexiconEntry:
    """One line of the index."""

    path: str
    spoken_language: str
    signed_language: str
    symbol: str


@cache
def read_index() -> tuple[LexiconEntry, ...]:
    """Return the lines of the package's index, in its order; symbols are composed (NFC), whatever the index has."""
    text = _lexicon_bytes("index.csv").decode("utf-8")
    return tuple(
        LexiconEntry(
            row["path"], row["spoken_language"], row["signed_language"], unicodedata.normalize("NFC", row["words"])
        )
        for row in csv.DictReader(io.StringIO(text))
    )


def available_languages() -> tuple[str, ...]:
    """Return the codes (ISO 639-3) of the sign languages whose letters are recorded, sorted."""
    return tuple(sorted({entry.signed_language for entry in read_index()}))


def recorded_languages() -> tuple[str, ...]:
    """Return the codes whose letters were recorded for them: French (fsl) points to the American recordings (ase)."""
    seen: set[str] = set()
    recorded = []
    for code in available_languages():
        paths = {entry.path for entry in language_entries(code)}
        if not paths <= seen:
            recorded.append(code)
        seen |= paths
    return tuple(recorded)


def language_entries(signed_language: str) -> tuple[LexiconEntry, ...]:
    """Return one entry a symbol.

    Raises:
        UserError: there is no such language; the message lists those that exist.
    """
    first_by_symbol: dict[str, LexiconEntry] = {}
    for entry in read_index():
        if entry.signed_language == signed_language:
            first_by_symbol.setdefault(entry.symbol, entry)
    if not first_by_symbol:
        raise UserError(
            f"SIGNED_LANGUAGE={signed_language!r}: no finger-spelling is recorded for this code. "
            f'Choose from: {", ".join(available_languages())}; or all of them, by "all".'
        )
    return tuple(first_by_symbol.values())


def read_recording(entry: LexiconEntry) -> Recording:
    """Read one letter. The index's own start and end are ignored: they refer to the untrimmed source video."""
    pose = Pose.read(_lexicon_bytes(entry.path))
    points = numpy.asarray(pose.body.data.data[:, 0], dtype=numpy.float32)
    confidence = numpy.asarray(pose.body.confidence[:, 0])
    points = numpy.where((confidence >= MINIMUM_CONFIDENCE)[..., None], points, numpy.nan)
    first_point: dict[str, int] = {}
    offset = 0
    for component in pose.header.components:
        first_point[component.name] = offset
        offset += len(component.points)
    body = first_point["POSE_LANDMARKS"]
    hands = [points[:, first_point[name] : first_point[name] + 21] for name, _ in ARMS]
    stacked = numpy.stack(hands, axis=1)
    stacked[..., 2] = (stacked[..., 2] - stacked[:, :, :1, 2]) * DEPTH_UNITS
    elbows = numpy.stack([points[:, body + elbow, :2] for _, elbow in ARMS], axis=1)
    return Recording(entry.symbol, stacked, elbows, float(pose.body.fps))


def _lexicon_bytes(path: str) -> bytes:
    root = importlib.resources.files("spoken_to_signed") / "assets" / "fingerspelling_lexicon"
    return root.joinpath(*path.split("/")).read_bytes()
