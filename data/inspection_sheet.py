"""A picture of some clips of a data set, as the training sees them."""

from collections.abc import Sequence
from dataclasses import dataclass

import imageio.v3
import numpy

from common.filmstrip import filmstrips
from data.clip_reader import ClipReader, InspectedClip
from data.clip_splits import hash_order
from data.unusable import UnusableClip

CLIPS_SHOWN = 24
LABEL_WIDTH = 260
LONGEST_NAME = 34


@dataclass(frozen=True)
class Sheet:
    """A picture of filmstrips."""

    png: bytes
    clips: int


def draw_sheet(clips: Sequence[InspectedClip], reader: ClipReader, seed: int) -> Sheet | None:
    """Draw filmstrips of a random choice of clips; None where there is no clip.

    Args:
        clips: usable ones.
        reader: decodes them, from the cache where they are in it.
        seed: of the choice.
    """
    rows: list[tuple[str, numpy.ndarray]] = []
    for clip in hash_order(clips, seed)[:CLIPS_SHOWN]:
        try:
            rows.append((f"{clip.row.caption}\n{clip.row.id[-LONGEST_NAME:]}", reader.clip(clip)))
        except UnusableClip:  # gone in this moment: the picture shows the others
            continue
    if not rows:
        return None
    return Sheet(imageio.v3.imwrite("<bytes>", filmstrips(rows, LABEL_WIDTH), extension=".png"), len(rows))
