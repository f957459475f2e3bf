"""The frames of a video file, which may be damaged, mislabelled or hostile."""

import math
import struct
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import Any

import av
import numpy
from av.container import InputContainer
from av.video.reformatter import ColorPrimaries, VideoReformatter
from PIL import Image

from data.lengths import ClipLengths
from data.media.budget import MOST_FRAMES, Budget, failures_as_reasons, large_frame_lock
from data.media.containers import check_kind
from data.media.ffmpeg import (
    alpha_decoder,
    decode_alpha,
    frame_rate,
    header_size,
    opened,
    opened_to_decode,
    origin,
    pixel_aspect,
    seek,
)
from data.media.files import MOST_BYTES, SourceFile
from data.media.gif import gif_frames, gif_outline
from data.media.hdr import HDR_TRANSFERS, sdr_pixels
from data.media.resample import (
    BACKGROUND,
    ROUNDING,
    UPRIGHT,
    ClipShape,
    DecodedClip,
    Frame,
    Frames,
    MediaFacts,
    NeededFrames,
    Turn,
    begins_within,
    choose_frames,
    nearest_turn,
    needed_frames,
    turn_changes,
    turned,
)
from data.rows import WHOLE, TimeSpan, UnusableClip

LEAST_SHARE_OF_FRAMES = 0.9  # of those that a table in the file names; fewer means that the file is cut off


def decode_video(
    file: SourceFile, shape: ClipShape, span: TimeSpan = WHOLE, known: MediaFacts | None = None
) -> DecodedClip:
    """Return a video file, or a part of it, resampled over its full duration; `known` is what was found out before.

    Raises:
        UnusableClip: the file is damaged, empty, too large, or not what its name says.
    """
    with failures_as_reasons():
        family = check_kind(file)
        expected = _expected_frames(file, family, shape.lengths, span)
        if family == "gif":
            return choose_frames(lambda: gif_frames(file), expected, shape, span, known)
        return choose_frames(lambda: stream_frames(file, family, span), expected, shape, span, known)


def _expected_frames(file: SourceFile, family: str, lengths: ClipLengths, span: TimeSpan) -> NeededFrames:
    """Guess from the container's timestamps, without decoding, which frames will be needed; none if it has none."""
    try:
        start_times, seconds = _gif_times(file, span) if family == "gif" else _packet_times(file, family, span)
    except av.FFmpegError:  # decoding will meet the error again and report it
        return NeededFrames()
    return needed_frames(start_times, seconds, lengths)


def _gif_times(file: SourceFile, span: TimeSpan) -> tuple[list[float], float]:
    _, _, durations = gif_outline(file)
    starts = [0.0, *numpy.cumsum(durations).tolist()]
    within = [index for index in range(len(durations)) if begins_within(starts[index], span)]
    return [starts[index] for index in within], starts[within[-1] + 1] - starts[within[0]] if within else 0.0


def _packet_times(file: SourceFile, family: str, span: TimeSpan) -> tuple[list[float], float]:
    """Return the rising times of the packets of a span and its seconds.

    No times if a packet has none, or if the packets have more bytes than those of a usable file can have.
    """
    start_times: list[float] = []
    packets, bytes_read = 0, 0
    with opened(file, family) as container:
        if not container.streams.video:
            return [], 0.0
        stream = container.streams.video[0]
        first = origin(container, stream)
        if family != "avi":
            seek(container, stream, span)
        for packet in container.demux(stream):
            packets, bytes_read = packets + 1, bytes_read + packet.size  # a header may name the same bytes often
            if packets > MOST_FRAMES:
                raise UnusableClip(f"has more than {MOST_FRAMES} frames")
            if bytes_read > MOST_BYTES:
                return [], 0.0
            if packet.size == 0 or packet.is_discard:  # the end, or cut out when the video was edited
                continue
            shown, decoded = _times(packet, family)
            if shown is None or decoded is None:
                return [], 0.0
            if span.end is not None and decoded - first >= span.end:  # whatever follows is shown later still
                break
            if begins_within(shown - first, span):
                start_times.append(shown - first)
        last_duration = 1 / frame_rate(stream)
    start_times.sort()
    return start_times, start_times[-1] - start_times[0] + last_duration if start_times else 0.0


def _times(packet: "av.Packet[av.VideoStream]", family: str) -> tuple[float | None, float | None]:
    """Return when a packet's frame is shown and when it is decoded, in seconds.

    AVI has only the second, and FFmpeg's guess of the first is wrong if frames are stored in another order than shown.
    But all frames last equally long, so the sorted times of decoding are those of showing.
    """
    if not packet.time_base or packet.pts is None:
        return None, None
    decoded = packet.pts if packet.dts is None else packet.dts
    shown = decoded if family == "avi" else packet.pts
    return float(shown * packet.time_base), float(decoded * packet.time_base)


def stream_frames(file: SourceFile, family: str, span: TimeSpan) -> Frames:
    """Yield the frames of a video file in the order in which they are shown, from the span's first or an earlier one.

    Raises:
        UnusableClip: it holds no video that is read, is too large, or has no times. FFmpeg's own errors pass through.
    """
    size = header_size(file, family)
    with large_frame_lock(*size):
        yield from _frames_of_span(file, family, size, span)


def _frames_of_span(file: SourceFile, family: str, size: tuple[int, int], span: TimeSpan) -> Frames:
    if span.start > 0 and family != "avi":  # there, times are counted from the beginning
        with closing(_decoded_frames(file, family, size, span, seeking=True)) as frames:
            try:
                first = next(frames, None)
            except av.FFmpegError:  # not every file can be entered in the middle
                first = None
            if first is not None and first.start_time <= span.start + ROUNDING:
                yield first
                yield from frames
                return
    yield from _decoded_frames(file, family, size, span, seeking=False)


def _decoded_frames(file: SourceFile, family: str, size: tuple[int, int], span: TimeSpan, *, seeking: bool) -> Frames:
    budget = Budget()
    with opened_to_decode(file, family, size) as (container, stream):
        rate, aspect, first = frame_rate(stream), pixel_aspect(stream), origin(container, stream)
        if seeking:
            seek(container, stream, span)
        is_timed, rotation, turn = True, None, UPRIGHT
        reformatter = VideoReformatter()  # one for the file: to set one up takes longer than to convert a small frame
        has_table = family == "mov" and span == WHOLE  # of all frames: only MP4 has one
        least_packets = LEAST_SHARE_OF_FRAMES * len(stream.index_entries) if has_table else 0
        for frame, alpha, time in _timed_frames(container, stream, family, least_packets):
            budget.spend(frame.width, frame.height)
            if time is None and span != WHOLE:
                raise UnusableClip("has frames without a time, so that no part of it can be found")
            is_timed = is_timed and time is not None  # from a frame without a time on, frames are counted
            start = time - first if is_timed and time is not None else (budget.frames - 1) / rate
            if span.end is not None and start >= span.end:
                return
            if alpha is not None and (alpha.width, alpha.height) != (frame.width, frame.height):
                raise UnusableClip("is transparent by pictures of another size than its own")
            if frame.rotation != rotation:
                rotation, turn = frame.rotation, _turn(frame)
            changes = turn_changes(turn)
            if alpha is not None or _has_alpha(frame):
                changes |= {"transparent"}
            if frame.color_trc in HDR_TRANSFERS:
                changes |= {"tone-mapped"}
            pixels = partial(_upright_pixels, frame, alpha, reformatter, turn)
            yield Frame(start, 1 / rate, pixels, 1 / aspect if turn[0] else aspect, changes)


def _turn(frame: av.VideoFrame) -> Turn:
    """Return how a frame is to be shown: telephones store videos lying on their side, some also mirrored."""
    # In PyAV, a frame and its side data hold each other until garbage is collected: a large one must not be asked.
    small = VideoReformatter().reformat(frame, 16, 16, "gray", threads=1)
    try:
        side_data: Any = small.side_data  # PyAV 18 gives it a type that knows one key only
        a, b, _, c, d, *_ = struct.unpack("9i", bytes(side_data["DISPLAYMATRIX"]))
    except KeyError:
        return UPRIGHT
    except ValueError:  # the frame also carries data of a kind that PyAV 18 does not know; it then tells only the angle
        angle = math.radians(frame.rotation)
        return nearest_turn(math.cos(angle), -math.sin(angle), math.sin(angle), math.cos(angle))
    return nearest_turn(a, b, c, d)


def _has_alpha(frame: av.VideoFrame) -> bool:
    return any(component.is_alpha for component in frame.format.components)


def _upright_pixels(
    frame: av.VideoFrame, alpha: av.VideoFrame | None, reformatter: VideoReformatter, turn: Turn
) -> numpy.ndarray:
    """Return a frame as uint8 [H, W, 3], on white where it is transparent by its fourth channel or by `alpha`."""
    is_hdr = frame.color_trc in HDR_TRANSFERS
    is_wide = frame.color_primaries == ColorPrimaries.BT2020 or (
        is_hdr and frame.color_primaries == ColorPrimaries.UNSPECIFIED
    )
    is_converted = is_wide or is_hdr
    has_opacity = frame.format.has_palette or _has_alpha(frame)
    # A plane per colour: packed as "rgba" or "rgb48le", FFmpeg leaves pixels unwritten or wrong at some widths. In one
    # thread: in several, it makes other pixels now and then.
    format = "gbrap16le" if is_converted else "gbrap" if has_opacity else "rgb24"
    channels: numpy.ndarray = reformatter.reformat(frame, format=format, threads=1).to_ndarray()
    pixels, opacity = channels[:, :, :3], channels[:, :, 3] if has_opacity else None
    if is_converted:
        pixels = sdr_pixels(pixels, frame.color_trc, is_wide=is_wide)
        opacity = None if opacity is None else (opacity >> 8).astype(numpy.uint8)
    if alpha is not None:
        plane = alpha.planes[0]
        rows = numpy.frombuffer(bytes(plane), numpy.uint8).reshape(-1, plane.line_size)
        opacity = rows[: frame.height, : frame.width]
    if opacity is not None:
        ground = Image.new("RGB", (frame.width, frame.height), BACKGROUND)
        pixels = numpy.asarray(Image.composite(Image.fromarray(pixels), ground, Image.fromarray(opacity)))
    return turned(pixels, turn)


def _timed_frames(
    container: InputContainer, stream: av.VideoStream, family: str, least_packets: float
) -> Iterator[tuple[av.VideoFrame, av.VideoFrame | None, float | None]]:
    """Yield frames with what says where they are transparent, and when they are shown, in seconds.

    See `_times` for AVI.
    """
    times: deque[float | None] = deque()
    packets = 0
    decoder_of_alpha = alpha_decoder(stream)
    for packet in container.demux(stream):
        if packet.size:
            packets += 1
            times.append(_times(packet, family)[0])
        alpha = None if decoder_of_alpha is None else decode_alpha(decoder_of_alpha, packet)
        for frame in stream.decode(packet):
            counted = times.popleft() if times else None
            yield frame, alpha, counted if family == "avi" else frame.time
    if packets < least_packets:
        raise UnusableClip(f"is cut off: {packets} frames are there, of {len(stream.index_entries)}")
