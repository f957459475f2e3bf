"""Reading video files that may be damaged, mislabelled or hostile.

The kind of a file is told from its first bytes and must agree with its name; the demuxer is then chosen by us. (Left to
guess, FFmpeg would also follow playlists, which can name any other file or address.)

Which frames a clip consists of is known only when all have been decoded, counted and timed. Decoding is what takes
long, so the container's timestamps, read without decoding, say in advance which frames those will probably be. Every
frame is then decoded once and only the expected ones are kept, resized: memory holds no more than one full-sized frame
at a time. Where the timestamps were wrong, the file is gone through once more.
"""

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import av
import numpy
from av.video.reformatter import VideoReformatter
from PIL import Image, UnidentifiedImageError

from data.resample import square_resize, uniform_indices

MOST_BYTES = 1 << 30
MOST_PIXELS = 4096 * 4096  # of one frame
MOST_FRAMES = 50_000
MOST_PIXELS_IN_ALL = 40_000_000_000  # ten minutes of 1920 x 1080 at 30 frames a second
LEAST_SHARE_OF_FRAMES = 0.9  # of what the header promises; fewer means that the file is cut off

VIDEO_EXTENSIONS = (".gif", ".mp4", ".webm", ".mov", ".avi", ".mkv")
_FAMILIES = {".gif": "gif", ".mp4": "mov", ".mov": "mov", ".webm": "matroska", ".mkv": "matroska", ".avi": "avi"}
_DEFAULT_GIF_SECONDS = 0.1  # browsers show frames without a duration for this long


class UnusableVideo(Exception):
    """Why a file cannot be used, for people."""


class _Frame(Protocol):
    @property
    def start_time(self) -> float:
        """Seconds."""
        ...

    @property
    def duration(self) -> float: ...

    def pixels(self) -> numpy.ndarray:
        """Return uint8 [H, W, 3]."""
        ...


def decode_clip(path: Path, num_frames: int, image_size: int) -> numpy.ndarray:
    """Return a video file, resampled over its whole duration, as uint8 [num_frames, image_size, image_size, 3].

    Raises:
        UnusableVideo: the file is damaged, empty, too large, or not what its name says.
    """
    try:
        family = check_kind(path)
        expected = _expected_indices(path, family, num_frames)
        decoded = _decode(path, family, image_size, kept=expected)
        wanted = uniform_indices(decoded.start_times, decoded.seconds, num_frames)
        if not decoded.kept.keys() >= set(wanted):
            decoded = _decode(path, family, image_size, kept=frozenset(wanted))
        return numpy.stack([decoded.kept[index] for index in wanted])
    except UnusableVideo:
        raise
    except UnidentifiedImageError as error:
        raise UnusableVideo("is not a readable GIF") from error
    except (av.FFmpegError, OSError, ValueError, EOFError, KeyError, SyntaxError, MemoryError) as error:
        raise UnusableVideo(f"cannot be decoded ({type(error).__name__}: {str(error)[:120]})") from error
    except Image.DecompressionBombError as error:
        raise UnusableVideo("has frames that are too large") from error


def check_kind(path: Path) -> str:
    """Return the family of containers that a file belongs to, by its first bytes."""
    size = path.stat().st_size
    if size == 0:
        raise UnusableVideo("is empty")
    if size > MOST_BYTES:
        raise UnusableVideo(f"is larger than {MOST_BYTES >> 20} MiB")
    with open(path, "rb") as file:
        head = file.read(16)
    if head[:6] in (b"GIF87a", b"GIF89a"):
        family = "gif"
    elif head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip"):
        family = "mov"
    elif head[:4] == b"\x1a\x45\xdf\xa3":
        family = "matroska"
    elif head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        family = "avi"
    else:
        raise UnusableVideo("is not a video of a known kind")
    if _FAMILIES[path.suffix.lower()] != family:
        raise UnusableVideo(f"is not a {path.suffix.lower()} file: its content is {family}")
    return family


@dataclass(frozen=True)
class _Decoded:
    """What one pass through a file found."""

    start_times: Sequence[float]  # seconds, rising
    seconds: float  # from the first frame's appearance to the end of the last
    kept: dict[int, numpy.ndarray]  # by the number of the frame: uint8 [image_size, image_size, 3]


def _decode(path: Path, family: str, image_size: int, *, kept: frozenset[int]) -> _Decoded:
    """Decode, count and time all frames, and keep some."""
    start_times: list[float] = []
    last_duration = 0.0
    images: dict[int, numpy.ndarray] = {}
    with closing(_frames(path, family)) as frames:
        for index, frame in enumerate(frames):
            start_times.append(frame.start_time)
            last_duration = frame.duration
            if index in kept:
                images[index] = square_resize(frame.pixels(), image_size)
    if not start_times:
        raise UnusableVideo("has no frames")
    start_times.sort()
    return _Decoded(start_times, start_times[-1] - start_times[0] + last_duration, images)


def _expected_indices(path: Path, family: str, num_frames: int) -> frozenset[int]:
    """Guess from the container's timestamps, without decoding, which frames will be wanted; empty if it does not say.

    Only speed depends on the answer: nothing is promised about a file until its frames have been decoded.
    """
    if family == "gif":
        with Image.open(path, formats=["GIF"]) as image:  # FFmpeg decodes a frame when it opens a GIF
            _check_frame_size(*image.size)
    try:
        start_times, seconds = _packet_times(path, family)
    except av.FFmpegError:  # decoding will meet the error again, or not: Pillow reads GIFs that FFmpeg does not
        return frozenset()
    if not start_times:
        return frozenset()
    return frozenset(uniform_indices(start_times, seconds, num_frames))


def _packet_times(path: Path, family: str) -> tuple[list[float], float]:
    """Return the rising times of a file's packets and the seconds of all; no times if one of them has none.

    Nor are there any for a file with more packets or bytes in them than a usable one can have.
    """
    start_times: list[float] = []
    last_duration, packets, bytes_read = 0.0, 0, 0
    with av.open(str(path), format=family) as container:
        for packet in container.demux(video=0) if container.streams.video else ():
            packets, bytes_read = packets + 1, bytes_read + packet.size  # a header may name the same bytes often
            if packets > MOST_FRAMES or bytes_read > MOST_BYTES:
                return [], 0.0
            if packet.size == 0 or packet.is_discard:  # the end, or left out by whoever edited the video
                continue
            if packet.pts is None or packet.time_base is None:
                return [], 0.0
            start_times.append(float(packet.pts * packet.time_base))
            last_duration = float((packet.duration or 0) * packet.time_base)
        if family != "gif" and start_times:
            last_duration = 1 / _frame_rate(container.streams.video[0])
    start_times.sort()
    return start_times, start_times[-1] - start_times[0] + last_duration if start_times else 0.0


def _frame_rate(stream: av.VideoStream) -> float:
    return float(stream.average_rate or 25)


def _frames(path: Path, family: str) -> Generator[_Frame, None, None]:
    return _gif_frames(path) if family == "gif" else _stream_frames(path, family)


def _check_frame_size(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise UnusableVideo(f"has frames of {width} x {height} pixels; the most is {MOST_PIXELS} pixels")


class _Budget:
    """Counts frames and pixels, and stops a file that has too many."""

    def __init__(self) -> None:
        self.frames = 0
        self._pixels = 0

    def spend(self, width: int, height: int) -> None:
        _check_frame_size(width, height)
        self.frames += 1
        self._pixels += width * height
        if self.frames > MOST_FRAMES or self._pixels > MOST_PIXELS_IN_ALL:
            raise UnusableVideo(f"is too long (stopped after {self.frames} frames of {width} x {height})")


@dataclass(frozen=True)
class _GifFrame:
    image: Image.Image
    start_time: float
    duration: float

    def pixels(self) -> numpy.ndarray:
        return numpy.asarray(self.image.convert("RGB"))


def _gif_frames(path: Path) -> Generator[_GifFrame, None, None]:
    budget = _Budget()
    time = 0.0
    with Image.open(path, formats=["GIF"]) as image:
        for number in range(MOST_FRAMES + 1):
            budget.spend(*image.size)
            try:
                image.seek(number)
            except EOFError:
                return
            image.load()
            seconds = float(image.info.get("duration", 0)) / 1000 or _DEFAULT_GIF_SECONDS
            yield _GifFrame(image, time, seconds)
            time += seconds


@dataclass(frozen=True)
class _StreamFrame:
    frame: av.VideoFrame
    reformatter: VideoReformatter
    start_time: float
    duration: float

    def pixels(self) -> numpy.ndarray:
        pixels = self.reformatter.reformat(self.frame, format="rgb24").to_ndarray()
        quarter_turns = round(self.frame.rotation / 90) % 4  # telephones store upright videos lying on their side
        return numpy.rot90(pixels, quarter_turns) if quarter_turns else pixels


def _stream_frames(path: Path, family: str) -> Generator[_StreamFrame, None, None]:
    budget = _Budget()
    with av.open(str(path), format=family) as container:
        if not container.streams.video:
            raise UnusableVideo("has no video stream")
        stream = container.streams.video[0]
        _check_frame_size(stream.codec_context.width, stream.codec_context.height)  # before anything is decoded
        rate = _frame_rate(stream)
        reformatter = VideoReformatter()  # one for the file: to set one up takes longer than to convert a small frame
        for frame in container.decode(stream):
            budget.spend(frame.width, frame.height)
            start = frame.time if frame.time is not None else (budget.frames - 1) / rate
            yield _StreamFrame(frame, reformatter, float(start), 1 / rate)
        if budget.frames < LEAST_SHARE_OF_FRAMES * stream.frames:
            raise UnusableVideo(f"is cut off: {budget.frames} of {stream.frames} frames are there")
