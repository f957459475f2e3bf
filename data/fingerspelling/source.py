"""The embedded data set: finger-spelled words as training and validation clips."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy

from common.console import counted
from common.errors import UserError
from common.randomness import derive_seed, numpy_generator
from config import Config
from data.cache import ClipCache
from data.fingerspelling.drawing import NEUTRAL_STYLE, compose_word, random_style, render_word
from data.fingerspelling.lexicon import language_entries, read_recording
from data.fingerspelling.strokes import LetterMotion, letter_motions
from data.fingerspelling.words import Alphabet, WordSplit
from data.records import ClipRow, DataSplits, DataSummary

RENDERING_VERSION = 2  # raised when the same word and style would look different: old cache entries then do not count
TIMING_JITTER = 0.1  # of a letter's frames: how far a change of letters may move
LETTER_PROMPTS = 3
WORD_PROMPTS = 3
LISTED_LENGTHS = (2, 3)  # of which the report lists every held-out word
# Words that mean something, tried first as prompts where they are held out and can be spelled.
READABLE_WORDS = (
    *("HI", "CAT", "DOG", "SUN", "BUS", "TEA", "MAP", "RED", "BOX", "JAM", "ICE", "YES", "CAB", "FOX", "KEY", "VAN"),
    *("WEB", "ZIP", "ON", "UP", "GO", "NO", "WE", "DIA", "SOL", "MAR", "EIS", "TAG", "ALBA", "SIGN", "HAND"),
)


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


def draw_word(
    letters: Sequence[LetterMotion], num_frames: int, image_size: int, style_seed: int | None
) -> numpy.ndarray:
    """Return one or more letters, no more than there are frames, as uint8 [T, image_size, image_size, 3].

    The seed decides the look and the timing; None gives the neutral style and even timing.
    """
    style, boundaries = NEUTRAL_STYLE, None
    if style_seed is not None:
        generator = numpy_generator(style_seed, "fingerspelling_style")
        style = random_style(generator)
        jitter = generator.uniform(-TIMING_JITTER, TIMING_JITTER, len(letters) - 1)
        boundaries = (numpy.arange(1, len(letters)) + jitter) * num_frames / len(letters)
    return render_word(compose_word(letters, num_frames, boundaries), image_size, style)


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
        letters = [self.letters[symbol] for symbol in symbols]
        return draw_word(letters, self.num_frames, self.image_size, style_seed)


@dataclass(frozen=True)
class TrainingWords:
    """Fresh random words with a fresh look in every epoch, none of them held out.

    No clip comes twice in a run, so none is kept: a long run would fill the disk.
    """

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
        return self.renderer.render(self.split.alphabet.segment(row.caption), row.style_seed)


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


@dataclass(frozen=True)
class FingerspellingSplits(DataSplits):
    """The training, validation and real clips of finger-spelled words; `open_fingerspelling` makes it."""

    renderer: WordRenderer
    split: WordSplit

    def is_held_out(self, caption: str) -> bool:
        """Return whether no training clip shows the caption; also True of what cannot be spelled at all."""
        if not self.split.alphabet.can_spell(caption):
            return True
        return self.split.is_held_out(self.split.alphabet.segment(caption))

    def real_clip(self, caption: str) -> numpy.ndarray | None:
        """Return the caption in a neutral style; None if it cannot be spelled or needs more frames."""
        try:
            return self.renderer.clip(caption, None)
        except UserError:
            return None


def open_fingerspelling(config: Config, cache: ClipCache) -> DataSplits:
    """Open the embedded data set of SIGNED_LANGUAGE.

    Training words have 1 to MAX_WORD_LETTERS letters, drawn uniformly; validation clips show held-out words.

    Raises:
        UserError: the language is unknown, there are more letters than frames, or the fractions leave no words.
    """
    num_frames, max_word_letters, seed = config.MAX_FRAMES, config.MAX_WORD_LETTERS, config.SEED
    if max_word_letters > num_frames:
        raise UserError(
            f"MAX_WORD_LETTERS={max_word_letters} needs at least as many frames, but MAX_FRAMES={num_frames}: "
            "lower the one or raise the other."
        )
    alphabet, letters = load_letters(config.SIGNED_LANGUAGE)
    split = WordSplit(alphabet, max_word_letters, config.HELD_OUT_WORD_FRACTION, config.HELD_OUT_BIGRAM_FRACTION, seed)
    split.check()
    renderer = WordRenderer(alphabet, letters, num_frames, config.IMAGE_SIZE, cache)
    rows = _validation_rows(split, config.VALIDATION_CLIPS)
    kind = "held-out words" if split.holds_words_out else "training words in other styles (no words are held out)"
    description = (
        f"Finger-spelling of {config.SIGNED_LANGUAGE!r}: {len(alphabet.symbols)} letters, words of 1 to "
        f"{max_word_letters}, {counted(config.EPOCH_SIZE, 'clip')} an epoch; validation on {len(rows)} {kind}"
    )
    return FingerspellingSplits(
        summary=DataSummary(description, _report(split, rows)),
        training=TrainingWords(renderer, split, config.EPOCH_SIZE, seed),
        validation=FixedWords(renderer, rows),
        validation_of_trained=None,
        symbols=alphabet.symbols,
        default_prompts=_default_prompts(split),
        renderer=renderer,
        split=split,
    )


def _validation_rows(split: WordSplit, count: int) -> tuple[ClipRow, ...]:
    """Return fixed clips of distinct words as far as there are enough of them."""
    rows: list[ClipRow] = []
    seen: set[str] = set()
    generator = numpy_generator(split.seed, "validation_words")
    draw = split.draw_held_out_word if split.holds_words_out else split.draw_training_word
    tries = 0
    while len(rows) < count:
        word = "".join(draw(generator))
        tries += 1
        if word in seen and tries < 20 * count:
            continue
        seen.add(word)
        index = len(rows)
        rows.append(ClipRow(f"validation/{index}/{word}", word, derive_seed(split.seed, "validation_style", index)))
    return tuple(rows)


def _default_prompts(split: WordSplit) -> tuple[str, ...]:
    """Return the first letters, then held-out words, readable ones first."""
    prompts = list(split.alphabet.symbols[:LETTER_PROMPTS])
    candidates = [word for word in READABLE_WORDS if split.alphabet.can_spell(word)]
    usable = [
        symbols for symbols in map(split.alphabet.segment, candidates) if 2 <= len(symbols) <= split.max_word_letters
    ]
    words = ["".join(symbols) for symbols in usable if split.is_held_out(symbols) or not split.holds_words_out][:2]
    generator = numpy_generator(split.seed, "default_prompts")
    draw = split.draw_held_out_word if split.holds_words_out else split.draw_training_word
    for _ in range(100):
        if len(words) == WORD_PROMPTS:
            break
        word = "".join(draw(generator))
        if word not in words and word not in prompts:
            words.append(word)
    return tuple(prompts + words)


def _report(split: WordSplit, rows: tuple[ClipRow, ...]) -> dict[str, object]:
    return {
        "data": "fingerspelling",
        "signed_language": split.alphabet.signed_language,
        "symbols": list(split.alphabet.symbols),
        "seed": split.seed,
        "max_word_letters": split.max_word_letters,
        "held_out_word_fraction": split.held_out_word_fraction,
        "held_out_bigram_fraction": split.held_out_bigram_fraction,
        "held_out_bigrams": list(split.held_out_bigrams),
        "held_out_words": {
            str(length): split.held_out_words(length) for length in LISTED_LENGTHS if length <= split.max_word_letters
        },
        "other_lengths": f"by the same rule; every word of more than {split.max_word_letters} letters is held out",
        "validation": [{"id": row.id, "caption": row.caption} for row in rows],
    }
