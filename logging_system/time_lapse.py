"""The first prompts' clips at earlier sampling points of this launch, in bounded memory."""

import numpy

MAXIMUM_POINTS = 8
MAXIMUM_PROMPTS = 3


class TimeLapse:
    """Keeps the first and the latest point, and points evenly between them."""

    def __init__(self) -> None:
        self._points: list[tuple[int, numpy.ndarray]] = []

    def add(self, step: int, videos_NTHWC: numpy.ndarray) -> None:
        """Keep the first prompts' clips of `step`."""
        self._points.append((step, videos_NTHWC[:MAXIMUM_PROMPTS].copy()))
        if len(self._points) > MAXIMUM_POINTS:
            self._drop_most_crowded()

    def _drop_most_crowded(self) -> None:
        """Drop the inner point whose neighbours lie closest together."""
        steps = [step for step, _ in self._points]
        gaps = [steps[index + 1] - steps[index - 1] for index in range(1, len(steps) - 1)]
        del self._points[1 + gaps.index(min(gaps))]

    @property
    def points(self) -> list[tuple[int, numpy.ndarray]]:
        """(step, clips [N, T, H, W, 3]), oldest first."""
        return list(self._points)
