"""Filmstrips of real and generated clips, one above the other, on one picture."""

from collections.abc import Sequence

import numpy

from common.filmstrip import filmstrips


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
            rows.append((f"{text}\nreal", real_clip))
        rows.append((f"{text}\ngenerated", generated_clip))
    return filmstrips(rows)
