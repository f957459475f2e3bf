"""Drawing hands: one colour a finger, the nearer parts over the farther ones, small enough for a small model.

Everything is drawn at three times the size with Pillow and averaged down. Each piece of a finger has a dark rim,
so that fingers that lie on one another stay apart, and is the brighter the nearer it is to the camera.
"""

import colorsys
from dataclasses import dataclass

import numpy
from PIL import Image, ImageDraw

from data.fingerspelling.composition import WordMotion

OVERSAMPLING = 3
# Hue, saturation and value of thumb, index, middle, ring and little finger: far apart for eyes and for a model.
FINGER_COLOURS = ((0.00, 0.78, 1.0), (0.14, 0.85, 1.0), (0.37, 0.75, 0.95), (0.55, 0.80, 1.0), (0.83, 0.60, 1.0))
PALM_COLOUR = (0.08, 0.22, 0.72)
BACKGROUND = (0.62, 0.35, 0.13)
FINGER_WIDTH = 0.068  # of the window's side
RIM_WIDTH = 0.016
PALM_OUTLINE = [0, 1, 2, 5, 9, 13, 17]
FOREARM_LENGTH = 1.2  # of the window's side: it always leaves the picture
DEPTH_RANGE = 0.3  # of the window's side: this far behind the nearest part of the hand, shading is strongest
DEPTH_SHADING = 0.4


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
    palette = _Palette.of(style)
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


@dataclass(frozen=True)
class _Palette:
    fingers: tuple[tuple[float, float, float], ...]
    palm: tuple[float, float, float]
    rim: tuple[int, int, int]
    background: tuple[int, int, int]

    @staticmethod
    def of(style: Style) -> "_Palette":
        def colour(hsv: tuple[float, float, float], brightness: float) -> tuple[float, float, float]:
            rgb = colorsys.hsv_to_rgb((hsv[0] + style.hue) % 1, hsv[1], min(hsv[2] * brightness, 1))
            return (rgb[0] * 255, rgb[1] * 255, rgb[2] * 255)

        background = _shade(colour(BACKGROUND, style.background), 1.0)
        return _Palette(
            fingers=tuple(colour(hsv, style.brightness) for hsv in FINGER_COLOURS),
            palm=colour(PALM_COLOUR, style.brightness),
            rim=_shade(colour(BACKGROUND, 1.0), 0.5),
            background=background,
        )


def _shade(colour: tuple[float, float, float], light: float) -> tuple[int, int, int]:
    return (int(colour[0] * light), int(colour[1] * light), int(colour[2] * light))


def _draw_arm(
    draw: ImageDraw.ImageDraw,
    hand: numpy.ndarray,
    forearm: numpy.ndarray,
    side: float,
    style: Style,
    palette: _Palette,
) -> None:
    """Draw a forearm and a hand, the farthest part first. `hand` is [21, 3] in pixels; `side` is the window's."""
    points: list[list[float]] = hand.tolist()
    width = FINGER_WIDTH * side * style.line_width
    rim = RIM_WIDTH * side * style.line_width
    nearest: float = min(point[2] for point in points)

    def light(depth: float) -> float:
        return 1.0 - DEPTH_SHADING * min((depth - nearest) / (DEPTH_RANGE * side), 1.0)

    wrist = points[0]
    elbow = [wrist[0] + float(forearm[0]) * FOREARM_LENGTH * side, wrist[1] + float(forearm[1]) * FOREARM_LENGTH * side]
    _draw_bone(draw, wrist, elbow, 1.7 * width, rim, _shade(palette.palm, 0.5), palette.rim)
    pieces: list[tuple[float, int, int]] = [(sum(points[i][2] for i in PALM_OUTLINE) / len(PALM_OUTLINE), -1, 0)]
    for finger in range(5):
        for joint in range(4 * finger + 1, 4 * finger + 4):
            pieces.append(((points[joint][2] + points[joint + 1][2]) / 2, finger, joint))
    for depth, finger, joint in sorted(pieces, reverse=True):
        if finger < 0:
            outline = [(points[i][0], points[i][1]) for i in PALM_OUTLINE]
            draw.polygon(outline, fill=_shade(palette.palm, light(depth)))
            continue
        colour = _shade(palette.fingers[finger], light(depth))
        _draw_bone(draw, points[joint], points[joint + 1], width, rim, colour, palette.rim)


def _draw_bone(
    draw: ImageDraw.ImageDraw,
    start: list[float],
    end: list[float],
    width: float,
    rim: float,
    colour: tuple[int, int, int],
    rim_colour: tuple[int, int, int],
) -> None:
    line = (start[0], start[1], end[0], end[1])
    draw.line(line, fill=rim_colour, width=round(width + 2 * rim))
    draw.line(line, fill=colour, width=round(width))
    radius = width / 2 - 0.5
    for x, y in ((start[0], start[1]), (end[0], end[1])):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
