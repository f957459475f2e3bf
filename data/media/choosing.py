"""Which frames of a clip are kept, and keeping no others.

Which frames a clip consists of is known only when all have been decoded, counted and timed. Decoding is what takes
long, so a guess from the container's timestamps says in advance which frames those will probably be. Every frame is
then decoded once and only the expected ones are kept, resized: memory holds no more than one full-sized frame at a
time. Where the guess was wrong, the file is gone through once more.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

import numpy

from data.manifest import WHOLE, TimeSpan
from data.media.budget import check_duration, check_frame_count
from data.media.resample import ROUNDING, ClipShape, DecodedClip, MediaFacts, square_resize, uniform_indices
from data.unusable import UnusableClip

LEAST_MISSING_SECONDS, LEAST_MISSING_SHARE = 0.2, 0.1  # of a part, that its file may lack: lists are rounded


class Frame(Protocol):
    """One decoded frame. Valid until the next one is asked for."""

    @property
    def start_time(self) -> float:
        """Seconds after the file's first frame."""
        ...

    @property
    def duration(self) -> float:
        """Seconds for which it is shown if it is the last one."""
        ...

    @property
    def pixel_aspect(self) -> float:
        """Width of a pixel over its height, of what `pixels` returns."""
        ...

    def pixels(self) -> numpy.ndarray:
        """Return uint8 [H, W, 3], upright."""
        ...


Frames = Generator[Frame, None, None]


def begins_within(start_time: float, span: TimeSpan) -> bool:
    """Return whether a frame that appears at this moment belongs to the span."""
    return start_time >= span.start - ROUNDING and (span.end is None or start_time < span.end - ROUNDING)


def choose_frames(
    open_frames: Callable[[], Frames], expected: frozenset[int], shape: ClipShape, span: TimeSpan
) -> DecodedClip:
    """Resample a clip over its whole duration.

    Args:
        open_frames: starts a pass through the file; it may begin before the span and go on after it.
        expected: guess at the numbers, within the span, of the frames that will be wanted. Only speed depends on it.
        shape: of the result.
        span: the part of the file that is the clip.

    Raises:
        UnusableClip: there are too few or too many frames, or their times make no sense.
    """
    taken = _one_pass(open_frames(), shape, span, kept=expected)
    wanted = uniform_indices(taken.start_times, taken.seconds, shape.num_frames)
    if not taken.kept.keys() >= set(wanted):
        taken = _one_pass(open_frames(), shape, span, kept=frozenset(wanted))
    facts = MediaFacts(*taken.size, frames=len(taken.start_times), seconds=taken.seconds)
    return DecodedClip(numpy.stack([taken.kept[index] for index in wanted]), facts)


def _check_end(ends: float, span: TimeSpan) -> None:
    """Refuse a part that goes on well after its file has ended: the rest of it would go with the whole caption."""
    assert span.end is not None
    if ends < span.end - max(LEAST_MISSING_SECONDS, LEAST_MISSING_SHARE * (span.end - span.start)):
        raise UnusableClip(f"ends after {ends:.6g} seconds, before its part from {span.start:g} to {span.end:g} does")


@dataclass(frozen=True)
class _Taken:
    """What one pass through a file found within the span."""

    start_times: Sequence[float]  # seconds, rising
    seconds: float  # from the first frame's appearance to the end of the last
    kept: dict[int, numpy.ndarray]  # by the number of the frame: uint8 [image_size, image_size, 3]
    size: tuple[int, int]  # width and height as shown, of the first frame that was kept


def _one_pass(frames: Frames, shape: ClipShape, span: TimeSpan, *, kept: frozenset[int]) -> _Taken:
    """Decode, count and time all frames, and keep some."""
    start_times: list[float] = []
    last_duration = 0.0
    images: dict[int, numpy.ndarray] = {}
    size = (0, 0)
    with closing(frames):
        for frame in frames:
            if not begins_within(frame.start_time, span):
                continue
            if len(start_times) in kept:
                pixels = frame.pixels()
                images[len(start_times)] = square_resize(pixels, shape, frame.pixel_aspect)
                size = (round(pixels.shape[1] * frame.pixel_aspect), pixels.shape[0])
            start_times.append(frame.start_time)
            last_duration = frame.duration
    if not start_times and span != WHOLE:
        raise UnusableClip(f"has no frames between {span.start:g} and {span.end or 'the end'} seconds")
    check_frame_count(len(start_times))
    start_times.sort()
    if start_times[0] == start_times[-1]:
        raise UnusableClip("shows all of its frames at one moment, by their timestamps")
    seconds = start_times[-1] - start_times[0] + last_duration
    if span.end is not None:
        _check_end(start_times[-1] + last_duration, span)
        seconds = min(seconds, span.end - start_times[0])
    check_duration(seconds)
    return _Taken(start_times, seconds, images, size)
