"""Which words a trained run is asked to spell, and which of them it has seen."""

import itertools
import sys
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from common.errors import UserError
from common.randomness import numpy_generator
from data.batches import BatchOrder
from data.fingerspelling import FingerspellingSplits
from data.fingerspelling.words import WordSplit
from data.records import ClipRow
from measures.spelling import Word

WORDS_A_LENGTH = 24
"""Held-out words of each length that are drawn where the user names none."""


LETTERS, TRAINED, NEW = "letters", "words in training", "words not in training"


LONGER = "longer than in training"


@dataclass(frozen=True)
class AskedWord:
    """A word, with what training showed of it."""

    text: str
    symbols: Word
    in_training: bool  # a training clip showed it
    is_longer: bool  # than every word that may be trained on
    bigrams_in_training: tuple[tuple[str, bool], ...]  # each pair of neighbours, and whether a training clip showed it

    @property
    def group(self) -> str:
        """What it is averaged with."""
        if len(self.symbols) == 1:
            return LETTERS
        if self.is_longer:
            return LONGER
        return TRAINED if self.in_training else NEW


@dataclass(frozen=True)
class TrainingHistory:
    """What the steps of a training showed.

    Attributes:
        words: every word.
        pairs: every pair of neighbouring symbols.
        rows: clips to compare generated ones with: those of the words that are asked for first, then clips spread
            evenly over the training.
        clips: how many there were.
    """

    words: frozenset[Word]
    pairs: frozenset[tuple[str, str]]
    rows: tuple[ClipRow, ...]
    clips: int


def read_words(path: Path, check: Callable[[str, str], None]) -> list[str]:
    """Read a file with one word a line; a word that stands there twice counts once.

    Args:
        check: receives where a word stands and the word, and raises a UserError if the run cannot take it.

    Raises:
        UserError: the file cannot be read or has no words, or the check of a word.
    """
    try:
        lines = unicodedata.normalize("NFC", path.read_text(encoding="utf-8-sig")).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--words {path}: cannot be read as UTF-8 text: {error}") from error
    if not lines:
        raise UserError(f"--words {path}: the file is empty; write one word a line")
    for number, line in enumerate(lines, 1):
        check(f"--words {path}, line {number}:", line.strip())
    return list(dict.fromkeys(line.strip() for line in lines))


def default_words(split: WordSplit, seed: int) -> list[str]:
    """Return every letter, and held-out words of each length that training has, drawn by the seed.

    Where the run holds no words out, its training words take their place.
    """
    words = list(split.alphabet.symbols)
    for length in range(2, split.max_word_letters + 1):
        generator = numpy_generator(seed, "evaluation_words", length)
        drawn = (
            "".join(split.draw_word(length, generator, held_out=holds_out(split))) for _ in range(20 * WORDS_A_LENGTH)
        )
        words += itertools.islice(dict.fromkeys(drawn), WORDS_A_LENGTH)
    return words


def holds_out(split: WordSplit) -> bool:
    """Return whether there are held-out words no longer than the longest training word."""
    return split.max_word_letters > 1 and max(split.held_out_word_fraction, split.held_out_bigram_fraction) > 0


def asked_words(symbols: Sequence[Word], history: TrainingHistory, max_letters: int) -> list[AskedWord]:
    """Say of each word whether training showed it, and each of its pairs; a word that comes twice counts once.

    Args:
        max_letters: of the longest training word.
    """
    words = []
    for word in dict.fromkeys(symbols):
        bigrams = tuple(("".join(pair), pair in history.pairs) for pair in itertools.pairwise(word))
        words.append(AskedWord("".join(word), word, word in history.words, len(word) > max_letters, bigrams))
    return words


def training_history(
    splits: FingerspellingSplits,
    *,
    step_batch: int,
    seed: int,
    steps: int,
    wanted: Sequence[Word],
    most_rows: int,
) -> TrainingHistory:
    """Go through the clips of a training's first steps once more, without drawing them.

    Args:
        step_batch: clips a step.
        seed: SEED of the run.
        steps: how many it has made.
        wanted: words that are asked for; at most half of `rows` show these.
        most_rows: of `rows`.
    """
    segment = splits.split.alphabet.segment
    every = max(1, -(-2 * steps * step_batch // most_rows))
    words: set[Word] = set()
    same: list[ClipRow] = []
    spread: list[ClipRow] = []
    clips = 0
    keys = itertools.islice(BatchOrder(splits.training, step_batch, seed, 0), steps)
    for key in tqdm(keys, total=steps, desc="replaying the training's order", file=sys.stderr, disable=None):
        for index in key.clip_indices:
            row = splits.training.row(key.epoch, index)
            word = segment(row.caption)
            words.add(word)
            if word in wanted and len(same) < most_rows // 2:
                same.append(row)
            elif clips % every == 0:
                spread.append(row)
            clips += 1
    pairs = frozenset(pair for word in words for pair in itertools.pairwise(word))
    return TrainingHistory(frozenset(words), pairs, (*same, *spread), clips)
