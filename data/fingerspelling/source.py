"""Finger-spelled words as training and validation clips."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy

from common.errors import UserError
from common.randomness import derive_seed, numpy_generator
from data.cache import ClipCache
from data.fingerspelling.alphabet import Alphabet
from data.fingerspelling.composition import compose_word
from data.fingerspelling.lexicon import language_entries, read_recording
from data.fingerspelling.renderer import NEUTRAL_STYLE, random_style, render_word
from data.fingerspelling.strokes import LetterMotion, letter_motions
from data.fingerspelling.words import WordSplit
from data.records import ClipRow

RENDERING_VERSION = 2  # raised when the same word and style would look different: old cache entries then do not count
TIMING_JITTER = 0.1  # of a letter's frames: how far a change of letters may move


@lru_cache(maxsize=4)
def load_letters(signed_language: str) -> tuple[Alphabet, Mapping[str, LetterMotion]]:
    """Return a language's alphabet and its letters by symbol.

    Raises:
        UserError: the language is not in the lexicon.
    """
    entries = language_entries(signed_language)
    motions = letter_motions([read_recording(entry) for entry in entries])
    alphabet = Alphabet([entry.symbol for entry in entries], entries[0].spoken_language, signed_language)
    return alphabet, {motion.symbol: motion for motion in motions}


def jittered_boundaries(num_letters: int, num_frames: int, generator: numpy.random.Generator) -> numpy.ndarray:
    """Return the times, in frames, at which letters change: even ones, each moved a little. Shape [L - 1]."""
    jitter = generator.uniform(-TIMING_JITTER, TIMING_JITTER, num_letters - 1)
    return numpy.asarray((numpy.arange(1, num_letters) + jitter) * num_frames / num_letters)


@dataclass(frozen=True)
class WordRenderer:
    """Turns words into clips of one length and size."""

    alphabet: Alphabet
    letters: Mapping[str, LetterMotion]
    num_frames: int
    image_size: int
    cache: ClipCache

    def clip(self, word: str, style_seed: int | None) -> numpy.ndarray:
        """Return a word as uint8 [T, H, W, 3]; a style seed of None gives the neutral style and even timing.

        Raises:
            UserError: the word cannot be spelled, or has more letters than the clip has frames.
        """
        symbols = self.alphabet.segment(word)
        if len(symbols) > self.num_frames:
            raise UserError(f"{word!r} has {len(symbols)} letters: too many for {self.num_frames} frames.")
        key = (
            "fingerspelling",
            RENDERING_VERSION,
            self.alphabet.signed_language,
            "\0".join(symbols),
            self.num_frames,
            self.image_size,
            "neutral" if style_seed is None else style_seed,
        )
        return self.cache.get_or_make(key, lambda: self.render(symbols, style_seed))

    def render(self, symbols: Sequence[str], style_seed: int | None) -> numpy.ndarray:
        """Return symbols, no more than the clip has frames, as `clip` does, but draw them anew and keep nothing."""
        style, boundaries = NEUTRAL_STYLE, None
        if style_seed is not None:
            generator = numpy_generator(style_seed, "fingerspelling_style")
            style = random_style(generator)
            boundaries = jittered_boundaries(len(symbols), self.num_frames, generator)
        motion = compose_word([self.letters[symbol] for symbol in symbols], self.num_frames, boundaries)
        return render_word(motion, self.image_size, style)


@dataclass(frozen=True)
class TrainingWords:
    """Fresh random words with a fresh look in every epoch, none of them held out."""

    renderer: WordRenderer
    split: WordSplit
    epoch_size: int
    seed: int

    def __len__(self) -> int:
        return self.epoch_size

    def row(self, epoch: int, index: int) -> ClipRow:
        if not 0 <= index < self.epoch_size:
            raise IndexError(index)
        word = self.split.draw_training_word(numpy_generator(self.seed, "training_word", epoch, index))
        style_seed = derive_seed(self.seed, "training_style", epoch, index)
        return ClipRow(f"{epoch}/{index}/{''.join(word)}", "".join(word), style_seed)

    def groups(self) -> None:
        return None

    def load(self, row: ClipRow) -> numpy.ndarray:
        return self.renderer.clip(row.caption, row.style_seed)


@dataclass(frozen=True)
class FixedWords:
    """The same clips in every epoch."""

    renderer: WordRenderer
    rows: tuple[ClipRow, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def row(self, epoch: int, index: int) -> ClipRow:
        if not 0 <= index < len(self.rows):
            raise IndexError(index)
        return self.rows[index]

    def groups(self) -> None:
        return None

    def load(self, row: ClipRow) -> numpy.ndarray:
        return self.renderer.clip(row.caption, row.style_seed)
