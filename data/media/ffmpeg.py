"""Opening video files with FFmpeg so that a hostile one can neither reach another file nor take much memory."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import av
from av.container import InputContainer

from data.media.budget import LARGE_PIXELS, MOST_PIXELS, check_frame_size, is_large, limit_ffmpeg_memory
from data.media.files import PlainFile, SourceFile
from data.rows import TimeSpan, UnusableClip

MOST_PIXEL_ASPECT = 10.0  # beyond it, or below its inverse, a pixel's shape is a mistake and counts as square
_SEEK_MARGIN = 1.0  # seconds: a frame may be stored this long before it is shown

# What cameras, editors and collections of sign language use. FFmpeg knows hundreds more, for old games and the like, in
# which mistakes are found again and again.
DECODERS = (
    *("h264", "hevc", "vp8", "vp9", "libdav1d", "av1", "mpeg4", "mpeg1video", "mpeg2video", "h263", "flv", "theora"),
    *("msmpeg4v1", "msmpeg4v2", "msmpeg4", "wmv1", "wmv2", "wmv3", "vc1", "cinepak", "svq1", "svq3", "dvvideo"),
    *("mjpeg", "png", "qtrle", "prores", "dnxhd", "ffv1", "huffyuv", "ffvhuff", "utvideo", "magicyuv", "rawvideo"),
)


# Titles need not be Unicode. From 19 on, PyAV reads all of them and knows no such option; before, it has to be told.
_ANY_TEXT: dict[str, Any] = {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "replace"}


@contextmanager
def opened(file: SourceFile, family: str, **options: str) -> Iterator[InputContainer]:
    """Open a video file, in which nothing will be decoded, with a demuxer and options of FFmpeg."""
    limit_ffmpeg_memory()
    safe = {"protocol_whitelist": "file", "codec_whitelist": "none"}
    with ExitStack() as stack:
        # A relative path may begin with what FFmpeg takes for a protocol: "subfile,,start,0,end,9,,:/etc/x.mp4".
        source = str(file.path.absolute()) if isinstance(file, PlainFile) else stack.enter_context(file.open())
        container = av.open(source, "r", format=family, options=safe | options, **_ANY_TEXT)
        yield stack.enter_context(container)


def header_size(file: SourceFile, family: str) -> tuple[int, int]:
    """Return the width and the height that a container gives for its pictures; 0 if it does not.

    Raises:
        UnusableClip: there are none, they are too large or too small, or encoded in a way that is not read.
    """
    with opened(file, family, probesize="32") as container:
        if not container.streams.video:
            raise UnusableClip("has no video stream")
        context = container.streams.video[0].codec_context
        if context is None:
            raise UnusableClip("is encoded in a way that is not known; encode it anew, as H.264")
        if context.name not in DECODERS:
            raise UnusableClip(f"is encoded as {context.name}, which is not read; encode it anew, as H.264")
        if context.width and context.height:
            check_frame_size(context.width, context.height)
        return context.width, context.height


@contextmanager
def opened_to_decode(
    file: SourceFile, family: str, size: tuple[int, int]
) -> Iterator[tuple[InputContainer, av.VideoStream]]:
    """Open a video file whose pictures will be decoded, in this thread.

    Frames may be larger than `size`, from `header_size`, but not so large that threads must wait for each other.

    Raises:
        UnusableClip: frames are too large or too small.
    """
    # FFmpeg decodes frames of some files when it opens them: the limit must reach it before.
    most_pixels = str(MOST_PIXELS if is_large(*size) else LARGE_PIXELS)
    with opened(file, family, codec_whitelist=",".join(DECODERS), max_pixels=most_pixels) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        if not context.width or not context.height:  # FFmpeg drops the size of frames that are too large for it
            raise UnusableClip(f"has frames of an unknown size, or of more than {most_pixels} pixels")
        check_frame_size(context.width, context.height)
        context.options = {"max_pixels": most_pixels}
        context.thread_count = 1  # other threads decode other clips
        yield container, stream


def alpha_decoder(stream: av.VideoStream) -> av.VideoCodecContext | None:
    """Return a decoder for what is transparent in a WebM with VP8 or VP9; None if the file does not say that it is so.

    FFmpeg's own decoders, whose memory is bounded, leave out the transparency. It is a second video of its own: beside
    each packet lies another, and how bright its picture is says how opaque the other is.
    """
    context = stream.codec_context
    if stream.metadata.get("alpha_mode") != "1" or context.name not in ("vp8", "vp9"):
        return None
    decoder = av.CodecContext.create(context.name, "r")
    assert isinstance(decoder, av.VideoCodecContext)
    decoder.options, decoder.thread_count = context.options, 1
    return decoder


def decode_alpha(decoder: av.VideoCodecContext, packet: "av.Packet[av.VideoStream]") -> av.VideoFrame | None:
    """Return the picture whose brightness is the opacity of a packet's frame, of 255; None if it is all opaque."""
    content = bytes(packet.get_sidedata("matroska_block_additional"))
    if int.from_bytes(content[:8], "big") != 1:  # other numbers mean other things
        return None
    frames = decoder.decode(av.Packet(content[8:]))
    return frames[-1] if frames else None


def origin(container: InputContainer, stream: av.VideoStream) -> float:
    """Return the time, in seconds, that the container gives to its first frame."""
    if stream.start_time is not None and stream.time_base:
        return float(stream.start_time * stream.time_base)
    return (container.start_time or 0) / av.time_base


def seek(container: InputContainer, stream: av.VideoStream, span: TimeSpan) -> None:
    """Go to a frame before the span that can be decoded by itself."""
    if span.start > 0 and stream.time_base:
        target = origin(container, stream) + max(0.0, span.start - _SEEK_MARGIN)
        container.seek(int(target / stream.time_base), stream=stream, backward=True)


def frame_rate(stream: av.VideoStream) -> float:
    """Return frames a second, on average."""
    return float(stream.average_rate or 25)


def pixel_aspect(stream: av.VideoStream) -> float:
    """Return the width of a stored pixel over its height."""
    aspect = float(stream.sample_aspect_ratio or 1)
    return aspect if 1 / MOST_PIXEL_ASPECT <= aspect <= MOST_PIXEL_ASPECT else 1.0
