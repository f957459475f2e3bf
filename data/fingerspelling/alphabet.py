"""What can be spelled: reading a typed word as a sequence of the lexicon's symbols."""

import unicodedata
from collections.abc import Sequence

from common.errors import UserError


class Alphabet:
    """The symbols of one sign language's lexicon.

    A symbol may be several characters long (German SCH, Italian bb): the longest symbol that fits is taken. Upper and
    lower case are accepted for one another where only one symbol can be meant.
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
        """Return the symbols that spell a word.

        Raises:
            UserError: the word is empty or needs a symbol that the lexicon lacks; the message lists what exists.
        """
        word = unicodedata.normalize("NFC", word.strip())
        if not word:
            raise UserError("An empty word cannot be finger-spelled: give at least one letter.")
        symbols: list[str] = []
        position = 0
        while position < len(word):
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
