"""Error rates of letters, or of signs, and which are read as which. Spaces between words are no letters, and not read.

Of signs, the letter error rate is what is called the word error rate.
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import jiwer
import numpy
from torch import Tensor

from data.fingerspelling.words import Word, letters_of
from measures.bootstrap import Interval, bootstrap_pairs, bootstrap_ratio


@dataclass(frozen=True)
class Confusion:
    """What a letter was read as, and how often; None is nothing at all."""

    asked: str | None
    read: str | None
    count: int


def letter_error_rate(asked: Sequence[Word], read: Sequence[Word]) -> float:
    """Return substitutions, deletions and insertions as a share of the letters asked for (may exceed 1).

    A letter is a symbol of the alphabet, which may be several characters long. All clips are counted together.

    Raises:
        ValueError: no letter was asked for, or the lists differ in length.
    """
    letters = sum(map(len, map(letters_of, asked)))
    if letters == 0:
        raise ValueError("no letter was asked for")
    return float(error_counts(asked, read).sum() / letters)


def error_counts(asked: Sequence[Word], read: Sequence[Word]) -> numpy.ndarray:
    """Return the errors of each clip: [N] int64."""
    return numpy.array([_errors(letters_of(word), reading) for word, reading in zip(asked, read, strict=True)], "int64")


def errors_against_others(
    asked: Sequence[Word], read: Sequence[Word]
) -> tuple[list[Word], numpy.ndarray, numpy.ndarray]:
    """Compare what was read with every word that was asked for, not only with the right one.

    Returns:
        The W words, and two matrices [W, W] int64: the errors of all readings of word i against word j, and the letters
        that they should have had. Off the diagonal, their ratio is what a model that ignores its text would score.
    """
    asked = list(map(letters_of, asked))
    words = sorted(set(asked))
    place = {word: index for index, word in enumerate(words)}
    errors = numpy.zeros((len(words), len(words)), dtype=numpy.int64)
    letters = numpy.zeros_like(errors)
    length = numpy.array([len(word) for word in words])
    for own, reading in zip(asked, read, strict=True):
        errors[place[own]] += [_errors(word, reading) for word in words]
        letters[place[own]] += length
    return words, errors, letters


def shuffled_letter_error_rate(asked: Sequence[Word], read: Sequence[Word]) -> float | None:
    """Return the letter error rate against all other words, averaged; None where all words are the same."""
    words, errors, letters = errors_against_others(asked, read)
    others = ~numpy.eye(len(words), dtype=bool)
    return None if len(words) < 2 else float(errors[others].sum() / letters[others].sum())


def top_confusions(asked: Sequence[Word], read: Sequence[Word], count: int) -> list[Confusion]:
    """Return the most frequent errors, the commonest first, each of a single letter."""
    counter: Counter[tuple[str | None, str | None]] = Counter()
    for wanted, found in _aligned_parts(asked, read):
        if wanted != found:
            counter.update(itertools.zip_longest(wanted, found))
    ordered = sorted(counter.items(), key=lambda item: (-item[1], str(item[0])))
    return [Confusion(wanted, found, number) for (wanted, found), number in ordered[:count]]


def letters_read(asked: Sequence[Word], read: Sequence[Word]) -> dict[str, tuple[int, int]]:
    """Return for each letter how often it was read where it was asked for, and how often it was asked for.

    An average over all letters hides one that is never right.
    """
    wanted = Counter(symbol for word in asked for symbol in letters_of(word))
    right: Counter[str] = Counter()
    for part, found in _aligned_parts(asked, read):
        if part == found:
            right.update(part)
    return {symbol: (right[symbol], count) for symbol, count in sorted(wanted.items())}


def _aligned_parts(asked: Sequence[Word], read: Sequence[Word]) -> Iterator[tuple[Word, Word]]:
    """Yield aligned pieces of each word and its reading."""
    asked = list(map(letters_of, asked))
    for word, reading, chunks in zip(asked, read, _align(asked, read).alignments, strict=True):
        for chunk in chunks:
            yield word[chunk.ref_start_idx : chunk.ref_end_idx], reading[chunk.hyp_start_idx : chunk.hyp_end_idx]


@lru_cache(maxsize=100_000)
def _errors(asked: Word, read: Word) -> int:
    output = _align([asked], [read])
    return int(output.substitutions + output.deletions + output.insertions)


def _align(asked: Sequence[Word], read: Sequence[Word]) -> jiwer.WordOutput:
    return jiwer.process_words(list(map(_line, asked)), list(map(_line, read)))


def _line(word: Word) -> str:
    """Return symbols with a space between them and none in them: a sign such as "thank you" is one symbol."""
    return " ".join(symbol.replace(" ", "\0") for symbol in word)


def letter_error_interval(asked: Sequence[Word], read: Sequence[Word], seed: int) -> Interval:
    """Return the letter error rate with its interval, from a bootstrap by the seed."""
    letters = numpy.array([len(letters_of(word)) for word in asked])
    return bootstrap_ratio(error_counts(asked, read), letters, _names(asked), seed)


def exact_match_interval(asked: Sequence[Word], read: Sequence[Word], seed: int) -> Interval:
    """Return the share of the clips that read exactly as asked."""
    matches = numpy.array([letters_of(word) == reading for word, reading in zip(asked, read, strict=True)])
    return bootstrap_ratio(matches, numpy.ones(len(asked)), _names(asked), seed)


def shuffled_floor_interval(asked: Sequence[Word], read: Sequence[Word], seed: int) -> Interval | None:
    """Return the letter error rate against all other words; None where all words are the same."""
    words, errors, letters = errors_against_others(asked, read)
    return None if len(words) < 2 else bootstrap_pairs(errors, letters, seed)


def still_clip(clip_CTHW: Tensor) -> Tensor:
    """Return a clip's middle frame, held as long as the clip: what can be read without any motion."""
    middle = clip_CTHW.shape[1] // 2
    return clip_CTHW[:, middle : middle + 1].expand_as(clip_CTHW)


def _names(words: Sequence[Word]) -> list[str]:
    return ["\0".join(word) for word in words]
