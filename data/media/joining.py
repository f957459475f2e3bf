"""Clips of signs joined to one: which frames of each are shown, and how one fades into the next."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy

FADE_SECONDS = 0.25
"""For which two signs are seen at once: about as long as hands take from the end of one sign to the next."""


@dataclass(frozen=True)
class JoinedSign:
    """What is to be known of a sign's clip before it is joined."""

    frames: int
    moving: tuple[int, int] | None  # the first frame in which it moves, and the one after the last; None if it does not


@dataclass(frozen=True)
class Timeline:
    """When each of L signs is shown. All numbers are frames."""

    spans: tuple[tuple[int, int], ...]  # of each clip: the first that is shown, and the one after the last
    fades: tuple[int, ...]  # L - 1: how many a sign shares with the next

    @property
    def frames(self) -> int:
        """Of the whole."""
        return sum(stop - start for start, stop in self.spans) - sum(self.fades)

    @property
    def starts(self) -> tuple[int, ...]:
        """Where each sign's first frame is."""
        steps = (stop - start - fade for (start, stop), fade in zip(self.spans, self.fades, strict=False))
        return tuple(accumulate(steps, initial=0))

    @property
    def edges(self) -> numpy.ndarray:
        """When the signs begin and end, a fade divided in its middle: float64 [L + 1], rising from 0 to `frames`."""
        inner = [start + fade / 2 for start, fade in zip(self.starts[1:], self.fades, strict=True)]
        return numpy.array([0.0, *inner, self.frames], numpy.float64)


def plan_timeline(signs: Sequence[JoinedSign], frames_per_second: float) -> Timeline:
    """Return how signs are joined, at least one.

    Clips of a dictionary begin and end at rest. The first sign keeps the rest before it and the last one that after it;
    else a clip is shown while it moves, and half a fade longer, so that hands fade as they come to rest. A clip that
    does not move is shown whole. A fade takes no more than half of what is shown of a clip.
    """
    fade = max(1, round(FADE_SECONDS * frames_per_second))
    spans = []
    for place, sign in enumerate(signs):
        start, stop = (0, sign.frames) if sign.moving is None else sign.moving
        margin = -(-fade // 2)
        start = 0 if place == 0 else max(start - margin, 0)
        stop = sign.frames if place == len(signs) - 1 else min(stop + margin, sign.frames)
        spans.append((start, stop))
    lengths = [stop - start for start, stop in spans]
    fades = [min(fade, one // 2, other // 2) for one, other in pairwise(lengths)]
    return Timeline(tuple(spans), tuple(fades))


def join_clips(clips: Sequence[numpy.ndarray], timeline: Timeline) -> numpy.ndarray:
    """Return the clips, uint8 [T, H, W, 3] of one H and W, as one: uint8 [timeline.frames, H, W, 3]."""
    joined = numpy.empty((timeline.frames, *clips[0].shape[1:]), numpy.uint8)
    fades = (0, *timeline.fades)
    for clip, (start, stop), place, fade in zip(clips, timeline.spans, timeline.starts, fades, strict=True):
        time_F111 = (numpy.arange(1, fade + 1, dtype=numpy.float32) / (fade + 1))[:, None, None, None]
        weight_F111 = time_F111**2 * (3 - 2 * time_F111)  # begins and ends gently
        before = joined[place : place + fade].copy()
        joined[place : place + stop - start] = clip[start:stop]
        blended = before + weight_F111 * (clip[start : start + fade].astype(numpy.float32) - before)
        joined[place : place + fade] = blended.round()
    return joined
