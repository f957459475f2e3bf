"""Lines and shapes through landmarks, of which some may be missing."""

from dataclasses import dataclass

import numpy
from PIL import ImageDraw

from data.hand_drawing import Colour, HandPalette, draw_bone

PALETTE = HandPalette.of()


@dataclass(frozen=True)
class Pen:
    """Draws one frame. Points are [N, 2 or 3] in the drawing's pixels, NaN where they are missing."""

    draw: ImageDraw.ImageDraw
    unit: float  # width of the shoulders in the drawing's pixels; widths are given as shares of it
    oversampling: int  # pixels of the drawing for one of the finished picture

    def limb(self, ends: numpy.ndarray, width: float, colour: Colour, rim: float = 0.0) -> None:
        """Draw a thick line with round ends, with a dark rim along its sides, if both ends are known."""
        if are_known(ends):
            start, end = ends.tolist()
            draw_bone(self.draw, start, end, width * self.unit, rim * self.unit, colour, PALETTE.rim)

    def stroke(self, points: numpy.ndarray, width: float, colour: Colour) -> None:
        """Draw a line through the points that are known."""
        known = points[numpy.isfinite(points).all(-1), :2]
        if len(known) > 1:
            self.draw.line(known.ravel().tolist(), fill=colour, width=max(1, round(width * self.unit)), joint="curve")

    def shape(self, points: numpy.ndarray, colour: Colour) -> None:
        """Fill the closed line through the points that are known."""
        known = points[numpy.isfinite(points).all(-1), :2]
        if len(known) > 2:
            self.draw.polygon(known.ravel().tolist(), fill=colour)

    def oval(self, centre: numpy.ndarray, half_width: float, half_height: float, colour: Colour) -> None:
        """Fill an oval around a point that is known; its halves are in the drawing's pixels."""
        x, y = centre[:2].tolist()
        self.draw.ellipse((x - half_width, y - half_height, x + half_width, y + half_height), fill=colour)


def are_known(points: numpy.ndarray) -> bool:
    """Return whether no point is missing."""
    return bool(numpy.isfinite(points).all())
