"""Which words can be spelled, which of them are trained on, and which are held out.

Held out are, of each sign language for itself, a share of the bigrams (pairs of neighbouring symbols), every word that
contains one of them, a share of the words of each length from two symbols up, and every word longer than the longest
training word. Single letters are always trained on. Several words with spaces between them are held out if one of them
is, or if all their letters would be as one word. This is a pure function of the seed and the alphabet: a hash decides
for each word, so no list of the words is needed.
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
from common.field_types import language_mark

ENUMERATED_WORDS = 120_000  # lengths with at most this many words get an exact share, longer ones a safe threshold
HASH_RANGE = 2.0**64
MOST_TRIES = 20_000
SPACE = " "  # between two words
SPACED_SHARE = 0.1  # of the training words of two letters or more, which a space makes two
DOUBLED_SHARE = 0.25  # of them, of which a letter takes its neighbour's place: LL is rare in random strings, and hard

Word = tuple[str, ...]  # symbols


class Alphabet:
    """The symbols of one sign language's lexicon.

    A symbol may be several characters long (German SCH, Italian bb): the longest that fits is taken. Upper and lower
    case are interchangeable if only one symbol can be meant. Where there are several languages, `mark` begins each
    symbol ("gsg:" that of gsg:H), because the same letter looks different in each.
    """

    def __init__(self, symbols: Sequence[str], spoken_language: str, signed_language: str, mark: str = "") -> None:
        self.symbols = tuple(mark + symbol for symbol in symbols)
        self.signed_language = signed_language
        self.mark = mark
        self._spoken_language = spoken_language
        self._exact = frozenset(symbols)
        self._longest = max(len(symbol) for symbol in symbols)
        folded: dict[str, str | None] = {}
        for symbol in symbols:
            key = self._fold(symbol)
            folded[key] = None if key in folded else symbol  # None: two symbols differ in their case alone
        self._folded = folded

    def segment(self, word: str) -> Word:
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
                    f"{word[position]!r}. It has: {self.written(self.symbols, ' ')}."
                )
            symbol, length = found
            symbols.append(self.mark + symbol)
            position += length
        return tuple(symbols)

    def can_spell(self, word: str) -> bool:
        """Return whether `segment` accepts the word."""
        return _is_spelled(self, word)

    def written(self, symbols: Sequence[str], between: str = "") -> str:
        """Return symbols as they are written."""
        return between.join(symbol.removeprefix(self.mark) for symbol in symbols)

    def is_unambiguous(self, symbols: Sequence[str]) -> bool:
        """Return whether the written word reads back as these very symbols (C, H reads as CH where that exists)."""
        return self._longest == 1 or self.segment(self.written(symbols)) == tuple(symbols)

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


def _is_spelled(alphabet: "Alphabet | Alphabets", text: str) -> bool:
    try:
        alphabet.segment(text)
    except UserError:
        return False
    return True


def letters_of(symbols: Sequence[str]) -> Word:
    """Return what is spelled, without the spaces."""
    return tuple(symbol for symbol in symbols if symbol != SPACE)


@dataclass(frozen=True)
class Alphabets:
    """Those of all sign languages of a training, and how captions say which is meant.

    Of one language, a caption is the written word. Of several, its language's code comes first: "gsg HALLO".
    """

    of_languages: tuple[Alphabet, ...]

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        """Those of all languages."""
        return tuple(symbol for alphabet in self.of_languages for symbol in alphabet.symbols)

    @property
    def languages(self) -> tuple[str, ...]:
        """Their codes."""
        return tuple(alphabet.signed_language for alphabet in self.of_languages)

    def of(self, word: Sequence[str]) -> Alphabet:
        """Return the alphabet of a word, which has at least one letter."""
        return self._by_mark[language_mark(letters_of(word)[0])]

    @cached_property
    def _by_mark(self) -> dict[str, Alphabet]:
        return {alphabet.mark: alphabet for alphabet in self.of_languages}

    def segment(self, caption: str) -> Word:
        """Return the symbols of a caption, as `Alphabet.segment` does.

        Raises:
            UserError: as `Alphabet.segment`, or the caption does not begin with the code of one of several languages.
        """
        if "" in self._by_mark:
            return self._by_mark[""].segment(caption)
        code, _, word = caption.strip().partition(SPACE)
        if f"{code}:" not in self._by_mark:
            raise UserError(
                f"{caption!r} cannot be finger-spelled: with several sign languages, the code of one comes first. "
                f"There are: {', '.join(self.languages)}."
            )
        return self._by_mark[f"{code}:"].segment(word)

    def can_spell(self, caption: str) -> bool:
        """Return whether `segment` accepts the caption."""
        return _is_spelled(self, caption)

    def caption(self, word: Sequence[str]) -> str:
        """Return the caption that asks for a word."""
        alphabet = self.of(word)
        written = alphabet.written(word)
        return f"{alphabet.signed_language}{SPACE}{written}" if alphabet.mark else written

    def draw(self, generator: numpy.random.Generator) -> Alphabet:
        """Draw one of several languages uniformly."""
        several = len(self.of_languages) > 1
        return self.of_languages[int(generator.integers(len(self.of_languages))) if several else 0]


@dataclass(frozen=True)
class WordSplit:
    """Decides for every word of each language whether it is held out."""

    alphabets: Alphabets
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
        """The held-out pairs, as captions, sorted: of each language exactly ceil(fraction x number of pairs)."""
        return tuple(sorted(map(self.alphabets.caption, self._held_out_pairs)))

    @cached_property
    def _held_out_pairs(self) -> frozenset[Word]:
        held_out: list[Word] = []
        for alphabet in self.alphabets.of_languages:
            pairs = list(itertools.product(alphabet.symbols, repeat=2))
            count = min(math.ceil(self.held_out_bigram_fraction * len(pairs) - 1e-9), len(pairs))
            held_out += sorted(pairs, key=lambda pair: self._hash("bigram", pair))[:count]
        return frozenset(held_out)

    @cached_property
    def _thresholds(self) -> dict[tuple[str, int], float]:
        lengths = range(2, self.max_word_letters + 1)
        return {
            (alphabet.mark, length): self._threshold(alphabet, length)
            for alphabet in self.alphabets.of_languages
            for length in lengths
        }

    def _threshold(self, alphabet: Alphabet, length: int) -> float:
        """Return the hash below which a word of this length is held out, whatever its bigrams."""
        total = len(alphabet.symbols) ** length
        if self.held_out_word_fraction <= 0:
            return 0.0
        if total <= ENUMERATED_WORDS:
            words = itertools.product(alphabet.symbols, repeat=length)
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
        return self._hash("word", symbols) < self._thresholds[self.alphabets.of(symbols).mark, len(symbols)]

    def held_out_words(self, length: int) -> list[str]:
        """Return all held-out words of a length, as captions, sorted: there are symbols ** length a language to try."""
        return sorted(
            self.alphabets.caption(word)
            for alphabet in self.alphabets.of_languages
            for word in itertools.product(alphabet.symbols, repeat=length)
            if self.is_held_out(word) and alphabet.is_unambiguous(word)
        )

    def draw_training_word(self, generator: numpy.random.Generator) -> Word:
        """Draw a length uniformly, then a training word by `draw_training_word_of`.

        Raises:
            UserError: practically every word of that length is held out.
        """
        return self.draw_training_word_of(int(generator.integers(1, self.max_word_letters + 1)), generator)

    def draw_training_word_of(self, length: int, generator: numpy.random.Generator) -> Word:
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
            if not self.is_held_out(doubled) and self.alphabets.of(doubled).is_unambiguous(doubled):
                word = doubled
        if generator.random() >= SPACED_SHARE:
            return word
        spaced = [(*word[:place], SPACE, *word[place:]) for place in range(1, length)]
        usable = [symbols for symbols in spaced if not self.is_held_out(symbols)]
        return usable[int(generator.integers(len(usable)))] if usable else word

    def draw_held_out_word(self, generator: numpy.random.Generator) -> Word:
        """Draw a length of two or more uniformly, then uniformly one of that length's held-out words."""
        return self.draw_word(int(generator.integers(2, self.max_word_letters + 1)), generator, held_out=True)

    def check(self) -> None:
        """Raise a UserError if a length has (practically) no training words in a language."""
        for alphabet in self.alphabets.of_languages:
            for length in range(2, self.max_word_letters + 1):
                self.draw_word(length, numpy.random.default_rng(0), held_out=False, alphabet=alphabet)

    def draw_word(
        self, length: int, generator: numpy.random.Generator, *, held_out: bool, alphabet: Alphabet | None = None
    ) -> Word:
        """Draw uniformly one of a length's held-out words, or of its training words.

        `alphabet`: of its language, which is drawn too if None.

        Raises:
            UserError: there are practically none.
        """
        alphabet = self.alphabets.draw(generator) if alphabet is None else alphabet
        symbols = alphabet.symbols
        for _ in range(MOST_TRIES):
            word = tuple(symbols[place] for place in generator.integers(0, len(symbols), length).tolist())
            if self.is_held_out(word) == held_out and alphabet.is_unambiguous(word):
                return word
        kind = "held-out" if held_out else "training"
        raise UserError(
            f"HELD_OUT_WORD_FRACTION={self.held_out_word_fraction} and "
            f"HELD_OUT_BIGRAM_FRACTION={self.held_out_bigram_fraction} leave "
            f"practically no {kind} words of {length} letters in {alphabet.signed_language!r}: change the fractions or "
            "MAX_WORD_LETTERS."
        )

    def _hash(self, purpose: str, symbols: Sequence[str]) -> float:
        alphabet = self.alphabets.of(symbols)
        text = f"{self.seed}/{alphabet.signed_language}/{purpose}/" + alphabet.written(symbols, "\0")
        return float(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big"))
