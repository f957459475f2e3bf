"""Which sentences of signs there are, which of them are trained on, and which are held out.

Held out are a share of the pairs of neighbouring signs, every sentence that contains one of them, a share of the
sentences of each length from two signs up, and every sentence longer than the longest training sentence. Single signs
are always trained on. A hash decides for each pair and each sentence, from the seed and the signs in it alone, so that
another sign in the data set moves none to the other side.
"""

import itertools
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy

from common.console import counted
from common.errors import UserError
from common.randomness import derive_seed
from data.captions import normalise_caption, shown_caption
from data.clip_splits import LARGEST_SEED, caption_key

MOST_TRIES = 20_000
MOST_WORDS = 3  # of a sign's caption, by which a set of signs is told from one of sentences
NAMED_SIGNS = 5
SPACE = " "  # between two signs

Sentence = tuple[str, ...]  # signs, each by its caption


@dataclass(frozen=True)
class Signs:
    """The signs of a data set. What captions have in common that the model cannot tell apart is one sign."""

    sign_of: Mapping[str, str]  # by the keys of all captions: the sign's first caption, which names it

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Return the signs, sorted."""
        return tuple(sorted(set(self.sign_of.values())))

    def segment(self, text: str) -> Sentence:
        """Return the signs that a text asks for; of several that begin at a word, the one with the most words.

        Raises:
            UserError: the text is empty, or has words that are no sign; the message names them.
        """
        signs, unknown = self._read(normalise_caption(text))
        if unknown:
            few = ", ".join(self.names[:NAMED_SIGNS])
            more = f" and {len(self.names) - NAMED_SIGNS} more" if len(self.names) > NAMED_SIGNS else ""
            named = ", ".join(map(repr, dict.fromkeys(unknown)))
            raise UserError(f"{shown_caption(text)} has words that are no known sign: {named}. Known: {few}{more}.")
        if not signs:
            raise UserError(f"{shown_caption(text)} names no sign.")
        return signs

    def is_unambiguous(self, sentence: Sentence) -> bool:
        """Return whether a sentence's caption reads back as these very signs (thank, you reads as "thank you")."""
        return self._read(SPACE.join(sentence)) == (sentence, ())

    def _read(self, caption: str) -> tuple[Sentence, tuple[str, ...]]:
        """Return the signs of a caption, and its words that are in none."""
        words = caption_key(caption).split()
        signs: list[str] = []
        unknown: list[str] = []
        while words:
            for length in range(min(self._most_words, len(words)), 0, -1):
                if (sign := self.sign_of.get(SPACE.join(words[:length]))) is not None:
                    signs.append(sign)
                    break
            else:
                length = 1
                unknown.append(words[0])
            words = words[length:]
        return tuple(signs), tuple(unknown)

    @cached_property
    def _most_words(self) -> int:
        return max(len(key.split()) for key in self.sign_of)


def signs_of_captions(captions: Iterable[str], read: Callable[[str], Hashable]) -> Signs:
    """Return the signs that captions name.

    `read`: what the model gets for a caption. Captions that are one to it are one sign.
    """
    named: dict[Hashable, str] = {}
    keys = {}
    for caption in sorted(captions):
        key = caption_key(caption)
        keys[SPACE.join(key.split())] = named.setdefault(read(key), caption)
    return Signs(keys)


@dataclass(frozen=True)
class SentenceSplit:
    """Decides for every sentence whether it is held out."""

    signs: Signs
    max_signs: int  # COMPOSE_SIGNS
    held_out_sentence_fraction: float  # HELD_OUT_WORD_FRACTION
    held_out_pair_fraction: float  # HELD_OUT_BIGRAM_FRACTION
    seed: int

    @property
    def holds_out(self) -> bool:
        """Return whether sentences of no more than `max_signs` may be held out."""
        return max(self.held_out_sentence_fraction, self.held_out_pair_fraction) > 0

    def is_held_out(self, sentence: Sentence) -> bool:
        """Return whether no training clip may show this sentence."""
        if len(sentence) > self.max_signs:
            return True
        if len(sentence) < 2:
            return False
        if any(self._is_drawn("pair", pair, self.held_out_pair_fraction) for pair in itertools.pairwise(sentence)):
            return True
        return self._is_drawn("sentence", sentence, self.held_out_sentence_fraction)

    def _is_drawn(self, kind: str, sentence: Sentence, fraction: float) -> bool:
        text = "\0".join(map(caption_key, sentence))
        return derive_seed(self.seed, f"held_out_{kind}/{text}") < fraction * LARGEST_SEED

    def draw(
        self, length: int, signs: Sequence[str], generator: numpy.random.Generator, *, held_out: bool
    ) -> Sentence | None:
        """Draw uniformly one of the held-out sentences of a length, or of the training ones, that these signs make.

        None: there are practically none.
        """
        for _ in range(MOST_TRIES):
            sentence = tuple(signs[place] for place in generator.integers(0, len(signs), length).tolist())
            if self.is_held_out(sentence) == held_out and self.signs.is_unambiguous(sentence):
                return sentence
        return None

    def draw_training(self, length: int, generator: numpy.random.Generator) -> Sentence:
        """Draw a training sentence of all signs.

        Raises:
            UserError: practically every sentence of that length is held out.
        """
        sentence = self.draw(length, self.signs.names, generator, held_out=False)
        if sentence is None:
            raise UserError(
                f"COMPOSE_SIGNS={self.max_signs}: HELD_OUT_WORD_FRACTION={self.held_out_sentence_fraction} and "
                f"HELD_OUT_BIGRAM_FRACTION={self.held_out_pair_fraction} leave practically no training sentences of "
                f"{counted(length, 'sign')} from {counted(len(self.signs.names), 'sign')}: lower one of the three."
            )
        return sentence

    def check(self) -> None:
        """Raise a UserError if a length has (practically) no training sentences, or captions are sentences already."""
        names = self.signs.names
        if 2 * len(long := [name for name in names if len(name.split()) > MOST_WORDS]) >= len(names):
            raise UserError(
                f"COMPOSE_SIGNS={self.max_signs} joins clips of single signs, and half or more of the captions have "
                f"more than {counted(MOST_WORDS, 'word')}, such as {shown_caption(long[0])}: they look like sentences. "
                "Set COMPOSE_SIGNS to 1, or shorten the captions to what names a sign."
            )
        for length in range(2, self.max_signs + 1):
            self.draw_training(length, numpy.random.default_rng(0))
