"""The finger-spelling data set as the trainer sees it."""

from dataclasses import dataclass

import numpy

from common.errors import UserError
from common.randomness import derive_seed, numpy_generator
from data.cache import ClipCache
from data.fingerspelling.source import FixedWords, TrainingWords, WordRenderer, load_letters
from data.fingerspelling.words import WordSplit
from data.records import ClipRow, DataSplits

LETTER_PROMPTS = 3
WORD_PROMPTS = 3
LISTED_LENGTHS = (2, 3)  # of which the report lists every held-out word
# Words that mean something, tried first as prompts where they are held out and can be spelled.
READABLE_WORDS = (
    *("HI", "CAT", "DOG", "SUN", "BUS", "TEA", "MAP", "RED", "BOX", "JAM", "ICE", "YES", "CAB", "FOX", "KEY", "VAN"),
    *("WEB", "ZIP", "ON", "UP", "GO", "NO", "WE", "DIA", "SOL", "MAR", "EIS", "TAG", "ALBA", "SIGN", "HAND"),
)


@dataclass(frozen=True)
class FingerspellingSplits(DataSplits):
    """See `open_fingerspelling`."""

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


def open_fingerspelling(
    *,
    signed_language: str,
    num_frames: int,
    image_size: int,
    max_word_letters: int,
    epoch_size: int,
    held_out_word_fraction: float,
    held_out_bigram_fraction: float,
    validation_clips: int,
    seed: int,
    cache: ClipCache,
) -> DataSplits:
    """Open the embedded data set.

    Training words have 1 to `max_word_letters` letters, drawn uniformly; validation clips show held-out words.

    Args:
        signed_language: ISO 639-3 code of a lexicon, such as ``"ase"`` (American Sign Language).
        num_frames: T of every clip.
        image_size: H and W of every clip, in pixels.
        max_word_letters: longer words count as held out.
        epoch_size: training clips in an epoch.
        held_out_word_fraction: at least this share of the words of each length from 2 up is held out.
        held_out_bigram_fraction: at least this share of the pairs of letters is held out, and every word with one.
        validation_clips: number of fixed clips.
        seed: decides the split, the words and their looks.
        cache: keeps the rendered clips.

    Raises:
        UserError: the language is unknown, there are more letters than frames, or the fractions leave no words.
    """
    if max_word_letters > num_frames:
        raise UserError(
            f"MAX_WORD_LETTERS={max_word_letters} needs at least as many frames, but NUM_FRAMES={num_frames}: "
            "lower the one or raise the other."
        )
    alphabet, letters = load_letters(signed_language)
    split = WordSplit(alphabet, max_word_letters, held_out_word_fraction, held_out_bigram_fraction, seed)
    split.check()
    renderer = WordRenderer(alphabet, letters, num_frames, image_size, cache)
    holds_words_out = max_word_letters >= 2 and max(held_out_word_fraction, held_out_bigram_fraction) > 0
    rows = _validation_rows(split, validation_clips, seed, holds_words_out)
    kind = "held-out words" if holds_words_out else "training words in other styles (no words are held out)"
    return FingerspellingSplits(
        description=(
            f"Finger-spelling of {signed_language!r}: {len(alphabet.symbols)} letters, words of 1 to "
            f"{max_word_letters}, {epoch_size} clips an epoch; validation on {len(rows)} {kind}"
        ),
        notices=(),
        training=TrainingWords(renderer, split, epoch_size, seed),
        validation=FixedWords(renderer, rows),
        validation_of_trained=None,
        symbols=alphabet.symbols,
        default_prompts=_default_prompts(split, holds_words_out),
        report=_report(split, rows),
        renderer=renderer,
        split=split,
    )


def _validation_rows(split: WordSplit, count: int, seed: int, holds_words_out: bool) -> tuple[ClipRow, ...]:
    """Return fixed clips of distinct words as far as there are enough of them."""
    rows: list[ClipRow] = []
    seen: set[str] = set()
    generator = numpy_generator(seed, "validation_words")
    tries = 0
    while len(rows) < count:
        draw = split.draw_held_out_word if holds_words_out else split.draw_training_word
        word = "".join(draw(generator))
        tries += 1
        if word in seen and tries < 20 * count:
            continue
        seen.add(word)
        index = len(rows)
        rows.append(ClipRow(f"validation/{index}/{word}", word, derive_seed(seed, "validation_style", index)))
    return tuple(rows)


def _default_prompts(split: WordSplit, holds_words_out: bool) -> tuple[str, ...]:
    """Return the first letters, then held-out words, readable ones first."""
    prompts = list(split.alphabet.symbols[:LETTER_PROMPTS])
    candidates = [word for word in READABLE_WORDS if split.alphabet.can_spell(word)]
    usable = [symbols for symbols in map(split.alphabet.segment, candidates) if 2 <= len(symbols) <= split.max_letters]
    words = ["".join(symbols) for symbols in usable if split.is_held_out(symbols) or not holds_words_out][:2]
    generator = numpy_generator(split.seed, "default_prompts")
    for _ in range(100):
        if len(words) == WORD_PROMPTS:
            break
        draw = split.draw_held_out_word if holds_words_out else split.draw_training_word
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
        "max_word_letters": split.max_letters,
        "held_out_word_fraction": split.word_fraction,
        "held_out_bigram_fraction": split.bigram_fraction,
        "held_out_bigrams": list(split.held_out_bigrams),
        "held_out_words": {
            str(length): split.held_out_words(length) for length in LISTED_LENGTHS if length <= split.max_letters
        },
        "other_lengths": f"by the same rule; every word of more than {split.max_letters} letters is held out",
        "validation": [{"id": row.id, "caption": row.caption} for row in rows],
    }
