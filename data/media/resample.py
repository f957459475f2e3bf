"""From decoded frames to the few small ones that a model sees, all of one shape.

Which frames a clip consists of is known only when all have been decoded, counted and timed. Decoding is what takes
long, so a guess from the container's timestamps says in advance which frames those will probably be. Every frame is
then decoded once and only the expected ones are kept, resized: memory holds no more than one full-sized frame at a
time. If the guess was wrong, the file is decoded once more; and so it is if frames are to be cut to the region in which
the clip moves, and nobody knows that yet.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy
import torch
from PIL import Image

from common.vision import v2
from data.lengths import ClipLengths
from data.media.budget import check_duration, check_frame_count
from data.media.motion import WATCHED_FRAMES, Region, grey_copy, moving_region
from data.rows import WHOLE, TimeSpan, UnusableClip

BACKGROUND = (255, 255, 255)  # behind what is transparent: as most pages show it
ROUNDING = 1e-6  # seconds: a frame that appears at just this moment counts, however its time was rounded
LEAST_MISSING_SECONDS, LEAST_MISSING_SHARE = 0.2, 0.1  # of a part, that its file may lack: lists are rounded

Fit = Literal["crop", "pad", "signer"]
Change = Literal["turned", "mirrored", "transparent", "tone-mapped"]  # what was done to the pictures as they are stored
Turn = tuple[bool, bool, bool]  # rows become columns, then the columns are reversed, then the rows
UPRIGHT: Turn = (False, False, False)


@dataclass(frozen=True)
class ClipShape:
    """What shape a training's clips have."""

    lengths: ClipLengths  # T, by a clip's duration, over all of which it is resampled
    image_size: tuple[int, int]  # H and W
    fit: Fit = "crop"  # how a picture gets the proportions of H and W: by its centre, in full, or by what moves


@dataclass(frozen=True)
class MediaFacts:
    """What a clip was before it was resampled."""

    width: int  # as it is shown: turned upright, with square pixels
    height: int
    frames: int
    seconds: float
    changes: tuple[Change, ...] = ()
    region: Region | None = None  # in which the clip moves; None if it does not, or is drawn


@dataclass(frozen=True)
class NeededFrames:
    """Numbers of frames, in order; they may repeat."""

    shown: tuple[int, ...] = ()  # that the clip will consist of
    watched: tuple[int, ...] = ()  # that tell where it moves


@dataclass(frozen=True)
class DecodedClip:
    """A clip as the training sees it."""

    pixels_THWC: numpy.ndarray  # uint8 [T, *image_size, 3], red, green, blue
    facts: MediaFacts


@dataclass(frozen=True)
class Frame:
    """One decoded frame. Valid until the next one is asked for."""

    start_time: float  # seconds after the file's first frame
    duration: float  # seconds for which it is shown if it is the last one
    pixels: Callable[[], numpy.ndarray]  # makes uint8 [H, W, 3], upright
    pixel_aspect: float = 1.0  # width over height of one of these pixels
    changes: frozenset[Change] = frozenset()


Frames = Generator[Frame, None, None]


def needed_frames(start_times: Sequence[float], seconds: float, lengths: ClipLengths) -> NeededFrames:
    """Return which frames are needed of a clip whose frames appear at these times, which rise; none if it has none.

    Where it moves is told from as many frames whatever its length will be, so that the region is always the same.
    """
    if not start_times:
        return NeededFrames()
    counts = (lengths.of(seconds), WATCHED_FRAMES)
    return NeededFrames(*(tuple(uniform_indices(start_times, seconds, count)) for count in counts))


def choose_frames(
    open_frames: Callable[[], Frames],
    expected: NeededFrames,
    shape: ClipShape,
    span: TimeSpan,
    known: MediaFacts | None = None,
) -> DecodedClip:
    """Resample a clip over its full duration.

    Args:
        open_frames: starts a pass through the file; it may begin before the span and go on after it.
        expected: guess at the numbers, within the span, of the frames that will be needed. Only speed depends on it.
        shape: of the result.
        span: the part of the file that is the clip.
        known: what was found out about the clip before, of which the region is used.

    Raises:
        UnusableClip: there are too few or too many frames, or their times make no sense.
    """
    region = None if known is None else known.region
    watched = expected.watched if known is None else ()
    shown = () if known is None and shape.fit == "signer" else expected.shown  # not before the region is known
    taken = _one_pass(open_frames(), shape, span, region, kept=NeededFrames(shown, watched))
    needed = needed_frames(taken.start_times, taken.seconds, shape.lengths)
    if known is None:
        if not taken.watched.keys() >= set(needed.watched):
            kept = replace(needed, shown=()) if shape.fit == "signer" else needed
            taken = _one_pass(open_frames(), shape, span, None, kept=kept)
        region = moving_region([taken.watched[index] for index in needed.watched])
    if not taken.shown.keys() >= set(needed.shown):
        taken = _one_pass(open_frames(), shape, span, region, kept=replace(needed, watched=()))
    changes = tuple(change for change in get_args(Change) if change in taken.changes)
    facts = MediaFacts(*taken.size, len(taken.start_times), taken.seconds, changes, region)
    return DecodedClip(numpy.stack([taken.shown[index] for index in needed.shown]), facts)


@dataclass(frozen=True)
class _Taken:
    """What one pass through a file found within the span."""

    start_times: Sequence[float]  # seconds, rising
    seconds: float  # from the first frame's appearance to the end of the last
    shown: dict[int, numpy.ndarray]  # by the number of the frame: uint8 [*image_size, 3]
    watched: dict[int, numpy.ndarray]  # the same: of `grey_copy`
    size: tuple[int, int]  # width and height as shown, of the last frame that was kept
    changes: frozenset[Change]


def _one_pass(frames: Frames, shape: ClipShape, span: TimeSpan, region: Region | None, *, kept: NeededFrames) -> _Taken:
    """Decode, count and time all frames, and keep some."""
    start_times: list[float] = []
    last_duration = 0.0
    kept_shown, kept_watched = frozenset(kept.shown), frozenset(kept.watched)
    shown: dict[int, numpy.ndarray] = {}
    watched: dict[int, numpy.ndarray] = {}
    size = (0, 0)
    changes = frozenset[Change]()
    with closing(frames):
        for frame in frames:
            if not begins_within(frame.start_time, span):
                continue
            number = len(start_times)
            if number in kept_shown or number in kept_watched:
                pixels = frame.pixels()
                if number in kept_shown:
                    shown[number] = fitted(pixels, shape, frame.pixel_aspect, region)
                if number in kept_watched:
                    watched[number] = grey_copy(pixels)
                size = (round(pixels.shape[1] * frame.pixel_aspect), pixels.shape[0])
            start_times.append(frame.start_time)
            changes |= frame.changes
            last_duration = frame.duration
    if not start_times and span != WHOLE:
        raise UnusableClip(f"has no frames between {span.start:g} and {span.end or 'the end'} seconds")
    check_frame_count(len(start_times))
    start_times.sort()
    if start_times[0] == start_times[-1]:
        raise UnusableClip("shows all of its frames at one moment, by their timestamps")
    seconds = start_times[-1] - start_times[0] + last_duration
    if span.end is not None:
        ends = start_times[-1] + last_duration
        # A part that goes on well after its file has ended would lack signs that its caption names.
        if ends < span.end - max(LEAST_MISSING_SECONDS, LEAST_MISSING_SHARE * (span.end - span.start)):
            part = f"from {span.start:g} to {span.end:g}"
            raise UnusableClip(f"ends after {ends:.6g} seconds, before its part {part} does")
        seconds = min(seconds, span.end - start_times[0])
    check_duration(seconds)
    return _Taken(start_times, seconds, shown, watched, size, changes)


def begins_within(start_time: float, span: TimeSpan) -> bool:
    """Return whether a frame that appears at this moment belongs to the span."""
    return start_time >= span.start - ROUNDING and (span.end is None or start_time < span.end - ROUNDING)


def uniform_indices(start_times: Sequence[float], duration: float, num_frames: int) -> list[int]:
    """Return which frames are on the screen in the middles of `num_frames` equal parts of the duration.

    The clip is always shown from beginning to end: a part of it against its full caption would teach the wrong thing.
    Short clips repeat frames.

    `start_times` say when each frame appears, in seconds, rising; the first counts as the beginning. `duration` is in
    seconds, from there to the end of the last frame.
    """
    times = (numpy.arange(num_frames) + 0.5) / num_frames * duration + ROUNDING
    starts = numpy.asarray(start_times) - start_times[0]
    indices = numpy.searchsorted(starts, times, side="right") - 1
    return [int(index) for index in numpy.clip(indices, 0, len(starts) - 1)]


def nearest_turn(a: float, b: float, c: float, d: float) -> Turn:
    """Return the turn that is nearest to a matrix, by which the point (x, y) moves to (a x + c y, b x + d y)."""
    if abs(b) + abs(c) > abs(a) + abs(d):
        return True, c < 0, b < 0
    return False, a < 0, d < 0


def turned(pixels: numpy.ndarray, turn: Turn) -> numpy.ndarray:
    """Return a picture, [H, W, 3], as it is to be shown."""
    lies_on_its_side, reverses_columns, reverses_rows = turn
    pixels = pixels.swapaxes(0, 1) if lies_on_its_side else pixels
    return pixels[:: -1 if reverses_rows else 1, :: -1 if reverses_columns else 1]


def turn_changes(turn: Turn) -> frozenset[Change]:
    """Return what a turn does to a picture. Any of them is a rotation, or a rotation of the mirrored picture."""
    changes: dict[Change, bool] = {"turned": turn[0] or turn[2], "mirrored": sum(turn) % 2 == 1}
    return frozenset(change for change, is_made in changes.items() if is_made)


def rgb_pixels(image: Image.Image) -> numpy.ndarray:
    """Return a picture of any mode as uint8 [H, W, 3]; what is transparent becomes white."""
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        ground = Image.new("RGBA", layer.size, (*BACKGROUND, 255))
        return numpy.asarray(Image.alpha_composite(ground, layer).convert("RGB"))
    if image.mode.startswith("I") or image.mode == "F":  # more than 8 bits a pixel: convert() would cut, not scale
        values = numpy.asarray(image, dtype=numpy.float64)
        grey = (values / max(float(values.max()), 255.0) * 255).round().astype(numpy.uint8)
        return numpy.repeat(grey[:, :, None], 3, axis=2)
    return numpy.asarray(image.convert("RGB"))


def fitted(
    frame: numpy.ndarray, shape: ClipShape, pixel_aspect: float = 1.0, region: Region | None = None
) -> numpy.ndarray:
    """Give a frame the proportions of a shape without distorting it, and resize it, antialiased.

    Args:
        frame: uint8 [H, W, 3], which becomes uint8 [*image_size, 3]. What the picture lacks is black.
        shape: its `fit` says what is kept; see `window`.
        pixel_aspect: width of one pixel over its height, as the frame is meant to be shown.
        region: in which the clip moves.
    """
    height, width = frame.shape[0], frame.shape[1] * pixel_aspect  # in heights of a pixel
    top, left, rows, columns = window(height, width, shape, region)
    tall, wide = shape.image_size
    cut = _cut(
        frame, max(top, 0.0), max(left, 0.0) / pixel_aspect, min(rows, height), min(columns, width) / pixel_aspect
    )
    inner = _resize(cut, max(1, round(tall * min(height / rows, 1))), max(1, round(wide * min(width / columns, 1))))
    if inner.shape == (tall, wide, 3):
        return inner
    whole = numpy.zeros((tall, wide, 3), numpy.uint8)
    top_left = (tall - inner.shape[0]) // 2, (wide - inner.shape[1]) // 2
    whole[top_left[0] : top_left[0] + inner.shape[0], top_left[1] : top_left[1] + inner.shape[1]] = inner
    return whole


def window(height: float, width: float, shape: ClipShape, region: Region | None) -> tuple[float, float, float, float]:
    """Return top, left, height and width of what is shown of a picture, in its units; it may go beyond the picture.

    It has the proportions of the shape. "crop" takes the largest in the picture's middle, "pad" the smallest that holds
    the picture, and "signer" the smallest that holds the region, moved into the picture. Without a region "signer" does
    as "crop" does.
    """
    aspect = shape.image_size[1] / shape.image_size[0]
    if shape.fit == "signer" and region is not None:
        top, left = region.top * height, region.left * width
        rows, columns = (region.bottom - region.top) * height, (region.right - region.left) * width
    else:
        top, left, rows, columns = 0.0, 0.0, height, width
    choose = min if shape.fit == "crop" or (shape.fit == "signer" and region is None) else max
    tall, wide = choose(rows, columns / aspect), choose(columns, rows * aspect)
    return _moved(top + (rows - tall) / 2, tall, height), _moved(left + (columns - wide) / 2, wide, width), tall, wide


def _moved(start: float, length: float, available: float) -> float:
    """Return where a part begins that is moved into what is available, or around its middle if that is too small."""
    rest = available - length
    return rest / 2 if rest < 0 else min(max(start, 0.0), rest)


def _cut(frame: numpy.ndarray, top: float, left: float, rows: float, columns: float) -> numpy.ndarray:
    """Return a part of a frame, in its pixels, of at least one."""
    height, width = max(1, round(rows)), min(max(1, round(columns)), frame.shape[1])
    first, second = min(int(top), frame.shape[0] - height), min(int(left), frame.shape[1] - width)
    return frame[first : first + height, second : second + width]


def _resize(frame: numpy.ndarray, height: int, width: int) -> numpy.ndarray:
    image_CHW = torch.from_numpy(frame.copy()).permute(2, 0, 1)
    resized_CHW = v2.functional.resize(image_CHW, [height, width], antialias=True)
    return numpy.ascontiguousarray(resized_CHW.permute(1, 2, 0).numpy())
