"""From letters to a word in motion, and from there to pictures: hands and forearms, and nothing else.

`data.fingerspelling.timing` says when each letter is shown. Between two letters the hand moves quickly and evenly;
within a letter it holds still, because without a hold Deaf viewers cannot read the spelling. Each clip gets a style;
`data.hand_drawing` draws a hand.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
from PIL import Image, ImageDraw

from data.fingerspelling.strokes import LetterMotion
from data.fingerspelling.timing import WordTiming
from data.hand_drawing import (
    FINGER_WIDTH,
    FOREARM_LIGHT,
    FOREARM_WIDTH,
    OVERSAMPLING,
    RIM_WIDTH,
    HandPalette,
    draw_bone,
    draw_hand,
    shade,
)

TRANSITION_SHARE = 0.2  # of the shorter of two letters, before and after their change, in which the hand moves
SLIDE = 0.2  # of the window's side, half a palm's length, between doubled letters: the widest still fit
SLIDE_RANGE = 0.4  # a long run of one letter stays within this
FOREARM_LENGTH = 1.2  # of the picture's longer side: it always leaves the picture


@dataclass(frozen=True)
class WordMotion:
    """A word in window coordinates (origin in the centre, side 1), frame by frame."""

    hands: numpy.ndarray  # float32 [T, 2, 21, 3]
    forearms: numpy.ndarray  # float32 [T, 2, 2]
    visible: numpy.ndarray  # bool [T, 2]


def compose_word(letters: Sequence[LetterMotion], timing: WordTiming) -> WordMotion:
    """Spell a word of one or more letters."""
    times = numpy.arange(timing.frames) + 0.5
    edges, strokes = timing.edges, timing.strokes
    halves = TRANSITION_SHARE * numpy.minimum(strokes[:-1], strokes[1:])
    # A letter moves between the middles of its changes' halves, so that it is seen from its beginning to its end.
    starts = edges[:-1] + numpy.concatenate([[0.0], halves]) / 2
    ends = edges[:-1] + strokes - numpy.concatenate([halves, [0.0]]) / 2
    offsets = _slides(letters)
    hands, forearms = _letter_at(letters[0], times, starts[0], ends[0])
    hands[..., 0] += offsets[0]
    visible = numpy.broadcast_to(letters[0].visible, (timing.frames, 2))
    for index in range(1, len(letters)):
        letter, half = letters[index], halves[index - 1]
        share = numpy.clip((times - edges[index] + half) / (2 * half), 0, 1).astype(numpy.float32)
        share = share * share * (3 - 2 * share)  # starts and ends at rest
        next_hands, next_forearms = _letter_at(letter, times, starts[index], ends[index])
        next_hands[..., 0] += offsets[index]
        previous = letters[index - 1]
        next_hands, hands = _appear_and_vanish(next_hands, hands, letter.visible, previous.visible)
        next_forearms, forearms = _appear_and_vanish(next_forearms, forearms, letter.visible, previous.visible)
        hands += share[:, None, None, None] * (next_hands - hands)
        forearms += share[:, None, None] * (next_forearms - forearms)
        visible = numpy.where((times < edges[index])[:, None], visible, letter.visible)
    return WordMotion(hands, forearms, numpy.asarray(visible))


def _letter_at(
    letter: LetterMotion, times: numpy.ndarray, start: float, end: float
) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Play a letter between two times; before and after it, the first and the last position hold."""
    progress = numpy.clip((times - start) / (end - start), 0, 1)
    position = numpy.interp(progress, letter.phase, numpy.arange(len(letter.phase)))
    before = position.astype(numpy.int64)
    after = numpy.minimum(before + 1, len(letter.phase) - 1)
    share = (position - before).astype(numpy.float32)
    hands = letter.hands[before]
    hands += share[:, None, None, None] * (letter.hands[after] - hands)
    forearms = letter.forearms[before]
    forearms += share[:, None, None] * (letter.forearms[after] - forearms)
    return hands, forearms


def _appear_and_vanish(
    new: numpy.ndarray, old: numpy.ndarray, shown_new: numpy.ndarray, shown_old: numpy.ndarray
) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Keep a hand where it is known when only one of two letters uses it, so that it does not fly in from nowhere."""
    for arm in range(2):
        if shown_old[arm] and not shown_new[arm]:
            new[:, arm] = old[:, arm]
        elif shown_new[arm] and not shown_old[arm]:
            old[:, arm] = new[:, arm]
    return new, old


def _slides(letters: Sequence[LetterMotion]) -> list[float]:
    """Return the sideways offset of each letter: a letter that is repeated slides outwards, away from the body."""
    offsets: list[float] = []
    start = 0
    while start < len(letters):
        stop = start + 1
        while stop < len(letters) and letters[stop].symbol == letters[start].symbol:
            stop += 1
        run = stop - start
        step = min(SLIDE, SLIDE_RANGE / max(run - 1, 1))
        outward = -1.0 if letters[start].visible[0] else 1.0  # the right hand is seen on the left of the picture
        offsets.extend(outward * step * (place - (run - 1) / 2) for place in range(run))
        start = stop
    return offsets


@dataclass(frozen=True)
class Style:
    """How one clip is drawn; constant within the clip."""

    scale: float = 1.0
    shift_x: float = 0.0  # of the window's side
    shift_y: float = 0.0
    line_width: float = 1.0
    hue: float = 0.0  # added to every hue
    brightness: float = 1.0
    background: float = 1.0


NEUTRAL_STYLE = Style()


def random_style(generator: numpy.random.Generator) -> Style:
    """Draw a style. The ranges are small: a model should learn the letters, not the look."""
    return Style(
        scale=float(generator.uniform(0.94, 1.06)),
        shift_x=float(generator.uniform(-0.03, 0.03)),
        shift_y=float(generator.uniform(-0.03, 0.03)),
        line_width=float(generator.uniform(0.92, 1.12)),
        hue=float(generator.uniform(-0.012, 0.012)),
        brightness=float(generator.uniform(0.92, 1.0)),
        background=float(generator.uniform(0.85, 1.15)),
    )


def render_word(motion: WordMotion, image_size: tuple[int, int], style: Style = NEUTRAL_STYLE) -> numpy.ndarray:
    """Draw a word as uint8 [T, *image_size, 3].

    The window is the square in the middle, so that hands are neither cut nor distorted, whatever the picture's shape.
    """
    height, width = image_size[0] * OVERSAMPLING, image_size[1] * OVERSAMPLING
    side = min(height, width)
    palette = HandPalette.of(style.hue, style.brightness, style.background)
    hands = motion.hands * (side * style.scale)
    hands[..., 0] += (width - side) / 2 + side * (0.5 + style.shift_x)
    hands[..., 1] += (height - side) / 2 + side * (0.5 + style.shift_y)
    forearms = motion.forearms * (max(height, width) / side)
    frames = []
    for frame in range(len(hands)):
        image = Image.new("RGB", (width, height), palette.background)
        draw = ImageDraw.Draw(image)
        for arm in (1, 0):  # the right hand over the left
            if motion.visible[frame, arm]:
                _draw_arm(draw, hands[frame, arm], forearms[frame, arm], side * style.scale, style, palette)
        frames.append(numpy.asarray(image.reduce(OVERSAMPLING)))
    return numpy.stack(frames)


def _draw_arm(
    draw: ImageDraw.ImageDraw,
    hand: numpy.ndarray,
    forearm: numpy.ndarray,
    side: float,
    style: Style,
    palette: HandPalette,
) -> None:
    """Draw a forearm and a hand, [21, 3] in pixels, which fills the window's `side` when open."""
    points: list[list[float]] = hand.tolist()
    wrist = points[0]
    elbow = [wrist[0] + float(forearm[0]) * FOREARM_LENGTH * side, wrist[1] + float(forearm[1]) * FOREARM_LENGTH * side]
    width = FINGER_WIDTH * side * style.line_width
    rim = RIM_WIDTH * side * style.line_width
    draw_bone(draw, wrist, elbow, FOREARM_WIDTH * width, rim, shade(palette.palm, FOREARM_LIGHT), palette.rim)
    draw_hand(draw, points, side, style.line_width, palette)
