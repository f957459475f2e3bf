"""Reading video files that may be damaged, mislabelled or hostile.

The kind of a file is told from its first bytes and must agree with its name; the demuxer is then chosen by us. (Left to
guess, FFmpeg would also follow playlists, which can name any other file or address.)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import av
import numpy
from av.container import InputContainer
from av.video.reformatter import VideoReformatter
from PIL import Image, UnidentifiedImageError

from data.manifest import WHOLE, TimeSpan
from data.media.budget import MOST_BYTES, MOST_FRAMES, MOST_PIXELS, Budget, check_frame_size
from data.media.choosing import Frames, begins_within, choose_frames
from data.media.clips import ClipShape, DecodedClip
from data.media.files import SourceFile
from data.media.gif import gif_frames, gif_size
from data.media.resample import uniform_indices
from data.unusable import UnusableClip

LEAST_SHARE_OF_FRAMES = 0.9  # of what the header promises; fewer means that the file is cut off
MOST_PIXEL_ASPECT = 10.0  # beyond it, or below its inverse, a pixel's shape is a mistake and counts as square

VIDEO_EXTENSIONS = (".gif", ".mp4", ".webm", ".mov", ".avi", ".mkv")
_FAMILIES = {".gif": "gif", ".mp4": "mov", ".mov": "mov", ".webm": "matroska", ".mkv": "matroska", ".avi": "avi"}


def decode_video(file: SourceFile, shape: ClipShape, span: TimeSpan = WHOLE) -> DecodedClip:
    """Return a video file, or a part of it, resampled over its whole duration.

    Raises:
        UnusableClip: the file is damaged, empty, too large, or not what its name says.
    """
    try:
        family = check_kind(file)
        if family == "gif":
            check_frame_size(*gif_size(file))  # FFmpeg decodes a frame when it opens a GIF
        expected = _expected_indices(file, family, shape.num_frames, span)
        if family == "gif":
            return choose_frames(lambda: gif_frames(file), expected, shape, span)
        return choose_frames(lambda: stream_frames(file, family, span), expected, shape, span)
    except UnusableClip:
        raise
    except UnidentifiedImageError as error:
        raise UnusableClip("is not a readable GIF") from error
    except PermissionError as error:
        raise UnusableClip(f"cannot be read ({error.strerror})") from error
    except (av.FFmpegError, OSError, ValueError, EOFError, KeyError, SyntaxError, MemoryError, OverflowError) as error:
        raise UnusableClip(f"cannot be decoded ({type(error).__name__}: {str(error)[:120]})") from error
    except Image.DecompressionBombError as error:
        raise UnusableClip("has frames that are too large") from error


def check_kind(file: SourceFile) -> str:
    """Return the family of containers that a file belongs to, by its first bytes.

    Raises:
        UnusableClip: it is empty, too large, none that is known, or another than its name says.
        OSError: it cannot be read.
    """
    file.check_size()
    head = file.read_bytes(16)
    if head[:6] in (b"GIF87a", b"GIF89a"):
        family = "gif"
    elif head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip"):
        family = "mov"
    elif head[:4] == b"\x1a\x45\xdf\xa3":
        family = "matroska"
    elif head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        family = "avi"
    else:
        raise UnusableClip("is not a video of a known kind")
    if _FAMILIES[file.suffix] != family:
        raise UnusableClip(f"is not a {file.suffix} file: its content is {family}")
    return family


@contextmanager
def _opened(file: SourceFile, family: str) -> Iterator[InputContainer]:
    source = file.name_or_bytes()
    # FFmpeg decodes a frame of some files when it opens them: the limit must reach it before.
    limit = {"max_pixels": str(MOST_PIXELS)}
    with av.open(source, "r", format=family, options=limit) as container:
        yield container


def _expected_indices(file: SourceFile, family: str, num_frames: int, span: TimeSpan) -> frozenset[int]:
    """Guess from the container's timestamps, without decoding, which frames will be wanted; empty if it does not say.

    Raises:
        UnusableClip: there are more packets than a usable file can have frames.
    """
    try:
        start_times, seconds = _packet_times(file, family, span)
    except av.FFmpegError:  # decoding will meet the error again, or not: Pillow reads GIFs that FFmpeg does not
        return frozenset()
    if not start_times:
        return frozenset()
    return frozenset(uniform_indices(start_times, seconds, num_frames))


def _packet_times(file: SourceFile, family: str, span: TimeSpan) -> tuple[list[float], float]:
    """Return the rising times of the packets of a span and its seconds; no times if one of the packets has none.

    Nor are there any for a file with more bytes in its packets than a usable one can have.
    """
    start_times: list[float] = []
    last_duration, packets, bytes_read = 0.0, 0, 0
    with _opened(file, family) as container:
        if not container.streams.video:
            return [], 0.0
        stream = container.streams.video[0]
        origin = _origin(container, stream)
        if family != "gif":
            _seek(container, stream, origin, span)
        for packet in container.demux(stream):
            packets, bytes_read = packets + 1, bytes_read + packet.size  # a header may name the same bytes often
            if packets > MOST_FRAMES:
                raise UnusableClip(f"has more than {MOST_FRAMES} frames")
            if bytes_read > MOST_BYTES:
                return [], 0.0
            if packet.size == 0 or packet.is_discard:  # the end, or left out by whoever edited the video
                continue
            if packet.pts is None or packet.time_base is None:
                return [], 0.0
            decoded_at = float((packet.pts if packet.dts is None else packet.dts) * packet.time_base) - origin
            if span.end is not None and decoded_at >= span.end:  # whatever follows is shown later still
                break
            start = float(packet.pts * packet.time_base) - origin
            if begins_within(start, span):
                start_times.append(start)
                last_duration = float((packet.duration or 0) * packet.time_base)
        if family != "gif" and start_times:
            last_duration = 1 / _frame_rate(stream)
    start_times.sort()
    return start_times, start_times[-1] - start_times[0] + last_duration if start_times else 0.0


def _origin(container: InputContainer, stream: av.VideoStream) -> float:
    """Return the time, in seconds, that the container gives to its first frame."""
    if stream.start_time is not None and stream.time_base is not None:
        return float(stream.start_time * stream.time_base)
    return (container.start_time or 0) / av.time_base


def _seek(container: InputContainer, stream: av.VideoStream, origin: float, span: TimeSpan) -> None:
    """Go to the last frame before the span that can be decoded by itself."""
    if span.start > 0 and stream.time_base is not None:
        container.seek(int((origin + span.start) / stream.time_base), stream=stream, backward=True)


def _frame_rate(stream: av.VideoStream) -> float:
    return float(stream.average_rate or 25)


def _pixel_aspect(stream: av.VideoStream) -> float:
    aspect = float(stream.sample_aspect_ratio or 1)
    return aspect if 1 / MOST_PIXEL_ASPECT <= aspect <= MOST_PIXEL_ASPECT else 1.0


@dataclass(frozen=True)
class _StreamFrame:
    frame: av.VideoFrame
    reformatter: VideoReformatter
    stored_pixel_aspect: float
    start_time: float
    duration: float

    @property
    def _quarter_turns(self) -> int:
        return round(self.frame.rotation / 90) % 4  # telephones store upright videos lying on their side

    @property
    def pixel_aspect(self) -> float:
        return 1 / self.stored_pixel_aspect if self._quarter_turns % 2 else self.stored_pixel_aspect

    def pixels(self) -> numpy.ndarray:
        pixels = self.reformatter.reformat(self.frame, format="rgb24").to_ndarray()
        return numpy.rot90(pixels, self._quarter_turns) if self._quarter_turns else pixels


def stream_frames(file: SourceFile, family: str, span: TimeSpan) -> Frames:
    budget = Budget()
    with _opened(file, family) as container:
        if not container.streams.video:
            raise UnusableClip("has no video stream")
        stream = container.streams.video[0]
        check_frame_size(stream.codec_context.width, stream.codec_context.height)  # before anything is decoded
        rate, aspect = _frame_rate(stream), _pixel_aspect(stream)
        origin = _origin(container, stream)
        _seek(container, stream, origin, span)
        reformatter = VideoReformatter()  # one for the file: to set one up takes longer than to convert a small frame
        for frame in container.decode(stream):
            budget.spend(frame.width, frame.height)
            if frame.time is None and span != WHOLE:
                raise UnusableClip("has frames without a time, so that no part of it can be found")
            start = float(frame.time) - origin if frame.time is not None else (budget.frames - 1) / rate
            if span.end is not None and start >= span.end:
                return
            yield _StreamFrame(frame, reformatter, aspect, start, 1 / rate)
        if span == WHOLE and budget.frames < LEAST_SHARE_OF_FRAMES * stream.frames:
            raise UnusableClip(f"is cut off: {budget.frames} of {stream.frames} frames are there")
