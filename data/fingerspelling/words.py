"""Which words can be spelled, which of them are trained on, and which are held out.

Held out are a share of the bigrams (pairs of neighbouring symbols), every word that contains one of them, a share of
the words of each length from two symbols up, and every word longer than the longest training word. Single letters are
always trained on. Several words with spaces between them are held out if one of them is, or if all their letters would
be as one word. This is a pure function of the seed and the alphabet: a hash decides for each word, so no list of the
words is needed.
"""

import hashlib
import itertools
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy

from common.errors import UserError

ENUMERATED_WORDS = 120_000  # lengths with at most this many words get an exact share, longer ones a safe threshold
HASH_RANGE = 2.0**64
MOST_TRIES = 20_000
SPACE = " "  # between two words
SPACED_SHARE = 0.1  # of the training words of two letters or more, which a space makes two
DOUBLED_SHARE = 0.25  # of them, of which a letter takes its neighbour's place: LL is rare in random strings, and hard


class Alphabet:
    """The symbols of one sign language's lexicon.

    A symbol may be several characters long (German SCH, Italian bb): the longest that fits is taken. Upper and lower
    case are interchangeable if only one symbol can be meant.
    """

    def __init__(self, symbols: Sequence[str], spoken_language: str, signed_language: str) -> None:
        self.symbols = tuple(symbols)
        self.signed_language = signed_language
        self._spoken_language = spoken_language
        self._exact = frozenset(symbols)
        self._longest = max(len(symbol) for symbol in symbols)
        folded: dict[str, str | None] = {}
        for symbol in symbols:
            key = self._fold(symbol)
            folded[key] = None if key in folded else symbol  # None: two symbols differ in their case alone
        self._folded = folded

    def segment(self, word: str) -> tuple[str, ...]:
        """Return the symbols that spell a word, or several with one SPACE between them.

        Raises:
            UserError: the word is empty or needs a symbol that the lexicon lacks; the message lists what exists.
        """
        word = unicodedata.normalize("NFC", SPACE.join(word.split()))
        if not word:
            raise UserError("An empty word cannot be finger-spelled: give at least one letter.")
        symbols: list[str] = []
        position = 0
        while position < len(word):
            if word[position] == SPACE:
                symbols.append(SPACE)
                position += 1
                continue
            found = self._symbol_at(word, position)
            if found is None:
                raise UserError(
                    f"{word!r} cannot be finger-spelled: the lexicon of {self.signed_language!r} has no symbol "
                    f"{word[position]!r}. It has: {' '.join(self.symbols)}."
                )
            symbol, length = found
            symbols.append(symbol)
            position += length
        return tuple(symbols)

    def can_spell(self, word: str) -> bool:
        """Return whether `segment` accepts the word."""
        try:
            self.segment(word)
        except UserError:
            return False
        return True

    def is_unambiguous(self, symbols: Sequence[str]) -> bool:
        """Return whether the written word reads back as these very symbols (C, H reads as CH where that exists)."""
        return self._longest == 1 or self.segment("".join(symbols)) == tuple(symbols)

    def _symbol_at(self, word: str, position: int) -> tuple[str, int] | None:
        for length in range(min(self._longest, len(word) - position), 0, -1):
            text = word[position : position + length]
            if text in self._exact:
                return text, length
            symbol = self._folded.get(self._fold(text))
            if symbol is not None:
                return symbol, length
        return None

    def _fold(self, text: str) -> str:
        if self._spoken_language == "tr":  # Turkish pairs i with İ and ı with I
            text = text.replace("İ", "i").replace("I", "ı")
        return text.lower()


def letters_of(symbols: Sequence[str]) -> tuple[str, ...]:
    """Return what is spelled, without the spaces."""
    return tuple(symbol for symbol in symbols if symbol != SPACE)


@dataclass(frozen=True)
class WordSplit:
    """Decides for every word whether it is held out."""

    alphabet: Alphabet
    max_word_letters: int
    held_out_word_fraction: float
    held_out_bigram_fraction: float
    seed: int

    @property
    def holds_words_out(self) -> bool:
        """Return whether there are held-out words of no more than `max_word_letters`."""
        return self.max_word_letters >= 2 and max(self.held_out_word_fraction, self.held_out_bigram_fraction) > 0

    @cached_property
    def held_out_bigrams(self) -> tuple[str, ...]:
        """The held-out pairs, sorted: exactly ceil(fraction x number of pairs) of them."""
        return tuple(sorted("".join(pair) for pair in self._held_out_pairs))

    @cached_property
    def _held_out_pairs(self) -> frozenset[tuple[str, ...]]:
        pairs = list(itertools.product(self.alphabet.symbols, repeat=2))
        count = min(math.ceil(self.held_out_bigram_fraction * len(pairs) - 1e-9), len(pairs))
        return frozenset(sorted(pairs, key=lambda pair: self._hash("bigram", pair))[:count])

    @cached_property
    def _thresholds(self) -> dict[int, float]:
        return {length: self._threshold(length) for length in range(2, self.max_word_letters + 1)}

    def _threshold(self, length: int) -> float:
        """Return the hash below which a word of this length is held out, whatever its bigrams."""
        total = len(self.alphabet.symbols) ** length
        if self.held_out_word_fraction <= 0:
            return 0.0
        if total <= ENUMERATED_WORDS:
            words = itertools.product(self.alphabet.symbols, repeat=length)
            hashes = numpy.sort(numpy.fromiter((self._hash("word", word) for word in words), numpy.float64, total))
            rank = min(math.ceil(self.held_out_word_fraction * total - 1e-9), total)
            return float(numpy.nextafter(hashes[rank - 1], numpy.inf))
        # Four standard deviations more than the fraction, so that the share is reached for any seed.
        spread = math.sqrt(self.held_out_word_fraction * (1 - self.held_out_word_fraction) / total)
        return min(self.held_out_word_fraction + 4 * spread, 1.0) * HASH_RANGE

    def is_held_out(self, symbols: Sequence[str]) -> bool:
        """Return whether no training clip may show this word, or these words."""
        if SPACE in symbols:
            parts = [tuple(part) for is_space, part in itertools.groupby(symbols, SPACE.__eq__) if not is_space]
            return any(map(self.is_held_out, (*parts, letters_of(symbols))))
        if len(symbols) > self.max_word_letters:
            return True
        if len(symbols) < 2:
            return False
        if any(pair in self._held_out_pairs for pair in itertools.pairwise(symbols)):
            return True
        return self._hash("word", symbols) < self._thresholds[len(symbols)]

    def held_out_words(self, length: int) -> list[str]:
        """Return all held-out words of a length, sorted. For short words: there are symbols ** length to try."""
        words = itertools.product(self.alphabet.symbols, repeat=length)
        return sorted("".join(word) for word in words if self.is_held_out(word) and self.alphabet.is_unambiguous(word))

    def draw_training_word(self, generator: numpy.random.Generator) -> tuple[str, ...]:
        """Draw a length uniformly, then a training word by `draw_training_word_of`.

        Raises:
            UserError: practically every word of that length is held out.
        """
        return self.draw_training_word_of(int(generator.integers(1, self.max_word_letters + 1)), generator)

    def draw_training_word_of(self, length: int, generator: numpy.random.Generator) -> tuple[str, ...]:
        """Draw uniformly one of a length's training words; double a letter of some, and put a space into some.

        Raises:
            UserError: practically every word of that length is held out.
        """
        word = self.draw_word(length, generator, held_out=False)
        if length < 2:
            return word
        if generator.random() < DOUBLED_SHARE:
            place = int(generator.integers(1, length))
            doubled = (*word[:place], word[place - 1], *word[place + 1 :])
            if not self.is_held_out(doubled) and self.alphabet.is_unambiguous(doubled):
                word = doubled
        if generator.random() >= SPACED_SHARE:
            return word
        spaced = [(*word[:place], SPACE, *word[place:]) for place in range(1, length)]
        usable = [symbols for symbols in spaced if not self.is_held_out(symbols)]
        return usable[int(generator.integers(len(usable)))] if usable else word

    def draw_held_out_word(self, generator: numpy.random.Generator) -> tuple[str, ...]:
        """Draw a length of two or more uniformly, then uniformly one of that length's held-out words."""
        return self.draw_word(int(generator.integers(2, self.max_word_letters + 1)), generator, held_out=True)

    def check(self) -> None:
        """Raise a UserError if a length has (practically) no training words."""
        for length in range(2, self.max_word_letters + 1):
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
            f"HELD_OUT_WORD_FRACTION={self.held_out_word_fraction} and "
            f"HELD_OUT_BIGRAM_FRACTION={self.held_out_bigram_fraction} leave "
            f"practically no {kind} words of {length} letters: change the fractions or MAX_WORD_LETTERS."
        )

    def _hash(self, purpose: str, symbols: Sequence[str]) -> float:
        text = f"{self.seed}/{self.alphabet.signed_language}/{purpose}/" + "\0".join(symbols)
        return float(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big"))
