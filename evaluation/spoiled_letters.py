"""Letters that nobody can read, so that the recogniser learns to read nothing in them.

A recogniser that has only seen whole letters names the likeliest letter for any smear: a generator that draws nothing
where a moving letter should be would be praised for it. So in a share of the real clips one letter is made unreadable
and left out of what the recogniser is asked for.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from evaluation.letter_errors import Word

SPOILED_SHARE = 0.35  # of the clips
BLURRED_SIZE = 4  # pixels a side that are left of a blurred frame: too few for a finger
MIXED_CLIPS = 6  # frames of so many clips are averaged to a smear, as a generator's first guess is
FAINTEST = 0.3  # of a smear's contrast


@dataclass(frozen=True)
class SpoiledClips:
    """Clips of which some have a letter that cannot be read.

    Attributes:
        video_BCTHW: [B, 3, T, H, W].
        spoiled_B: for each clip the place of the letter in its word; None for a clip that is as it was.
    """

    video_BCTHW: Tensor
    spoiled_B: tuple[int | None, ...]


def spoil_letters(
    video_BCTHW: Tensor,
    words: Sequence[Word],
    may_be_read: Callable[[Word], bool],
    generator: torch.Generator,
) -> SpoiledClips:
    """Blur, smear or wipe out one letter in some of the clips.

    Args:
        video_BCTHW: real clips; letter i of L is shown in the frames i * T / L to (i + 1) * T / L.
        words: the symbols of each clip.
        may_be_read: says of what would be left of a word whether a recogniser may be asked for it.
        generator: decides everything.
    """
    video = video_BCTHW.clone()
    spoiled: list[int | None] = []
    for index, word in enumerate(words):
        chance, place, kind, contrast = torch.rand(4, generator=generator).tolist()
        others = torch.randint(len(words), (MIXED_CLIPS,), generator=generator)
        letter = int(place * len(word))
        if chance >= SPOILED_SHARE or not may_be_read((*word[:letter], *word[letter + 1 :])):
            spoiled.append(None)
            continue
        first, last = shown_frames(letter, len(word), video.shape[2])
        clip = video_BCTHW[index, :, first:last]
        if kind < 1 / 3:
            unreadable = _blurred(clip)
        elif kind < 2 / 3:
            unreadable = _smeared(clip, video_BCTHW[others, :, first:last], FAINTEST + (1 - FAINTEST) * contrast)
        else:
            unreadable = _background(clip).expand_as(clip)
        video[index, :, first:last] = unreadable
        spoiled.append(letter)
    return SpoiledClips(video, tuple(spoiled))


def shown_frames(letter: int, letters: int, frames: int) -> tuple[int, int]:
    """Return the first frame whose centre lies in a letter's share of the clip, and the one after the last."""
    # Frame t has its centre at (t + 1/2) / frames: the first is the smallest t with that >= letter / letters.
    first, last = (-(-(2 * frames * edge - letters) // (2 * letters)) for edge in (letter, letter + 1))
    return max(first, 0), min(last, frames)


def _background(clip_CTHW: Tensor) -> Tensor:
    """Return the commonest value of each channel, which is the background's: [3, 1, 1, 1]."""
    return clip_CTHW.flatten(1).mode(dim=1).values[:, None, None, None]


def _blurred(clip_CTHW: Tensor) -> Tensor:
    frames_TCHW = clip_CTHW.transpose(0, 1)
    small = functional.adaptive_avg_pool2d(frames_TCHW, BLURRED_SIZE)
    size = list(clip_CTHW.shape[2:])
    return functional.interpolate(small, size=size, mode="bilinear", align_corners=False).transpose(0, 1)


def _smeared(clip_CTHW: Tensor, others_NCTHW: Tensor, contrast: float) -> Tensor:
    background = _background(clip_CTHW)
    return background + contrast * (others_NCTHW.mean(dim=0) - background)
