"""Reading `.pose` files that may be damaged, mislabelled or hostile.

A header says how many names and numbers follow. Both counts are compared with the file's length first, so that no
header can ask for more memory or time than its file could fill.
"""

import struct
from dataclasses import dataclass
from typing import Any

import numpy
from pose_format.numpy import NumPyPoseBody
from pose_format.pose_header import PoseHeader
from pose_format.utils.reader import BufferReader

from data.media.budget import check_duration, check_frame_count
from data.media.files import SourceFile, printable
from data.rows import UnusableClip

MOST_POSE_BYTES = 1 << 26  # four minutes of MediaPipe Holistic at 30 frames a second; reading takes three times as much
MOST_HEADER_READS = 50_000  # MediaPipe Holistic takes 4,000
MOST_FRAMES_PER_SECOND = 1000.0
LEAST_FRAMES_PER_SECOND = 1.0
_BODY_HEADERS = {0.1: "<HHH", 0.2: "<fIH"}  # by version: frames a second, frames, people
_NUMBER_BYTES = 4
_POINT_FORMATS = {"XYC", "XYZC", "XYZKC"}  # places and confidence
_NAME_LENGTH = 40  # of a name in a message


@dataclass(frozen=True)
class PoseFile:
    """What a file says of its first person."""

    width: int  # of the canvas, in its own units
    height: int
    frames_per_second: float
    components: tuple[tuple[str, tuple[str, ...]], ...]  # each one's name and those of its points, in their order
    points: numpy.ndarray  # float32 [F, P, 3]: x to the right, y downwards, depth away; NaN where a point is missing


def read_pose_file(file: SourceFile) -> PoseFile:
    """Read a file of format version 0.1 or 0.2.

    Raises:
        UnusableClip: it is empty, too large, damaged, or no pose.
    """
    content = _content(file)
    version = _version(content)
    reader = _BoundedReader(content)
    try:
        header = PoseHeader.read(reader)
    except (struct.error, TypeError) as error:  # a number, or a table of them, reaches over the end
        raise UnusableClip("is cut off: it ends within its header") from error
    except UnicodeDecodeError as error:
        raise UnusableClip("has a damaged header: a name in it is not text") from error
    _check_header(header)
    rate = _check_body(content, version, header, reader.read_offset)
    body = NumPyPoseBody.read(header, reader)
    return PoseFile(
        width=header.dimensions.width,
        height=header.dimensions.height,
        frames_per_second=rate,
        components=tuple((component.name, tuple(component.points)) for component in header.components),
        points=_points(body),
    )


def _content(file: SourceFile) -> bytes:
    try:
        size = file.check_size()
        if size > MOST_POSE_BYTES:
            raise UnusableClip(f"is larger than {MOST_POSE_BYTES >> 20} MiB, the most for a pose")
        return file.read_bytes(size)
    except OSError as error:
        raise UnusableClip(f"cannot be read ({error.strerror})") from error


class _BoundedReader(BufferReader):  # type: ignore[misc]  # the package is not annotated
    """Gives up on a header that has more parts than any that is known."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self._reads = 0

    def unpack(self, s: struct.Struct) -> Any:
        self._reads += 1
        if self._reads > MOST_HEADER_READS:
            raise UnusableClip("has a header with too many names, which no known kind of pose needs")
        return super().unpack(s)


def _version(content: bytes) -> float:
    if len(content) < _NUMBER_BYTES:
        raise UnusableClip("is too short for a .pose file")
    version = round(struct.unpack_from("<f", content)[0], 3)
    if version not in _BODY_HEADERS:
        raise UnusableClip("is not a .pose file of version 0.1 or 0.2")
    return version


def _check_header(header: PoseHeader) -> None:
    size = header.dimensions
    if min(size.width, size.height) == 0:
        raise UnusableClip(f"has a canvas of {size.width} x {size.height}")
    formats = {component.format for component in header.components}
    if len(formats) != 1:
        raise UnusableClip("has no points" if not formats else "has points in more than one format")
    if not formats <= _POINT_FORMATS:
        raise UnusableClip(f"has points in the format {printable(formats.pop())[:_NAME_LENGTH]!r}, which is unknown")


def _check_body(content: bytes, version: float, header: PoseHeader, offset: int) -> float:
    """Return the frames a second, after a check that the file is as long as its header says."""
    layout = struct.Struct(_BODY_HEADERS[version])
    if len(content) - offset < layout.size:
        raise UnusableClip("is cut off: it ends with its header")
    rate, frames, people = layout.unpack_from(content, offset)
    points = header.total_points()
    if people == 0 or points == 0:
        raise UnusableClip("has no person" if people == 0 else "has no points")
    check_frame_count(frames)
    needed = frames * people * points * (header.num_dims() + 1) * _NUMBER_BYTES
    found = len(content) - offset - layout.size
    if found < needed:
        raise UnusableClip(f"is cut off: {found} of {needed} bytes of its points are there")
    if found > needed:
        raise UnusableClip(f"is damaged: its header asks for {needed} bytes of points, and {found} are there")
    if not LEAST_FRAMES_PER_SECOND <= rate <= MOST_FRAMES_PER_SECOND:
        raise UnusableClip(
            f"has {rate:g} frames a second; from {LEAST_FRAMES_PER_SECOND:g} to {MOST_FRAMES_PER_SECOND:g} are possible"
        )
    check_duration(frames / rate)
    return float(rate)


def _points(body: NumPyPoseBody) -> numpy.ndarray:
    """Return the first person's points; what has no confidence, or no finite place, is missing."""
    stored = body.data.data[:, 0, :, :3]
    confidence = body.confidence[:, 0]
    points = numpy.zeros((*stored.shape[:2], 3), numpy.float32)  # points in the plane have the depth 0
    points[..., : stored.shape[2]] = stored
    is_missing = (confidence == 0) | numpy.isnan(confidence) | ~numpy.isfinite(points).all(-1)
    points[is_missing] = numpy.nan
    return points
