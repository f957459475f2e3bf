"""Putting clips beside each other, with captions. Every clip is uint8 [T, H, W, 3]."""

from collections.abc import Sequence

import numpy
import torch
from PIL import Image, ImageDraw

from common.vision import make_grid
from logging_system.drawing import INK, PAPER, font_for

CAPTION_HEIGHT = 20
CAPTION_SIZE = 13
VISIBLE_SIDE = 128  # pixels; a smaller clip is a stamp on a screen


def scale_to_be_seen(side: int, wanted: int = VISIBLE_SIDE) -> int:
    """Return the whole factor that brings `side` pixels to at least `wanted`."""
    return max(1, -(-wanted // side))


def enlarged(video_THWC: numpy.ndarray, scale: int) -> numpy.ndarray:
    """Repeat every pixel `scale` times in both directions, so that pixels stay what they are."""
    return video_THWC.repeat(scale, axis=1).repeat(scale, axis=2)


def captioned(video_THWC: numpy.ndarray, caption: str) -> numpy.ndarray:
    """Put a strip with the caption, shortened to the width, above every frame."""
    frames, _, width, _ = video_THWC.shape
    strip = Image.new("RGB", (width, CAPTION_HEIGHT), PAPER)
    text = _fitting(caption, width - 6)
    ImageDraw.Draw(strip).text((3, CAPTION_HEIGHT / 2), text, fill=INK, font=font_for(text, CAPTION_SIZE), anchor="lm")
    strip_THWC = numpy.broadcast_to(numpy.asarray(strip), (frames, CAPTION_HEIGHT, width, 3))
    return numpy.concatenate([strip_THWC, video_THWC], axis=1)


def captioned_grid(
    videos: Sequence[numpy.ndarray], captions: Sequence[str], *, columns: int, side: int = VISIBLE_SIDE
) -> numpy.ndarray:
    """Lay equally large clips out in rows, each enlarged to at least `side` pixels and captioned.

    Raises:
        ValueError: there is no clip, or clips and captions differ in number.
    """
    if not videos:
        raise ValueError("a grid needs at least one clip")
    scale = scale_to_be_seen(min(videos[0].shape[1:3]), side)
    tiles = [captioned(enlarged(video, scale), text) for video, text in zip(videos, captions, strict=True)]
    tiles_NTHWC = torch.from_numpy(numpy.stack(tiles))
    number, frames, height, width, _ = tiles_NTHWC.shape
    # make_grid lays out pictures with any number of channels: with the frames as channels, one call does them all.
    tiles_NCHW = tiles_NTHWC.permute(0, 1, 4, 2, 3).reshape(number, frames * 3, height, width)
    grid_CHW = make_grid(tiles_NCHW, nrow=min(columns, number), padding=4, pad_value=255)
    if number == 1:  # make_grid returns a single picture without its padding
        grid_CHW = torch.nn.functional.pad(grid_CHW, (4, 4, 4, 4), value=255)
    grid_THWC: numpy.ndarray = grid_CHW.reshape(frames, 3, *grid_CHW.shape[1:]).permute(0, 2, 3, 1).numpy()
    return grid_THWC


def _fitting(text: str, width: int) -> str:
    font = font_for(text, CAPTION_SIZE)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
