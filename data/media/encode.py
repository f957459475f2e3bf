"""Encoding a clip as a video file of its own, at its full size and with its own times."""

import io
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import av
import numpy
from av.container import OutputContainer
from av.video.reformatter import ColorRange, Colorspace

from common.video_encoding import video_frame
from data.media.budget import check_duration, check_frame_count, failures_as_reasons
from data.media.containers import check_kind
from data.media.decode import open_media
from data.media.files import MOST_MEMBER_BYTES
from data.media.frames import FrameFolder, folder_frames
from data.media.gif import gif_frames
from data.media.resample import Frame, Frames, begins_within
from data.media.video import stream_frames
from data.rows import WHOLE, Media, UnusableClip

ENCODED_SUFFIX = ".mp4"
TICKS = 1_000_000  # a second: half of one is less than what counts when frames are chosen (resample.ROUNDING)
_PIXEL_FORMAT = "yuv444p"  # FFmpeg's name
_OPTIONS = {
    "crf": "10",
    "preset": "veryfast",
    "threads": "1",  # other threads encode other clips
    # With its macroblock tree, x264 reads memory that nobody wrote: small clips then differ from run to run.
    "mbtree": "0",
    "bf": "0",  # no frame is stored before an earlier one: the file then tells how long it lasts
}


def encode_clip(root: Path, media: Media) -> bytes:
    """Return a part of a video, or a folder of frames, as a video that holds the clip and nothing else.

    It is MP4 with H.264, in a quality that can hardly be told from the original (crf 10) and with the colour of every
    pixel (yuv444p). It is upright, as large as the original and in the same shape, and each frame appears as long after
    the first one as it did there. The last one is shown for as long as the original's frames are on average, even if
    the clip ends sooner. The same clip gives the same bytes.

    Raises:
        UnusableClip: it cannot be decoded, has frames of different sizes, or is too large.
    """
    with failures_as_reasons("encoded anew"):
        return _encode(_all_frames(root, media), media)


def _all_frames(root: Path, media: Media) -> Frames:
    opened = open_media(root, media)
    if isinstance(opened, FrameFolder):
        return folder_frames(opened, opened.names())
    family = check_kind(opened)
    return gif_frames(opened) if family == "gif" else stream_frames(opened, family, media.span)


def _encode(frames: Frames, media: Media) -> bytes:
    target = io.BytesIO()
    with closing(frames), av.open(target, "w", format="mp4") as container:
        encoder = _Encoder(container)
        for frame in frames:
            if begins_within(frame.start_time, media.span):
                encoder.add(frame)
                if target.tell() > MOST_MEMBER_BYTES:
                    raise UnusableClip(f"is larger than {MOST_MEMBER_BYTES >> 20} MiB when it is encoded anew")
        if not encoder.frames and media.span != WHOLE:
            raise UnusableClip(f"has no frames between {media.span.start:g} and {media.span.end or 'the end'} seconds")
        encoder.finish()
    return target.getvalue()


class _Encoder:
    def __init__(self, container: OutputContainer) -> None:
        self._container = container
        self._stream: av.VideoStream | None = None
        self._shape: tuple[int, ...] = ()
        self._origin = 0.0  # time of the first frame, in seconds
        self._last_tick = -1
        self.frames = 0

    def add(self, frame: Frame) -> None:
        pixels = frame.pixels()
        if self._stream is None:
            self._shape, self._origin = pixels.shape, frame.start_time
            self._stream = _new_stream(self._container, frame, pixels)
        if pixels.shape != self._shape:
            raise UnusableClip("has frames of different sizes, which no video file can hold")
        # Times that do not rise, as some files have them, are moved on by a tick.
        self._last_tick = max(round((frame.start_time - self._origin) * TICKS), self._last_tick + 1)
        self.frames += 1
        if self.frames > 1:
            check_duration(self._last_tick / TICKS)
        picture = video_frame(pixels, _PIXEL_FORMAT)
        picture.pts, picture.time_base = self._last_tick, Fraction(1, TICKS)
        self._container.mux(self._stream.encode(picture))

    def finish(self) -> None:
        check_frame_count(self.frames)
        assert self._stream is not None
        self._container.mux(self._stream.encode(None))


def _new_stream(container: OutputContainer, first: Frame, pixels: numpy.ndarray) -> av.VideoStream:
    rate = Fraction(1 / first.duration).limit_denominator(TICKS)  # tells how long the last frame is shown
    stream = container.add_stream("libx264", rate=rate, options=_OPTIONS)
    stream.height, stream.width, stream.pix_fmt = pixels.shape[0], pixels.shape[1], _PIXEL_FORMAT
    context = stream.codec_context
    context.time_base = Fraction(1, TICKS)
    context.sample_aspect_ratio = Fraction(first.pixel_aspect).limit_denominator(1000)
    context.colorspace, context.color_range = Colorspace.ITU601, ColorRange.MPEG  # as PyAV converts
    return stream
