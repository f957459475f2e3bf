"""Drawing one hand: one colour per finger, nearer parts over farther ones.

Drawn with Pillow at OVERSAMPLING times the size and averaged down. Each piece of a finger has a dark rim, so that
fingers in front of each other stay apart, and is brighter the nearer it is to the camera.
"""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import ImageDraw

OVERSAMPLING = 3
# Hue, saturation and value of thumb, index, middle, ring and little finger: far apart for eyes and for a model.
FINGER_COLOURS = ((0.00, 0.78, 1.0), (0.14, 0.85, 1.0), (0.37, 0.75, 0.95), (0.55, 0.80, 1.0), (0.83, 0.60, 1.0))
PALM_COLOUR = (0.08, 0.22, 0.72)
BACKGROUND = (0.62, 0.35, 0.13)
PALM_OUTLINE = (0, 1, 2, 5, 9, 13, 17)
# Lengths as shares of the hand's size, which is HAND_SIZE_PALMS lengths of its palm: about the room it takes when open.
HAND_SIZE_PALMS = 2.45
FINGER_WIDTH = 0.068
RIM_WIDTH = 0.016
FOREARM_WIDTH = 1.7  # of a finger's width
FOREARM_LIGHT = 0.5
DEPTH_RANGE = 0.3  # this far behind the nearest part of the hand, shading is strongest
DEPTH_SHADING = 0.4

Colour = tuple[int, int, int]
Point = Sequence[float]  # x, y and depth in pixels, depth away from the viewer; NaN where it is missing


@dataclass(frozen=True)
class HandPalette:
    """Red, green and blue, 0 to 255, of what is drawn; fingers and palm are shaded, so theirs are not yet rounded."""

    fingers: tuple[tuple[float, float, float], ...]
    palm: tuple[float, float, float]
    rim: Colour
    background: Colour

    @staticmethod
    def of(hue: float = 0.0, brightness: float = 1.0, background: float = 1.0) -> "HandPalette":
        """Return the colours with a hue added to all, and fingers and palm, or the background, darker or brighter."""

        def colour(hsv: tuple[float, float, float], brightness: float) -> tuple[float, float, float]:
            rgb = colorsys.hsv_to_rgb((hsv[0] + hue) % 1, hsv[1], min(hsv[2] * brightness, 1))
            return (rgb[0] * 255, rgb[1] * 255, rgb[2] * 255)

        return HandPalette(
            fingers=tuple(colour(hsv, brightness) for hsv in FINGER_COLOURS),
            palm=colour(PALM_COLOUR, brightness),
            rim=shade(colour(BACKGROUND, 1.0), 0.5),
            background=shade(colour(BACKGROUND, background), 1.0),
        )


def shade(colour: tuple[float, float, float], light: float) -> Colour:
    """Return a colour in less light, 0 to 1."""
    return (int(colour[0] * light), int(colour[1] * light), int(colour[2] * light))


def draw_hand(
    draw: ImageDraw.ImageDraw, points: Sequence[Point], hand_size: float, line_width: float, palette: HandPalette
) -> None:
    """Draw a hand, the farthest part first.

    Args:
        draw: the picture, OVERSAMPLING times as large as it will be.
        points: MediaPipe's 21 landmarks. Parts with a missing point are left out.
        hand_size: in pixels, see HAND_SIZE_PALMS.
        line_width: 1 is the usual width of a finger.
        palette: the colours.
    """
    width = FINGER_WIDTH * hand_size * line_width
    rim = RIM_WIDTH * hand_size * line_width
    known = [point[0] == point[0] for point in points]  # NaN differs from itself
    nearest = min((point[2] for point, is_known in zip(points, known, strict=True) if is_known), default=0.0)

    def light(depth: float) -> float:
        return 1.0 - DEPTH_SHADING * min((depth - nearest) / (DEPTH_RANGE * hand_size), 1.0)

    pieces: list[tuple[float, int, int]] = []  # depth, finger, joint where the piece begins
    outline = [points[i] for i in PALM_OUTLINE if known[i]]
    if len(outline) > 2:
        pieces.append((sum(point[2] for point in outline) / len(outline), -1, 0))
    for finger in range(5):
        for joint in range(4 * finger + 1, 4 * finger + 4):
            if known[joint] and known[joint + 1]:
                pieces.append(((points[joint][2] + points[joint + 1][2]) / 2, finger, joint))
    for depth, finger, joint in sorted(pieces, reverse=True):
        if finger < 0:
            draw.polygon([(point[0], point[1]) for point in outline], fill=shade(palette.palm, light(depth)))
            continue
        colour = shade(palette.fingers[finger], light(depth))
        draw_bone(draw, points[joint], points[joint + 1], width, rim, colour, palette.rim)


def draw_bone(
    draw: ImageDraw.ImageDraw,
    start: Point,
    end: Point,
    width: float,
    rim: float,
    colour: Colour,
    rim_colour: Colour,
) -> None:
    """Draw a line with round ends between two points, with a rim along its sides. Widths are in pixels."""
    line = (start[0], start[1], end[0], end[1])
    draw.line(line, fill=rim_colour, width=round(width + 2 * rim))
    draw.line(line, fill=colour, width=round(width))
    radius = max(width / 2 - 0.5, 0.0)
    for x, y in ((start[0], start[1]), (end[0], end[1])):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
