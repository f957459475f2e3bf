"""Can the clips be read? The score, and clips to compare with that nobody should be able to read."""

from collections.abc import Sequence

import numpy
from torch import Tensor

from evaluation.bootstrap import Interval, bootstrap_pairs, bootstrap_ratio
from evaluation.letter_errors import Word, error_counts, errors_against_others


def letter_error_interval(asked: Sequence[Word], read: Sequence[Word], seed: int) -> Interval:
    """Return substitutions, deletions and insertions as a share of the letters asked for. Every clip counts.

    Args:
        asked: the symbols of each clip's word.
        read: what was read, clip by clip.
        seed: of the bootstrap.
    """
    letters = numpy.array([len(word) for word in asked])
    return bootstrap_ratio(error_counts(asked, read), letters, _names(asked), seed)


def exact_match_interval(asked: Sequence[Word], read: Sequence[Word], seed: int) -> Interval:
    """Return the share of the clips that read exactly as asked."""
    matches = numpy.array([word == reading for word, reading in zip(asked, read, strict=True)])
    return bootstrap_ratio(matches, numpy.ones(len(asked)), _names(asked), seed)


def shuffled_floor_interval(asked: Sequence[Word], read: Sequence[Word], seed: int) -> Interval | None:
    """Return the letter error rate against all other words; None where all words are the same."""
    words, errors, letters = errors_against_others(asked, read)
    return None if len(words) < 2 else bootstrap_pairs(errors, letters, seed)


def still_clips(video_NCTHW: Tensor) -> Tensor:
    """Return each clip's middle frame, held for the whole clip: what can be read without seeing any motion."""
    middle = video_NCTHW.shape[2] // 2
    return video_NCTHW[:, :, middle : middle + 1].expand_as(video_NCTHW)


def _names(words: Sequence[Word]) -> list[str]:
    return ["\0".join(word) for word in words]
