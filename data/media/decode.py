"""Any clip of a manifest: whether it is still the same, and what it shows."""

import hashlib
from pathlib import Path

from data.manifest import Media
from data.media.files import FileInTar, PlainFile, SourceFile
from data.media.frames import FrameFolder, decode_frames
from data.media.pose import decode_pose
from data.media.resample import ClipShape, DecodedClip
from data.media.video import check_kind, decode_video
from data.paths import inside, inside_file
from data.unusable import UnusableClip

DECODING_VERSION = 3  # raised when the same file would decode differently: old cache entries then do not count


def decode_media(root: Path, media: Media, shape: ClipShape) -> DecodedClip:
    """Return a clip, resampled over its whole duration.

    Raises:
        UnusableClip: it cannot be used; the message says why.
    """
    opened = open_media(root, media)
    if isinstance(opened, FrameFolder):
        return decode_frames(opened, shape, media.span)
    if media.kind == "pose":
        return decode_pose(opened, shape, media.span)
    return decode_video(opened, shape, media.span)


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
            statuses = [(opened.tar if isinstance(opened, FileInTar) else opened.path).stat()]
    except OSError as error:
        raise UnusableClip(f"cannot be read ({error.strerror})") from error
    # Only the time of the last change (ctime) cannot be set back by whoever writes a file anew.
    facts = [(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino) for status in statuses]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]


def open_media(root: Path, media: Media) -> SourceFile | FrameFolder:
    """Return what holds a clip, which must lie within the root.

    Raises:
        UnusableClip: it does not, or is not there.
    """
    if media.kind == "frames":
        if not inside(root, media.path).is_dir():
            raise UnusableClip("is not a folder of frames")
        return FrameFolder(root, media.path, media.frames_per_second)
    path = inside_file(root, media.path)
    if media.member is not None:
        return FileInTar(path, media.member.offset, media.member.size, media.member.suffix.lower())
    return PlainFile(path)
