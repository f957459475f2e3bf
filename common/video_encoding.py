"""Clips as animated GIF and MP4, in memory."""

import io
import struct
from fractions import Fraction

import av
import numpy
from PIL import GifImagePlugin, Image

_LOOP_FOREVER = b"!\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00"
_KEEP_PREVIOUS_FRAME = 0x04  # disposal method 1; every frame covers the canvas anyway
_SHORTEST_DELAY = 2  # browsers slow anything below 0.02 s down to 0.1 s
_PALETTE_SIZE = 256


def encode_gif(video_THWC: numpy.ndarray, frames_per_second: float, scale: int = 1) -> bytes:
    """Return a GIF that loops for ever and holds every frame of the clip.

    The file is put together here because Pillow's own writer merges a frame that equals the one before: a still
    clip would become a picture. Each frame has a palette of its own, exact up to 256 colours. Delays are in hundredths
    of a second, spread so that the clip keeps its speed.

    Args:
        video_THWC: uint8 [T, H, W, 3], T >= 1.
        frames_per_second: above 0; more than 50 cannot be shown in a GIF and plays at 50.
        scale: how many pixels wide and high each pixel becomes.

    Raises:
        ValueError: shape, dtype or a number is wrong.
    """
    check_video(video_THWC, frames_per_second, scale)
    height, width = video_THWC.shape[1:3]
    parts = [b"GIF89a", struct.pack("<HHBBB", width * scale, height * scale, 0x70, 0, 0), _LOOP_FOREVER]
    for number, frame_HWC in enumerate(video_THWC):
        delay = round((number + 1) * 100 / frames_per_second) - round(number * 100 / frames_per_second)
        control = struct.pack("<BHB", _KEEP_PREVIOUS_FRAME, max(_SHORTEST_DELAY, delay), 0)
        parts += [b"!\xf9\x04", control, b"\x00"]
        parts += GifImagePlugin.getdata(_palette_image(frame_HWC, scale), (0, 0), include_color_table=True)
    return b"".join([*parts, b";"])


def encode_mp4(video_THWC: numpy.ndarray, frames_per_second: float, scale: int = 1) -> bytes:
    """Return an H.264 MP4 that every browser plays. Arguments and errors as for :func:`encode_gif`.

    The format halves the resolution of colour, so an odd width or height grows by repeating its last row or column.
    """
    check_video(video_THWC, frames_per_second, scale)
    frames = video_THWC.repeat(scale, axis=1).repeat(scale, axis=2)
    frames = numpy.pad(frames, ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)), mode="edge")
    target = io.BytesIO()
    with av.open(target, "w", format="mp4") as container:
        # One thread, as the others belong to training; no assembler, as it reads memory that nobody has written, and
        # makes other bits of a small clip now and then.
        options = {"crf": "18", "preset": "veryfast", "threads": "1", "x264-params": "asm=0"}
        rate = Fraction(frames_per_second).limit_denominator(1000)
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        for frame_HWC in frames:
            container.mux(stream.encode(video_frame(frame_HWC, "yuv420p")))
        container.mux(stream.encode(None))
    return target.getvalue()


def video_frame(image_HWC: numpy.ndarray, stored: str, given: str = "rgb24") -> av.VideoFrame:
    """Return an image as a frame in the pixel format that an encoder stores. Formats have FFmpeg's names.

    In one thread: with several, as encoders convert by themselves, FFmpeg makes other pixels of the same image now and
    then, and others by the number of cores.
    """
    image = av.VideoFrame.from_ndarray(numpy.ascontiguousarray(image_HWC), format=given)
    return image.reformat(format=stored, threads=1)


def encode_png(image_HWC: numpy.ndarray) -> bytes:
    """Return a PNG of a uint8 [H, W, 3] image."""
    if image_HWC.dtype != numpy.uint8 or image_HWC.ndim != 3 or image_HWC.shape[2] != 3:
        raise ValueError(f"an image is uint8 [H, W, 3], not {image_HWC.dtype} {list(image_HWC.shape)}")
    target = io.BytesIO()
    Image.fromarray(image_HWC).save(target, format="PNG", compress_level=3)
    return target.getvalue()


def check_video(video_THWC: numpy.ndarray, frames_per_second: float, scale: int) -> None:
    """Raise ValueError unless the arguments are what the encoders take."""
    shape = video_THWC.shape
    if video_THWC.dtype != numpy.uint8 or len(shape) != 4 or shape[3] != 3 or 0 in shape:
        raise ValueError(f"a video is uint8 [T, H, W, 3] with at least one frame, not {video_THWC.dtype} {list(shape)}")
    if not frames_per_second > 0:
        raise ValueError(f"frames_per_second is {frames_per_second}; it must be above 0")
    if scale < 1 or max(shape[1:3]) * scale > 0xFFFF:
        raise ValueError(f"scale is {scale}; it must be at least 1 and leave the clip below 65536 pixels a side")


def _palette_image(frame_HWC: numpy.ndarray, scale: int) -> Image.Image:
    """Return the enlarged frame with its own palette. Colours are chosen before enlarging, which is much less work."""
    height, width, _ = frame_HWC.shape
    packed = frame_HWC.astype(numpy.uint32) @ numpy.array([1 << 16, 1 << 8, 1], dtype=numpy.uint32)
    colours, indices = numpy.unique(packed, return_inverse=True)
    if len(colours) <= _PALETTE_SIZE:
        palette = numpy.stack([colours >> 16, colours >> 8 & 0xFF, colours & 0xFF], axis=1).astype(numpy.uint8)
    else:
        # Median cut is no closer on smooth pictures, a hundred times slower, and holds the interpreter lock.
        picture = Image.fromarray(frame_HWC)
        quantised = picture.quantize(_PALETTE_SIZE, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        indices = numpy.asarray(quantised)
        palette = numpy.array(quantised.getpalette(), dtype=numpy.uint8)
    small = indices.reshape(height, width).astype(numpy.uint8)
    image = Image.fromarray(small.repeat(scale, axis=0).repeat(scale, axis=1))
    image.putpalette(palette.tobytes())
    return image
