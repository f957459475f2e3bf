"""Drawing spelled words: hands and forearms, and nothing else.

`data.hand_drawing` draws a hand; here each clip gets a style.
"""

from dataclasses import dataclass

import numpy
from PIL import Image, ImageDraw

from data.fingerspelling.composition import WordMotion
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

FOREARM_LENGTH = 1.2  # of the window's side: it always leaves the picture


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


def render_word(motion: WordMotion, image_size: int, style: Style = NEUTRAL_STYLE) -> numpy.ndarray:
    """Draw a word as uint8 [T, image_size, image_size, 3]."""
    side = image_size * OVERSAMPLING
    palette = HandPalette.of(style.hue, style.brightness, style.background)
    hands = motion.hands * (side * style.scale)
    hands[..., 0] += side * (0.5 + style.shift_x)
    hands[..., 1] += side * (0.5 + style.shift_y)
    frames = []
    for frame in range(len(hands)):
        image = Image.new("RGB", (side, side), palette.background)
        draw = ImageDraw.Draw(image)
        for arm in (1, 0):  # the right hand over the left
            if motion.visible[frame, arm]:
                _draw_arm(draw, hands[frame, arm], motion.forearms[frame, arm], side * style.scale, style, palette)
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
