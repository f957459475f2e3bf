"""A picture of some clips of a data set, as the training sees them."""

from collections.abc import Sequence
from pathlib import Path

import imageio.v3
import numpy

from common.files import write_atomically
from common.filmstrip import filmstrips
from data.clip_reader import ClipReader, InspectedClip
from data.clip_splits import hash_order
from data.unusable import UnusableClip

CLIPS_SHOWN = 24
LABEL_WIDTH = 260
LONGEST_NAME = 34


def write_sheet(path: Path, clips: Sequence[InspectedClip], reader: ClipReader, seed: int) -> int:
    """Draw filmstrips of a random choice of clips and write them as PNG; return how many are shown.

    Args:
        path: of the picture; whole or absent.
        clips: usable ones.
        reader: decodes them, from the cache where they are in it.
        seed: of the choice.

    Raises:
        OSError: the picture cannot be written.
    """
    rows: list[tuple[str, numpy.ndarray]] = []
    for clip in hash_order(clips, seed)[:CLIPS_SHOWN]:
        try:
            rows.append((f"{clip.row.caption}\n{clip.row.id[-LONGEST_NAME:]}", reader.clip(clip)))
        except UnusableClip:  # gone in this moment: the picture shows the others
            continue
    if rows:
        write_atomically(path, imageio.v3.imwrite("<bytes>", filmstrips(rows, LABEL_WIDTH), extension=".png"))
    return len(rows)
