"""Filmstrips of real and generated clips, one above the other, on one picture."""

from collections.abc import Sequence

import numpy
from PIL import Image, ImageDraw, ImageFont

FRAMES_SHOWN = 8
TILE_SIDE = 96  # pixels that a frame is at least enlarged to
LABEL_WIDTH = 130
GAP = 6
FONT_SIZE = 15


def contact_sheet(
    texts: Sequence[str], generated: Sequence[numpy.ndarray], real: Sequence[numpy.ndarray | None]
) -> numpy.ndarray:
    """Draw every text's clips as rows of evenly spread frames: real above generated, or generated alone.

    Args:
        texts: one label a clip.
        generated: uint8 [T, H, W, 3] a text, all of one shape.
        real: the same, or None where there is no real clip.

    Returns:
        uint8 [height, width, 3].
    """
    rows: list[tuple[str, numpy.ndarray]] = []
    for text, generated_clip, real_clip in zip(texts, generated, real, strict=True):
        if real_clip is not None:
            rows.append((f"{text}\nreal", _filmstrip(real_clip)))
        rows.append((f"{text}\ngenerated", _filmstrip(generated_clip)))
    height, width = rows[0][1].shape[:2]
    sheet = Image.new("RGB", (LABEL_WIDTH + width, len(rows) * (height + GAP) - GAP), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(FONT_SIZE)
    for index, (label, strip) in enumerate(rows):
        top = index * (height + GAP)
        draw.multiline_text((8, top + height // 2), label, fill="black", font=font, anchor="lm")
        sheet.paste(Image.fromarray(strip), (LABEL_WIDTH, top))
    return numpy.asarray(sheet)


def _filmstrip(video_THWC: numpy.ndarray) -> numpy.ndarray:
    """Lay evenly spread frames side by side, enlarged without smoothing."""
    shown = min(FRAMES_SHOWN, len(video_THWC))
    picked = [(2 * index + 1) * len(video_THWC) // (2 * shown) for index in range(shown)]
    scale = -(-TILE_SIDE // video_THWC.shape[1])
    strip: numpy.ndarray = numpy.concatenate(list(video_THWC[picked]), axis=1)
    return strip.repeat(scale, axis=0).repeat(scale, axis=1)
