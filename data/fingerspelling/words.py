"""Which words are trained on and which are held out, as a pure function of the seed and the alphabet.

Held out are a share of the bigrams (pairs of neighbouring symbols), every word that contains one of them, a share of
the words of each length from two symbols up, and every word longer than the longest training word. Single letters are
always trained on. Nobody needs a list of the words: each one's place is decided by a hash.
"""

import hashlib
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy

from common.errors import UserError
from data.fingerspelling.alphabet import Alphabet

ENUMERATED_WORDS = 120_000  # lengths with at most so many words get an exact share, longer ones a safe threshold
HASH_RANGE = 2.0**64
MOST_TRIES = 20_000


@dataclass(frozen=True)
class WordSplit:
    """Decides for every word whether it is held out."""

    alphabet: Alphabet
    max_letters: int
    word_fraction: float
    bigram_fraction: float
    seed: int

    @cached_property
    def held_out_bigrams(self) -> tuple[str, ...]:
        """The held-out pairs, sorted: exactly ceil(fraction x number of pairs) of them."""
        return tuple(sorted("".join(pair) for pair in self._held_out_pairs))

    @cached_property
    def _held_out_pairs(self) -> frozenset[tuple[str, ...]]:
        pairs = list(itertools.product(self.alphabet.symbols, repeat=2))
        count = min(math.ceil(self.bigram_fraction * len(pairs) - 1e-9), len(pairs))
        return frozenset(sorted(pairs, key=lambda pair: self._hash("bigram", pair))[:count])

    @cached_property
    def _thresholds(self) -> dict[int, float]:
        """For each length, the hash below which a word is held out, whatever its bigrams."""
        return {length: self._threshold(length) for length in range(2, self.max_letters + 1)}

    def _threshold(self, length: int) -> float:
        total = len(self.alphabet.symbols) ** length
        if self.word_fraction <= 0:
            return 0.0
        if total <= ENUMERATED_WORDS:
            words = itertools.product(self.alphabet.symbols, repeat=length)
            hashes = numpy.sort(numpy.fromiter((self._hash("word", word) for word in words), numpy.float64, total))
            rank = min(math.ceil(self.word_fraction * total - 1e-9), total)
            return float(numpy.nextafter(hashes[rank - 1], numpy.inf))
        # Four standard deviations more than the fraction, so that the share is reached for any seed.
        spread = math.sqrt(self.word_fraction * (1 - self.word_fraction) / total)
        return min(self.word_fraction + 4 * spread, 1.0) * HASH_RANGE

    def is_held_out(self, symbols: Sequence[str]) -> bool:
        """Return whether no training clip may show this word."""
        if len(symbols) > self.max_letters:
            return True
        if len(symbols) < 2:
            return False
        if any(pair in self._held_out_pairs for pair in itertools.pairwise(symbols)):
            return True
        return self._hash("word", symbols) < self._thresholds[len(symbols)]

    def held_out_words(self, length: int) -> list[str]:
        """Return all held-out words of a length, sorted. Meant for short words: there are symbols ** length to try."""
        words = itertools.product(self.alphabet.symbols, repeat=length)
        return sorted("".join(word) for word in words if self.is_held_out(word) and self.alphabet.is_unambiguous(word))

    def draw_training_word(self, generator: numpy.random.Generator) -> tuple[str, ...]:
        """Draw a length uniformly, then uniformly one of that length's training words.

        Raises:
            UserError: practically every word of that length is held out.
        """
        return self.draw_word(int(generator.integers(1, self.max_letters + 1)), generator, held_out=False)

    def draw_held_out_word(self, generator: numpy.random.Generator) -> tuple[str, ...]:
        """Draw a length of two or more uniformly, then uniformly one of that length's held-out words."""
        return self.draw_word(int(generator.integers(2, self.max_letters + 1)), generator, held_out=True)

    def check(self) -> None:
        """Raise a UserError if a length has (practically) no training words."""
        for length in range(2, self.max_letters + 1):
            self.draw_word(length, numpy.random.default_rng(0), held_out=False)

    def draw_word(self, length: int, generator: numpy.random.Generator, *, held_out: bool) -> tuple[str, ...]:
        """Draw uniformly one of a length's held-out words, or of its training words.

        Raises:
            UserError: there are practically none.
        """
        symbols = self.alphabet.symbols
        for _ in range(MOST_TRIES):
            word = tuple(symbols[place] for place in generator.integers(0, len(symbols), length).tolist())
            if self.is_held_out(word) == held_out and self.alphabet.is_unambiguous(word):
                return word
        kind = "held-out" if held_out else "training"
        raise UserError(
            f"HELD_OUT_WORD_FRACTION={self.word_fraction} and HELD_OUT_BIGRAM_FRACTION={self.bigram_fraction} leave "
            f"practically no {kind} words of {length} letters: change the fractions or MAX_WORD_LETTERS."
        )

    def _hash(self, purpose: str, symbols: Sequence[str]) -> float:
        text = f"{self.seed}/{self.alphabet.signed_language}/{purpose}/" + "\0".join(symbols)
        return float(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big"))
