"""The embedded data set: finger-spelled words as training and validation clips."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy

from common.console import counted
from common.errors import UserError
from common.field_types import MOST_LETTERS
from common.randomness import derive_seed, numpy_generator
from config import Config
from data.cache import ClipCache
from data.fingerspelling.drawing import NEUTRAL_STYLE, Style, compose_word, random_style, render_word
from data.fingerspelling.lexicon import language_entries, read_recording, recorded_languages
from data.fingerspelling.strokes import LetterMotion, letter_motions
from data.fingerspelling.timing import SpelledTime, WordTiming, random_speed, spelled_time, time_letters
from data.fingerspelling.words import SPACE, Alphabet, Alphabets, Word, WordSplit, letters_of
from data.lengths import ClipLengths, clip_lengths
from data.records import ClipRow, DataSplits, DataSummary, FixedRows

RENDERING_VERSION = 4  # raised when the same word and style would look different: old cache entries then do not count
MOST_TRIES = 300  # for a word of a certain length: a length so rare that they fail has its first word again
ALL_LANGUAGES = "all"
LETTER_PROMPTS = 3
WORD_PROMPTS = 3
LISTED_LENGTHS = (2, 3)  # of which the report lists every held-out word
# Words that mean something, tried first as prompts where they are held out and can be spelled.
READABLE_WORDS = (
    *("HI", "CAT", "DOG", "SUN", "BUS", "TEA", "MAP", "RED", "BOX", "JAM", "ICE", "YES", "CAB", "FOX", "KEY", "VAN"),
    *("WEB", "ZIP", "ON", "UP", "GO", "NO", "WE", "DIA", "SOL", "MAR", "EIS", "TAG", "ALBA", "SIGN", "HAND"),
)


@lru_cache(maxsize=64)
def load_letters(signed_language: str, mark: str = "") -> tuple[Alphabet, Mapping[str, LetterMotion]]:
    """Return a language's alphabet and its letters by symbol, each of which begins with the mark.

    Raises:
        UserError: the language is not in the lexicon.
    """
    entries = language_entries(signed_language)
    motions = letter_motions([read_recording(entry) for entry in entries])
    alphabet = Alphabet([entry.symbol for entry in entries], entries[0].spoken_language, signed_language, mark)
    return alphabet, {mark + motion.symbol: motion for motion in motions}


def load_languages(codes: Sequence[str]) -> tuple[Alphabets, Mapping[str, LetterMotion]]:
    """Return the alphabets of SIGNED_LANGUAGE, and all letters by symbol.

    Raises:
        UserError: a language is not in the lexicon.
    """
    if ALL_LANGUAGES in codes:
        if len(codes) > 1:
            raise UserError(f"SIGNED_LANGUAGE: {ALL_LANGUAGES!r} stands alone, or leave it out and list the codes.")
        codes = recorded_languages()
    loaded = [load_letters(code, f"{code}:" if len(codes) > 1 else "") for code in codes]
    letters = {symbol: letter for _, letters in loaded for symbol, letter in letters.items()}
    return Alphabets(tuple(alphabet for alphabet, _ in loaded)), letters


def draw_word(
    letters: Sequence[LetterMotion], time: SpelledTime, frames: int, image_size: tuple[int, int], style_seed: int | None
) -> numpy.ndarray:
    """Return one or more letters, spread over the frames, as uint8 [frames, *image_size, 3].

    The seed decides the look and the timing; None gives the neutral style and no jitter.
    """
    style, timing = _look(time, frames, style_seed)
    return render_word(compose_word(letters, timing), image_size, style)


def _look(time: SpelledTime, frames: int, style_seed: int | None) -> tuple[Style, WordTiming]:
    if style_seed is None:
        return NEUTRAL_STYLE, time_letters(time, frames)
    generator = numpy_generator(style_seed, "fingerspelling_style")
    return random_style(generator), time_letters(time, frames, generator)


def style_speed(style_seed: int) -> float:
    """Return the speed that goes with a look, for clips whose length nothing else decides."""
    return random_speed(numpy_generator(style_seed, "fingerspelling_speed"))


@dataclass(frozen=True)
class WordRenderer:
    """Turns words into clips of one size. Words are symbols of the alphabet and single spaces."""

    alphabets: Alphabets
    letters: Mapping[str, LetterMotion]
    lengths: ClipLengths
    image_size: tuple[int, int]  # height and width
    cache: ClipCache

    def seconds(self, symbols: Sequence[str]) -> float:
        """Return how long a word takes at speed 1."""
        return spelled_time(symbols, self.letters).seconds

    def frames(self, symbols: Sequence[str], speed: float = 1.0) -> int:
        """Return the frames of a word that is asked for."""
        return self.lengths.asked(self.seconds(symbols) / speed)

    def has_room_for(self, symbols: Sequence[str], frames: int | None = None) -> bool:
        """Return whether a word has few enough letters to be shown, in as many frames as it takes if None."""
        return len(letters_of(symbols)) <= min(MOST_LETTERS, self.frames(symbols) if frames is None else frames)

    def clip(self, caption: str, style_seed: int | None, frames: int | None = None) -> numpy.ndarray:
        """Return words as uint8 [T, H, W, 3]; a style seed of None gives the neutral style without jitter.

        `frames`: T; as many as the word takes at speed 1 if None, or MAX_FRAMES where clips are stretched.

        Raises:
            UserError: the word cannot be spelled, or has too many letters.
        """
        symbols = self.alphabets.segment(caption)
        if frames is None:
            frames = self.frames(symbols)
        if not self.has_room_for(symbols, frames):
            letters, most = len(letters_of(symbols)), min(MOST_LETTERS, frames)
            raise UserError(f"{caption!r} has {letters} letters, and {most} are the most in a clip of {frames} frames.")
        key = (
            "fingerspelling",
            RENDERING_VERSION,
            self.alphabets.of(symbols).signed_language,
            self.alphabets.of(symbols).written(symbols, "\0"),
            frames,
            *self.image_size,
            "neutral" if style_seed is None else style_seed,
        )
        return self.cache.get_or_make(key, lambda: self.render(symbols, style_seed, frames))

    def render(self, symbols: Sequence[str], style_seed: int | None, frames: int) -> numpy.ndarray:
        """Return symbols, with no more letters than frames, as `clip` does, but draw them anew and keep nothing."""
        letters = [self.letters[symbol] for symbol in letters_of(symbols)]
        return draw_word(letters, spelled_time(symbols, self.letters), frames, self.image_size, style_seed)

    def render_look(self, symbols: Sequence[str], style_seed: int) -> numpy.ndarray:
        """Return a word as `render` does, at the speed that goes with its look."""
        return self.render(symbols, style_seed, self.frames(symbols, style_speed(style_seed)))

    def letter_edges(self, symbols: Sequence[str], style_seed: int | None, frames: int) -> numpy.ndarray:
        """Return when, in frames, the L letters of what `render` draws begin and end: float64 [L + 1], rising.

        The pause before the next word belongs to the letter before it, which is held.
        """
        return _look(spelled_time(symbols, self.letters), frames, style_seed)[1].edges


@dataclass(frozen=True)
class TrainingWords:
    """Fresh random words with a fresh look in every epoch, none of them held out.

    Clip `index` has one number of letters, one speed and so many frames in every epoch: those of a word and a speed
    that are drawn for it once. In each epoch, words of as many letters are drawn until one takes as many frames at this
    speed, so that words, speeds and lengths are distributed as if each clip were drawn for itself.

    No clip comes twice in a run, so none is kept: a long run would fill the disk.
    """

    renderer: WordRenderer
    split: WordSplit
    epoch_size: int
    seed: int

    def __len__(self) -> int:
        return self.epoch_size

    def _first(self, index: int) -> tuple[tuple[str, ...], float]:
        """Return the word and the speed that decide a clip's length."""
        generator = numpy_generator(self.seed, "training_length", index)
        return self.split.draw_training_word(generator), random_speed(generator)

    @cached_property
    def seconds(self) -> numpy.ndarray:
        """How long the words take that decide the clips' lengths: float64 [len(self)]."""
        first = map(self._first, range(self.epoch_size))
        return numpy.array([self.renderer.seconds(word) / speed for word, speed in first])

    def row(self, epoch: int, index: int) -> ClipRow:
        if not 0 <= index < self.epoch_size:
            raise IndexError(index)
        first, speed = self._first(index)
        lengths, seconds_of = self.renderer.lengths, self.renderer.seconds
        frames = lengths.of(seconds_of(first) / speed)
        generator = numpy_generator(self.seed, "training_word", epoch, index)
        draws = (self.split.draw_training_word_of(len(letters_of(first)), generator) for _ in range(MOST_TRIES))
        word = next((word for word in draws if lengths.of(seconds_of(word) / speed) == frames), first)
        style_seed = derive_seed(self.seed, "training_style", epoch, index)
        text = self.split.alphabets.caption(word)
        return ClipRow(f"{epoch}/{index}/{text}", text, frames, seconds_of(word) / speed, style_seed)

    def lengths(self) -> numpy.ndarray:
        return numpy.array([self.renderer.lengths.of(seconds) for seconds in self.seconds], dtype=numpy.int64)

    def groups(self) -> None:
        return None

    def load(self, row: ClipRow) -> numpy.ndarray:
        return self.renderer.render(self.split.alphabets.segment(row.caption), row.style_seed, row.frames)


@dataclass(frozen=True)
class FixedWords(FixedRows):
    """The same clips in every epoch."""

    renderer: WordRenderer

    def load(self, row: ClipRow) -> numpy.ndarray:
        return self.renderer.clip(row.caption, row.style_seed, row.frames)


@dataclass(frozen=True)
class FingerspellingSplits(DataSplits):
    """The training, validation and real clips of finger-spelled words; `open_fingerspelling` makes it."""

    renderer: WordRenderer
    split: WordSplit

    def language(self, word: Word) -> str:
        """Return the code of a word's sign language."""
        return self.split.alphabets.of(word).signed_language

    def is_held_out(self, caption: str) -> bool:
        """Return whether no training clip shows the caption; also True of what cannot be spelled at all."""
        if not self.split.alphabets.can_spell(caption):
            return True
        return self.split.is_held_out(self.split.alphabets.segment(caption))

    def real_clips(self, caption: str, most: int) -> list[numpy.ndarray]:
        """Return the caption in a neutral style, then in other looks; none if it cannot be spelled or is too long."""
        try:
            neutral = self.renderer.clip(caption, None)
        except UserError:
            return []
        seeds = (derive_seed(self.split.seed, "real_style", index) for index in range(1, most))
        word = self.split.alphabets.segment(caption)
        return [neutral, *(self.renderer.render_look(word, seed) for seed in seeds)]


def open_fingerspelling(config: Config, cache: ClipCache) -> DataSplits:
    """Open the embedded data set of SIGNED_LANGUAGE.

    Training words have 1 to MAX_WORD_LETTERS letters, drawn uniformly; validation clips show held-out words.

    Raises:
        UserError: the language is unknown, or the fractions leave no words.
    """
    max_word_letters, seed = config.MAX_WORD_LETTERS, config.SEED
    alphabets, letters = load_languages(config.SIGNED_LANGUAGE)
    split = WordSplit(alphabets, max_word_letters, config.HELD_OUT_WORD_FRACTION, config.HELD_OUT_BIGRAM_FRACTION, seed)
    split.check()
    renderer = WordRenderer(alphabets, letters, clip_lengths(config), config.IMAGE_SIZE, cache)
    rows = _validation_rows(renderer, split, config.VALIDATION_CLIPS)
    training = TrainingWords(renderer, split, config.EPOCH_SIZE, seed)
    shortened = sum(map(renderer.lengths.is_shortened, training.seconds)) / len(training)
    faster = f"; {shortened:.1%} are longer than MAX_FRAMES and shown faster" if shortened else ""
    kind = "held-out words" if split.holds_words_out else "training words in other styles (no words are held out)"
    description = (
        f"Finger-spelling of {', '.join(alphabets.languages)}: {len(alphabets.symbols)} letters, words of 1 to "
        f"{max_word_letters}, {counted(config.EPOCH_SIZE, 'clip')} an epoch{faster}; validation on {len(rows)} {kind}"
    )
    return FingerspellingSplits(
        summary=DataSummary(description, _report(split, rows)),
        training=training,
        validation=FixedWords(rows, renderer),
        validation_of_trained=None,
        symbols=(*alphabets.symbols, SPACE),
        default_prompts=_default_prompts(split),
        renderer=renderer,
        split=split,
    )


def _validation_rows(renderer: WordRenderer, split: WordSplit, count: int) -> tuple[ClipRow, ...]:
    """Return fixed clips of distinct words as far as there are enough of them."""
    rows: list[ClipRow] = []
    seen: set[str] = set()
    generator = numpy_generator(split.seed, "validation_words")
    draw = split.draw_held_out_word if split.holds_words_out else split.draw_training_word
    tries = 0
    while len(rows) < count:
        symbols = draw(generator)
        word = split.alphabets.caption(symbols)
        tries += 1
        if word in seen and tries < 20 * count:
            continue
        seen.add(word)
        index = len(rows)
        style_seed = derive_seed(split.seed, "validation_style", index)
        seconds = renderer.seconds(symbols) / style_speed(style_seed)
        rows.append(ClipRow(f"validation/{index}/{word}", word, renderer.lengths.of(seconds), seconds, style_seed))
    return tuple(rows)


def _default_prompts(split: WordSplit) -> tuple[str, ...]:
    """Return the first letters, then held-out words, readable ones first; of several languages in turn."""
    alphabets = split.alphabets
    in_turn = itertools.chain.from_iterable(
        zip(*(alphabet.symbols for alphabet in alphabets.of_languages), strict=False)
    )
    prompts = [alphabets.caption((symbol,)) for symbol in itertools.islice(in_turn, LETTER_PROMPTS)]
    candidates = [
        alphabet.segment(word)
        for word, alphabet in zip(READABLE_WORDS, itertools.cycle(alphabets.of_languages), strict=False)
        if alphabet.can_spell(word)
    ]
    usable = [symbols for symbols in candidates if 2 <= len(symbols) <= split.max_word_letters]
    held_out = [symbols for symbols in usable if split.is_held_out(symbols) or not split.holds_words_out]
    words = list(map(alphabets.caption, held_out[:2]))
    generator = numpy_generator(split.seed, "default_prompts")
    draw = split.draw_held_out_word if split.holds_words_out else split.draw_training_word
    for _ in range(100):
        if len(words) == WORD_PROMPTS:
            break
        word = alphabets.caption(draw(generator))
        if word not in words and word not in prompts:
            words.append(word)
    return tuple(prompts + words)


def _report(split: WordSplit, rows: tuple[ClipRow, ...]) -> dict[str, object]:
    listed = LISTED_LENGTHS if len(split.alphabets.languages) == 1 else LISTED_LENGTHS[:1]
    return {
        "data": "fingerspelling",
        "signed_languages": list(split.alphabets.languages),
        "symbols": list(split.alphabets.symbols),
        "seed": split.seed,
        "max_word_letters": split.max_word_letters,
        "held_out_word_fraction": split.held_out_word_fraction,
        "held_out_bigram_fraction": split.held_out_bigram_fraction,
        "held_out_bigrams": list(split.held_out_bigrams),
        "held_out_words": {
            str(length): split.held_out_words(length) for length in listed if length <= split.max_word_letters
        },
        "other_lengths": f"by the same rule; every word of more than {split.max_word_letters} letters is held out",
        "validation": [{"id": row.id, "caption": row.caption} for row in rows],
    }
