"""How many frames a clip of some seconds has."""

from collections.abc import Sequence
from dataclasses import dataclass

from common.field_types import FRAME_STEP, MOST_FRAMES
from config import Config


@dataclass(frozen=True)
class ClipLengths:
    """The lengths of a training's clips.

    Attributes:
        frames_per_second: of what is shown, and of the videos that are written.
        min_frames: of the shortest clips; what lasts less is shown slower.
        max_frames: of the longest clips; what lasts longer is shown faster.
        is_natural: whether clips keep their own duration; else all of them have `max_frames`.
    """

    frames_per_second: float
    min_frames: int
    max_frames: int
    is_natural: bool

    def of(self, seconds: float) -> int:
        """Return the frames of a clip: of multiples of FRAME_STEP the one that is nearest to its own duration."""
        return min(self.asked(seconds), self.max_frames)

    def asked(self, seconds: float) -> int:
        """Return the frames of a clip that is asked for, which may last longer than any in training."""
        if not self.is_natural:
            return self.max_frames
        return max(FRAME_STEP * int(seconds * self.frames_per_second / FRAME_STEP + 0.5), self.min_frames)

    def is_shortened(self, seconds: float) -> bool:
        """Return whether a clip lasts longer than the longest may, and is therefore shown faster."""
        return self.is_natural and seconds * self.frames_per_second >= self.max_frames + FRAME_STEP / 2


class SignLengths(ClipLengths):
    """Lengths to the frame, of signs that are to be joined: only the sentence gets a multiple of FRAME_STEP."""

    def asked(self, seconds: float) -> int:
        """Return the frames of a sign: the nearest number."""
        return max(round(seconds * self.frames_per_second), 1)


def equal_lengths(lengths: Sequence[int], most_frames: int) -> list[list[int]]:
    """Group clips that can pass through a network together.

    Args:
        lengths: frames of each clip.
        most_frames: of a group; one that is longer is a group of its own.

    Returns:
        The places of the clips, each in one group; those of a group have one length.
    """
    places: dict[int, list[int]] = {}
    for place, frames in enumerate(lengths):
        places.setdefault(frames, []).append(place)
    groups = []
    for frames, alike in places.items():
        size = max(1, most_frames // frames)
        groups += [alike[start : start + size] for start in range(0, len(alike), size)]
    return groups


def clip_lengths(config: Config) -> ClipLengths:
    """Return the lengths that the constants under "Data" ask for."""
    return ClipLengths(
        frames_per_second=config.FRAMES_PER_SECOND,
        min_frames=config.MIN_FRAMES,
        max_frames=config.MAX_FRAMES,
        is_natural=config.CLIP_TIMING == "natural",
    )


def stored_lengths(config: Config) -> ClipLengths:
    """Return the lengths in which clips of DATA_ROOT are decoded: their own, where they are to be joined."""
    if config.COMPOSE_SIGNS == 1:
        return clip_lengths(config)
    return SignLengths(config.FRAMES_PER_SECOND, 1, MOST_FRAMES, is_natural=True)
