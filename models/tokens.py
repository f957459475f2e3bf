"""Captions to tokens."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from common.field_types import LONGEST_CAPTION, language_mark

PADDING = 0
NULL_CAPTION = 1
FIRST_TOKEN = 2  # ids from here on mean what captions are made of
SHOWN_SYMBOLS = 60  # more than any finger-spelling alphabet has

_ASCII = "abcdefghijklmnopqrstuvwxyz0123456789 .,!?'\"-:;()&%/"
_PUNCTUATION = "‘’“”„‚«»‹›–—…·¿¡§°€£$@#*+=_<>[]{}|~^`\\"
_BLOCKS = (range(0x00DF, 0x0250), range(0x1E00, 0x1F00), range(0x0370, 0x0530))
"""Latin-1, Latin Extended A and B, Latin Extended Additional (Vietnamese); Greek, Cyrillic and its supplement."""

TEXT_SYMBOLS = tuple(
    _ASCII + _PUNCTUATION + "İ" + "".join(chr(code) for block in _BLOCKS for code in block if chr(code).islower())
)
"""Letters are looked up in lower case too, so lower case is enough; the lower case of İ has two characters."""


class Tokenizer(Protocol):
    """Turns captions into ids: PADDING behind the shorter ones, NULL_CAPTION for one that says nothing."""

    symbols: tuple[str, ...]  # what the ids from FIRST_TOKEN on mean; empty where the language model says so
    max_length: int  # of a caption, in ids
    limit: int  # that `max_length` could have at most

    def encode(self, caption: str) -> tuple[list[int], str]:
        """Return the ids of a caption, uncut, and the characters that have none."""
        ...

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """Return ids [B, L] int64, cut to `max_length`."""
        ...


@dataclass(frozen=True)
class Unread:
    """What the model will not see of some captions."""

    characters: Counter[str]  # that the tokenizer does not know, and how often each occurs
    silent: tuple[str, ...]  # captions of which nothing is left
    cut_off: int  # captions of more tokens than are read
    longest: int  # tokens of the longest caption
    alike: tuple[str, ...]  # captions that differ from another one only in what is not read


def unread(tokenizer: Tokenizer, captions: Iterable[str]) -> Unread:
    """Return what the model will not see of captions; each is counted as often as it comes."""
    characters: Counter[str] = Counter()
    silent: list[str] = []
    cut_off, longest = 0, 0
    captions_by_reading: dict[tuple[int, ...], list[str]] = {}
    for caption in captions:
        tokens, dropped = tokenizer.encode(caption)
        characters.update(dropped)
        cut_off += len(tokens) > tokenizer.max_length
        longest = max(longest, len(tokens))
        if says_nothing(caption, dropped):
            silent.append(caption)
        elif dropped or len(tokens) > tokenizer.max_length:
            captions_by_reading.setdefault(as_read(tokenizer, caption), []).append(caption)
        else:
            captions_by_reading.setdefault(tuple(tokens), []).append(caption)
    groups = (group for group in captions_by_reading.values() if len({each.casefold() for each in group}) > 1)
    return Unread(characters, tuple(silent), cut_off, longest, tuple(itertools.chain.from_iterable(groups)))


def as_read(tokenizer: Callable[[Sequence[str]], Tensor], caption: str) -> tuple[int, ...]:
    """Return the ids that the model gets for a caption: captions with the same ids are one to it."""
    return tuple(tokenizer([caption])[0].tolist())


def shown_symbols(symbols: Sequence[str]) -> str:
    """Return symbols for a message; the beginning of a long list."""
    shown = " ".join(symbols[:SHOWN_SYMBOLS])
    return f"{shown} ... ({len(symbols)} in all)" if len(symbols) > SHOWN_SYMBOLS else shown


def says_nothing(caption: str, dropped: str) -> bool:
    """Return whether nothing is left of a caption whose `dropped` characters are not known."""
    return len(dropped) >= len("".join(caption.split()))


def pad_tokens(rows: Sequence[Sequence[int]]) -> Tensor:
    """Return rows of ids as [B, L] int64, with PADDING behind the shorter ones and NULL_CAPTION for empty ones."""
    filled = [list(row) or [NULL_CAPTION] for row in rows]
    longest = max(map(len, filled))
    return torch.tensor([row + [PADDING] * (longest - len(row)) for row in filled], dtype=torch.int64)


class CharacterTokenizer:
    """Splits captions into known symbols, longest first, and drops what it does not know.

    A symbol is looked up as written, then in upper case, then in lower case, so that "cab" finds the letters of an
    upper-case lexicon. Where symbols have language marks, a caption begins with its language's code: "gsg cab" has the
    symbols gsg:C, gsg:A and gsg:B.
    """

    def __init__(self, symbols: Sequence[str], max_length: int) -> None:
        if not symbols or any(not symbol for symbol in symbols) or len(set(symbols)) != len(symbols):
            raise ValueError(f"symbols must be unique and not empty, got {list(symbols)}")
        self.symbols = tuple(symbols)
        self.max_length = max_length
        self.limit = LONGEST_CAPTION
        self._token_of_symbol = {symbol: FIRST_TOKEN + index for index, symbol in enumerate(self.symbols)}
        self._marks = {mark for mark in map(language_mark, self.symbols) if mark}
        self._longest = max(len(symbol) - len(language_mark(symbol)) for symbol in self.symbols)

    def encode(self, caption: str) -> tuple[list[int], str]:
        """Return the ids of a caption, uncut, and the characters that were dropped because no symbol has them."""
        tokens: list[int] = []
        dropped: list[str] = []
        start = 0
        code, _, rest = caption.partition(" ")
        mark = f"{code}:" if f"{code}:" in self._marks else ""
        if mark:
            caption = rest
        while start < len(caption):
            for length in range(min(self._longest, len(caption) - start), 0, -1):
                token = self._lookup(caption[start : start + length], mark)
                if token is not None:
                    tokens.append(token)
                    start += length
                    break
            else:
                dropped.append(caption[start])
                start += 1
        return tokens, "".join(dropped)

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """Return ids [B, L] int64, cut to `max_length`; a caption without any known symbol is the null caption."""
        return pad_tokens([self.encode(caption)[0][: self.max_length] for caption in captions])

    def _lookup(self, text: str, mark: str) -> int | None:
        for candidate in (text, text.upper(), text.lower()):
            for symbol in (mark + candidate, candidate):  # a space has no mark
                if symbol in self._token_of_symbol:
                    return self._token_of_symbol[symbol]
        return None
