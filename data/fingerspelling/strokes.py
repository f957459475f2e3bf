"""From a recording to the part of it that is the letter, placed in the window that will be drawn.

A recording raises the arm, forms the letter, holds it or moves through it (J and Z), and lowers the arm. Only the
stroke between raising and lowering is kept. A letter that is held is cut down to the calm part, with the slight real
motion of a held hand; a letter that moves keeps its whole motion.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy

from common.errors import UserError
from data.fingerspelling.lexicon import CANVAS, Recording

PALM_POINTS = [0, 5, 9, 13, 17]
# Speeds are in palm lengths a 25th of a second, so that signers, cameras and frame rates compare.
RAISING_SPEED = 0.12
CALM_SPEED = 0.07
STILL_SPEED = 0.03  # of the hold itself, once the hand has settled
SHORTEST_HOLD = 5  # frames; a hold that never settles so far keeps all of its calm part
LOWERED = 0.9  # palm lengths below its median height, a hand still is on its way up, or down again already
STILL_SHARE = 0.5  # a letter whose calm run fills this share of the stroke ...
STILL_PATH = 0.9  # ... and moves no more than this outside of it (palm lengths) is held, not moved
VISIBLE_SHARE = 0.6  # a hand that is seen in fewer of the stroke's frames takes no part in the letter
WINDOW_PALMS = 2.45  # the window's side: about 140 canvas units in the American recordings
FILLED_SHARE = 0.9  # of the window, by the widest letters
SMALLEST_MOTION = 0.6  # a long movement is compressed down to this before the hand is drawn smaller


@dataclass(frozen=True)
class LetterMotion:
    """A letter's stroke in window coordinates: the origin is the window's centre, its side has length 1."""

    symbol: str
    hands: numpy.ndarray  # float32 [S, 2, 21, 3], without NaN; what `visible` excludes is meaningless
    forearms: numpy.ndarray  # float32 [S, 2, 2]: unit vectors from the wrist towards the elbow
    visible: numpy.ndarray  # bool [2]: right hand, left hand
    phase: numpy.ndarray  # float64 [S], rising from 0 to 1: how much of the letter is over at each frame
    is_moving: bool
    recorded_seconds: float  # of the stroke


@dataclass(frozen=True)
class _Stroke:
    symbol: str
    hands: numpy.ndarray
    forearms: numpy.ndarray
    visible: numpy.ndarray
    speed: numpy.ndarray  # [S - 1], palm lengths a 25th of a second
    palm: float  # canvas units
    is_moving: bool
    seconds: float


def letter_motions(recordings: Sequence[Recording]) -> tuple[LetterMotion, ...]:
    """Trim and place all letters of a lexicon. The median palm of the lexicon sets the size of the window.

    Raises:
        UserError: a recording shows no hand.
    """
    strokes = [_cut_stroke(recording) for recording in recordings]
    typical_palm = float(numpy.median([stroke.palm for stroke in strokes]))
    widest = numpy.quantile(
        [_extent(stroke.hands, stroke.visible).max() for stroke in strokes if not stroke.is_moving] or [typical_palm],
        0.9,
    )
    side = max(WINDOW_PALMS * typical_palm, float(widest) / FILLED_SHARE)
    return tuple(_place(stroke, typical_palm, side) for stroke in strokes)


def _cut_stroke(recording: Recording) -> _Stroke:
    seen = _seen(recording.hands)
    if not seen.any():
        raise UserError(f"The recording of {recording.symbol!r} shows no hand.")
    main = int(seen.sum(0).argmax())
    hands = _fill_gaps(recording.hands, seen)
    known = hands[seen[:, main], main]
    # In space, so that it does not shrink when the hand turns away.
    palm = float(numpy.median(numpy.linalg.norm(known[:, [5, 9, 17]] - known[:, :1], axis=-1)))
    tempo = 25 / recording.frames_per_second
    frames = _stroke_frames(hands[:, main], seen[:, main], palm, tempo)
    distances = numpy.linalg.norm(numpy.diff(hands[:, main, :, :2], axis=0), axis=-1).mean(1)  # of its points
    speed = distances / palm / tempo
    calm = _longest_run(speed, frames, CALM_SPEED)
    outside = speed[frames.start : frames.stop - 1].sum() - speed[calm.start : calm.stop - 1].sum()
    is_moving = bool(len(calm) < STILL_SHARE * len(frames) or outside > STILL_PATH)
    still = _longest_run(speed, calm, STILL_SPEED)
    kept = frames if is_moving else still if len(still) >= SHORTEST_HOLD else calm
    cut = slice(kept.start, kept.stop)
    visible = seen[cut].mean(0) >= VISIBLE_SHARE
    visible[main] = True
    return _Stroke(
        symbol=recording.symbol,
        hands=hands[cut],
        forearms=_forearms(hands[cut, :, 0, :2], recording.elbows[cut]),
        visible=visible,
        speed=speed[kept.start : kept.stop - 1],
        palm=palm,
        is_moving=is_moving,
        seconds=len(kept) / recording.frames_per_second,
    )


def _seen(hands: numpy.ndarray) -> numpy.ndarray:
    """Return which hands were seen in which frames, [F, 2].

    Two Greek recordings hold several signs, with the hand flung far off the canvas by interpolation in between.
    Of such a recording, only what comes before the first excursion counts.
    """
    seen = numpy.isfinite(hands[..., 0]).all(-1)
    centres = hands[..., PALM_POINTS, :2].mean(2)
    outside = seen & (numpy.abs(centres / CANVAS - 0.5) > 0.55).any(-1)
    for frame in numpy.flatnonzero(outside.any(1)):
        if (seen & ~outside)[:frame].any(1).sum() >= 3:
            outside[frame:] = True
            break
    return numpy.asarray(seen & ~outside)


def _fill_gaps(hands: numpy.ndarray, seen: numpy.ndarray) -> numpy.ndarray:
    """Interpolate each arm over the frames where it was not seen; an arm that is never seen becomes 0."""
    filled = numpy.zeros_like(hands)
    times = numpy.arange(len(hands))
    for arm in range(hands.shape[1]):
        known = numpy.flatnonzero(seen[:, arm])
        if len(known):
            before = known[numpy.clip(numpy.searchsorted(known, times, side="right") - 1, 0, None)]
            after = known[numpy.clip(numpy.searchsorted(known, times), None, len(known) - 1)]
            share = numpy.where(after > before, (times - before) / numpy.maximum(after - before, 1), 0.0)
            share = share[:, None, None]
            filled[:, arm] = (1 - share) * hands[before, arm] + share * hands[after, arm]
    return filled


def _stroke_frames(hand: numpy.ndarray, seen: numpy.ndarray, palm: float, tempo: float) -> range:
    """Return the frames between raising (the first upward movement) and lowering (the last downward one)."""
    known = numpy.flatnonzero(seen)
    height = hand[:, PALM_POINTS, 1].mean(1) / palm
    low = height > numpy.median(height[known]) + LOWERED
    downward = numpy.diff(height) / tempo
    first, last = int(known[0]), int(known[-1])
    while first < last and (low[first] or downward[first] < -RAISING_SPEED):
        first += 1
    while last > first and (low[last] or downward[last - 1] > RAISING_SPEED):
        last -= 1
    if last - first < 2:  # nothing but raising and lowering was recognised: keep the middle of the recording
        middle = int(known[len(known) // 2])
        first, last = max(middle - 1, int(known[0])), min(middle + 1, int(known[-1]))
    return range(first, last + 1)


def _longest_run(speed: numpy.ndarray, frames: range, limit: float) -> range:
    """Return the longest run of frames in which the hand is no faster than the limit; at least one frame."""
    best = range(frames.start, frames.start + 1)
    start = frames.start
    for frame in range(frames.start, frames.stop):
        if frame > start and speed[frame - 1] > limit:
            start = frame
        if frame + 1 - start > len(best):
            best = range(start, frame + 1)
    return best


def _forearms(wrists: numpy.ndarray, elbows: numpy.ndarray) -> numpy.ndarray:
    """Return unit vectors towards the elbow; straight down where the elbow is out of the picture."""
    vectors = elbows - wrists
    vectors = numpy.where(numpy.isfinite(vectors).all(-1, keepdims=True), vectors, numpy.array([0.0, 1.0]))
    return numpy.asarray(vectors / numpy.maximum(numpy.linalg.norm(vectors, axis=-1, keepdims=True), 1e-6))


def _bounds(hands: numpy.ndarray, visible: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray]:
    points = hands[:, visible][..., :2].reshape(-1, 2)
    return points.min(0), points.max(0)


def _extent(hands: numpy.ndarray, visible: numpy.ndarray) -> numpy.ndarray:
    low, high = _bounds(hands, visible)
    return numpy.asarray(high - low)


def _place(stroke: _Stroke, typical_palm: float, side: float) -> LetterMotion:
    """Scale and centre a stroke in the window. Nothing is rotated: orientation tells letters apart."""
    size = float(numpy.clip((typical_palm / stroke.palm) ** 0.5, 0.85, 1.15))
    hands = stroke.hands * (size / side)
    if stroke.is_moving:
        hands = _compress_motion(hands, stroke.visible)
    widest = _extent(hands, stroke.visible).max()
    hands = hands * min(1.0, FILLED_SHARE / max(widest, 1e-6))
    low, high = _bounds(hands, stroke.visible)
    hands[..., :2] -= (low + high) / 2
    return LetterMotion(
        symbol=stroke.symbol,
        hands=hands.astype(numpy.float32),
        forearms=stroke.forearms.astype(numpy.float32),
        visible=stroke.visible,
        phase=_phase(stroke.speed),
        is_moving=stroke.is_moving,
        recorded_seconds=stroke.seconds,
    )


def _compress_motion(hands: numpy.ndarray, visible: numpy.ndarray) -> numpy.ndarray:
    """Shorten the path of the hand as far as the window demands; the hand keeps its shape."""
    centres = hands[:, visible][..., PALM_POINTS, :2].mean((1, 2))
    path = numpy.zeros((len(hands), 1, 1, 3), dtype=hands.dtype)
    path[:, 0, 0, :2] = centres - centres.mean(0)
    for amount in numpy.linspace(0.0, 1 - SMALLEST_MOTION, 9):
        shortened = hands - amount * path
        if _extent(shortened, visible).max() <= FILLED_SHARE:
            break
    return numpy.asarray(shortened)


def _phase(speed: numpy.ndarray) -> numpy.ndarray:
    """Return when each frame of the stroke is due, 0 to 1: pauses are shortened, movement keeps its time."""
    if len(speed) == 0:
        return numpy.zeros(1)
    weights = numpy.sqrt(numpy.maximum(speed - CALM_SPEED, 0.02))
    return numpy.concatenate([[0.0], numpy.cumsum(weights) / weights.sum()])
