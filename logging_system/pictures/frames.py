"""Clips laid out in a grid, with captions. Every clip is uint8 [T, H, W, 3]."""

from collections.abc import Sequence
from functools import partial

import numpy
import torch
from PIL import Image, ImageDraw, ImageFilter

from common.filmstrip import cut_to_width, draw_text, drawable, text_width
from common.vision import make_grid
from logging_system.pictures.charts import INK, PAPER

VISIBLE_SIDE = 128  # pixels; a smaller clip is a stamp on a screen
MAXIMUM_COLUMNS = 4  # as TensorBoard shows any picture at most CARD_WIDTH wide, more columns would be stamps again
CARD_WIDTH = 350
PADDING = 4  # pixels between clips
FADED = 0.35  # of a last frame's contrast to white, after its clip has ended
READABLE_SIZE = 12  # of letters on a card
SMALLEST_SIZE, LARGEST_SIZE = 13, 20
STRIP_MARGIN = 7  # above and below a caption together


def scale_to_be_seen(side: int, wanted: int = VISIBLE_SIDE) -> int:
    """Return the integer factor that brings `side` pixels to at least `wanted`."""
    return max(1, -(-wanted // side))


def enlarged(video_THWC: numpy.ndarray, scale: int) -> numpy.ndarray:
    """Repeat every pixel `scale` times in both directions, so that pixels stay what they are."""
    return video_THWC.repeat(scale, axis=1).repeat(scale, axis=2)


def captioned(video_THWC: numpy.ndarray, caption: str, size: int = SMALLEST_SIZE) -> numpy.ndarray:
    """Put a strip with the caption above every frame; a caption too wide is written smaller, then shortened."""
    caption = drawable(caption)
    frames, _, width, _ = video_THWC.shape
    height = size + STRIP_MARGIN
    strip = Image.new("RGB", (width, height), PAPER)
    shown, fitting_size = caption[: width - 5], size  # no letter is narrower than a pixel
    while fitting_size > SMALLEST_SIZE and text_width(shown, fitting_size) > width - 6:
        fitting_size -= 1
    text = cut_to_width(caption, partial(text_width, size=fitting_size), width - 6)
    draw_text(ImageDraw.Draw(strip), (3, height / 2), text, fitting_size, INK)
    if size > SMALLEST_SIZE:  # the picture will be shrunk by leaving pixels out: see charts.py
        strip = strip.filter(ImageFilter.BoxBlur(0.5))
    strip_THWC = numpy.broadcast_to(numpy.asarray(strip), (frames, height, width, 3))
    return numpy.concatenate([strip_THWC, video_THWC], axis=1)


def caption_size(picture_width: int) -> int:
    """Return the size of captions that can be read when a picture so wide is shown on a card."""
    return min(max(round(READABLE_SIZE * picture_width / CARD_WIDTH), SMALLEST_SIZE), LARGEST_SIZE)


def captioned_grid(
    videos: Sequence[numpy.ndarray], captions: Sequence[str], *, columns: int, side: int = VISIBLE_SIDE
) -> numpy.ndarray:
    """Lay equally large clips out in rows, each enlarged to at least `side` pixels and captioned.

    A clip that ends before the longest one fades, and its last frame stays. Rows of more than MAXIMUM_COLUMNS clips are
    folded into several rows of equal length, filled up with white.

    Raises:
        ValueError: there is no clip, or clips and captions differ in number.
    """
    if not videos:
        raise ValueError("a grid needs at least one clip")
    columns = min(columns, len(videos))
    folds = -(-columns // MAXIMUM_COLUMNS)
    folded_columns = -(-columns // folds)
    scale = scale_to_be_seen(min(videos[0].shape[1:3]), side)
    size = caption_size(folded_columns * (videos[0].shape[2] * scale + PADDING) + PADDING)
    frames = max(map(len, videos))
    tiles = [
        captioned(enlarged(_lengthened(video, frames), scale), text, size)
        for video, text in zip(videos, captions, strict=True)
    ]
    if folds > 1:  # every row of so many clips fills its folds up with white
        white = [numpy.full_like(tiles[0], 255)]
        rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
        tiles = [tile for row in rows for tile in row + white * (folds * folded_columns - len(row))]
    return _grid(torch.from_numpy(numpy.stack(tiles)), folded_columns)


def _lengthened(video_THWC: numpy.ndarray, frames: int) -> numpy.ndarray:
    """Hold the last frame, faded, until there are so many frames."""
    faded = (FADED * video_THWC[-1:] + (1 - FADED) * 255).astype(numpy.uint8)
    return numpy.concatenate([video_THWC, faded.repeat(frames - len(video_THWC), axis=0)])


def _grid(tiles_NTHWC: torch.Tensor, columns: int) -> numpy.ndarray:
    number, frames, height, width, _ = tiles_NTHWC.shape
    # make_grid lays out pictures with any number of channels: with the frames as channels, one call does them all.
    tiles_NCHW = tiles_NTHWC.permute(0, 1, 4, 2, 3).reshape(number, frames * 3, height, width)
    grid_CHW = make_grid(tiles_NCHW, nrow=columns, padding=PADDING, pad_value=255)
    if number == 1:  # make_grid returns a single picture without its padding
        grid_CHW = torch.nn.functional.pad(grid_CHW, (PADDING,) * 4, value=255)
    grid_THWC: numpy.ndarray = grid_CHW.reshape(frames, 3, *grid_CHW.shape[1:]).permute(0, 2, 3, 1).numpy()
    return grid_THWC
