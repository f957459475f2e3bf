"""Any clip of a data set: what it shows, and whether it is still the same."""

import hashlib
from pathlib import Path

from data.media.budget import check_duration, check_frame_count
from data.media.containers import check_kind
from data.media.files import FileInTar, PlainFile, SourceFile, inside, inside_file
from data.media.frames import FrameFolder, decode_frames
from data.media.pose_drawing import draw_signer
from data.media.pose_file import PoseFile, read_pose_file
from data.media.pose_landmarks import find_signer
from data.media.resample import ClipShape, DecodedClip, MediaFacts, begins_within, uniform_indices
from data.media.video import decode_video
from data.rows import WHOLE, Media, TimeSpan, UnusableClip

DECODING_VERSION = 6  # raised when the same file would decode differently: old cache entries then do not count
MOST_POSE_FRAMES = 10_000  # of the clip: the landmarks of them all are held in memory


def decode_media(root: Path, media: Media, shape: ClipShape, known: MediaFacts | None = None) -> DecodedClip:
    """Return a clip, resampled over its full duration; `known` is what was found out about it before.

    Raises:
        UnusableClip: it cannot be used; the message says why.
    """
    opened = open_media(root, media)
    if isinstance(opened, FrameFolder):
        return decode_frames(opened, shape, media.span, known)
    if media.kind == "pose":
        return decode_pose(opened, shape, media.span)
    return decode_video(opened, shape, media.span, known)


def decode_pose(file: SourceFile, shape: ClipShape, span: TimeSpan = WHOLE) -> DecodedClip:
    """Return a pose file, or a part of it, resampled over its full duration and drawn as a signer seen from the front.

    Drawn is the upper body and everything that the hands do. If a file holds more than one person, only the first is
    drawn. The window stays where it is and has the shape of the result, so `fit` makes no difference.

    Args:
        file: of format version 0.1 or 0.2, with the landmarks of MediaPipe Holistic.
        shape: of the result.
        span: the part of the file that is the clip. An end after the file's end means the file's end.

    Raises:
        UnusableClip: the file is damaged, empty, too large, no pose, or shows no hand; or the span begins after it.
    """
    pose = read_pose_file(file)
    frames, start_times, seconds = _frames_within(pose, span)
    wanted = uniform_indices(start_times, seconds, shape.lengths.of(seconds))
    pixels = draw_signer(find_signer(pose, frames), wanted, shape.image_size)
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


def media_digest(root: Path, media: Media) -> str:
    """Return the sha256 of what a clip's file or folder holds; a span of it does not count.

    Raises:
        UnusableClip: it is gone, too large to be read in reasonable time, or no video.
    """
    opened = open_media(root, media)
    try:
        if isinstance(opened, FrameFolder):
            return opened.digest()
        if media.kind == "video":
            check_kind(opened)
        opened.check_size()
        return opened.digest()
    except OSError as error:
        raise UnusableClip(f"cannot be read ({error.strerror})") from error


def media_stamp(root: Path, media: Media) -> str:
    """Return what the file system knows of a clip's files; while it is the same, so are they. Nothing is opened.

    Raises:
        UnusableClip: they are gone.
    """
    opened = open_media(root, media)
    try:
        if isinstance(opened, FrameFolder):
            statuses = [(root / name).stat() for name in opened.names()]
        else:
            statuses = [opened.path.stat()]
    except OSError as error:
        raise UnusableClip(f"cannot be read ({error.strerror})") from error
    # Only the time of the last change (ctime) cannot be set back when a file is rewritten.
    facts = [(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino) for status in statuses]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]


def open_media(root: Path, media: Media) -> SourceFile | FrameFolder:
    """Return what holds a clip, which must lie within the root or where the clip may lead.

    Raises:
        UnusableClip: it does not, or is not there.
    """
    if media.kind == "frames":
        if not inside(root, media.path, media.allowed).is_dir():
            raise UnusableClip("is not a folder of frames")
        return FrameFolder(root, media.path, media.frames_per_second, media.allowed)
    path = inside_file(root, media.path, media.allowed)
    if media.member is not None:
        return FileInTar(path, media.member.offset, media.member.size, media.member.suffix.lower())
    return PlainFile(path)
