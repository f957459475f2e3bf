"""Clips as files that play everywhere: H.264 MP4 and looping GIF."""

import io
import os
import uuid
from pathlib import Path

import imageio.v3 as imageio
import numpy
from PIL import Image


def enlarge(video_THWC: numpy.ndarray, scale: int) -> numpy.ndarray:
    """Repeat every pixel `scale` times in both directions: uint8 [T, H, W, 3] to [T, scale * H, scale * W, 3]."""
    return video_THWC.repeat(scale, axis=-3).repeat(scale, axis=-2)


def write_mp4(path: Path, video_THWC: numpy.ndarray, frames_per_second: float) -> None:
    """Write uint8 [T, H, W, 3] as H.264 in yuv420p, which every browser and phone plays; whole or not at all.

    An odd width or height is padded by one pixel, because yuv420p needs even ones.

    Raises:
        OSError: the file cannot be written.
    """
    height, width = video_THWC.shape[1:3]
    even = numpy.pad(video_THWC, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    temporary = path.with_name(f".tmp-{uuid.uuid4().hex}-{path.name}")
    try:
        # x264 at its default quality smears thin fingers; CRF 12 keeps them.
        with imageio.imopen(temporary, "w", plugin="pyav", extension=".mp4") as file:
            file.init_video_stream("libx264", fps=frames_per_second, pixel_format="yuv420p")
            stream = file._video_stream
            assert stream is not None
            stream.options = {"crf": "12"}
            for frame in even:
                file.write_frame(frame)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def encode_gif(video_THWC: numpy.ndarray, frames_per_second: float) -> bytes:
    """Encode uint8 [T, H, W, 3] as an endlessly looping GIF that keeps every frame, also repeated ones."""
    frames = [Image.fromarray(frame).quantize(256, dither=Image.Dither.NONE) for frame in video_THWC]
    buffer = io.BytesIO()
    frames[0].save(
        buffer,
        "GIF",
        save_all=True,
        append_images=frames[1:],
        loop=0,
        duration=round(1000 / frames_per_second),
        optimize=False,
        disposal=2,  # also keeps Pillow from merging equal frames
    )
    return buffer.getvalue()
