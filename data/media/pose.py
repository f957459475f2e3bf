"""Poses as clips: `.pose` files of whole signs, as lexicons have them, drawn as a signer seen from the front."""

from data.manifest import WHOLE, TimeSpan
from data.media.budget import check_duration, check_frame_count
from data.media.choosing import begins_within
from data.media.files import SourceFile
from data.media.pose_drawing import draw_signer, place_in_window
from data.media.pose_file import PoseFile, read_pose_file
from data.media.pose_landmarks import find_signer
from data.media.resample import ClipShape, DecodedClip, MediaFacts, uniform_indices
from data.unusable import UnusableClip

MOST_POSE_FRAMES = 10_000  # of the clip: the landmarks of them all are held in memory


def decode_pose(file: SourceFile, shape: ClipShape, span: TimeSpan = WHOLE) -> DecodedClip:
    """Return a pose file, or a part of it, resampled over its whole duration and drawn.

    Drawn is the upper body, and the whole of what the hands do. Where a file holds more than one person, the first is
    drawn and the others are not. The window is square and stays where it is, so the shape's `fit` makes no difference.

    Args:
        file: of format version 0.1 or 0.2, with the landmarks of MediaPipe Holistic.
        shape: of the result.
        span: the part of the file that is the clip. An end after the file's end means the file's end.

    Raises:
        UnusableClip: the file is damaged, empty, too large, no pose, or shows no hand; or the span begins after it.
    """
    pose = read_pose_file(file)
    frames, start_times, seconds = _frames_within(pose, span)
    placed = place_in_window(find_signer(pose, frames))
    pixels = draw_signer(placed, uniform_indices(start_times, seconds, shape.num_frames), shape.image_size)
    return DecodedClip(pixels, MediaFacts(pose.width, pose.height, len(start_times), seconds))


def _frames_within(pose: PoseFile, span: TimeSpan) -> tuple[slice, list[float], float]:
    """Return which frames a span has, when each begins, and their seconds."""
    total = len(pose.points)
    times = [number / pose.frames_per_second for number in range(total)]
    within = [number for number, time in enumerate(times) if begins_within(time, span)]
    if not within:
        end = "the end" if span.end is None else f"{span.end:g}"
        raise UnusableClip(
            f"has no frames between {span.start:g} and {end} seconds: it lasts {total / pose.frames_per_second:.3g}"
        )
    check_frame_count(len(within))
    if len(within) > MOST_POSE_FRAMES:
        raise UnusableClip(f"has {len(within)} frames; {MOST_POSE_FRAMES} is the most for a pose")
    frames = slice(within[0], within[-1] + 1)
    seconds = len(within) / pose.frames_per_second
    if span.end is not None:
        seconds = min(seconds, span.end - times[within[0]])
    check_duration(seconds)
    return frames, times[frames], seconds
