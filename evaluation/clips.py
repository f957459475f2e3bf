"""What an evaluation asks for: words, which of them training has shown, and clips of them, generated and real."""

import itertools
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy
import torch
from torch import Tensor
from tqdm import tqdm

from common.errors import UserError
from common.randomness import derive_seed, numpy_generator
from data.batches import BatchOrder
from data.fingerspelling import FingerspellingSplits
from data.fingerspelling.words import Word, WordSplit, letters_of
from data.records import ClipRow
from measures.clips import at_equal_moments, to_unit_range
from sampling.sampler import to_pixels
from sampling.trained_run import TrainedRun

WORDS_A_LENGTH = 24  # held-out words of each length that are drawn where the user names none
WORDS_A_LENGTH_AND_LANGUAGE = 4  # where a run signs several languages
LETTERS, TRAINED, NEW, LONGER = "letters", "words in training", "words not in training", "longer than in training"
SENSITIVITY_NOISES = 2
SPELLING_NOISE, SENSITIVITY_NOISE = 3, 4  # streams of ClipSampler.initial_noise; 0 to 2 are the dashboard's


@dataclass(frozen=True)
class AskedWord:
    """A word, with what training showed of it."""

    text: str
    symbols: Word
    in_training: bool  # a training clip showed it
    is_longer: bool  # than every word that may be trained on
    bigrams_in_training: tuple[tuple[str, bool], ...]  # each pair of neighbours, and whether a training clip showed it

    @property
    def group(self) -> str:
        """What it is averaged with."""
        if len(self.symbols) == 1:
            return LETTERS
        if self.is_longer:
            return LONGER
        return TRAINED if self.in_training else NEW


@dataclass(frozen=True)
class TrainingHistory:
    """What the steps of a training showed."""

    words: frozenset[Word]
    pairs: frozenset[tuple[str, str]]  # of neighbouring symbols
    rows: tuple[ClipRow, ...]  # to compare generated clips with: first those of asked words, then others spread evenly
    clips: int  # how many there were


def read_words(path: Path, check: Callable[[str, str], str]) -> list[str]:
    """Read a file with one word a line, as captions; a repeated word counts once.

    `check`: receives where a word comes from and the word; returns its caption, or raises a UserError.

    Raises:
        UserError: the file cannot be read or has no words, or the check of a word.
    """
    try:
        lines = unicodedata.normalize("NFC", path.read_text(encoding="utf-8-sig")).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--words {path}: cannot be read as UTF-8 text: {error}") from error
    if not lines:
        raise UserError(f"--words {path}: the file is empty; write one word a line")
    return list(
        dict.fromkeys(check(f"--words {path}, line {number}:", line.strip()) for number, line in enumerate(lines, 1))
    )


def default_words(split: WordSplit, language: str | None, seed: int) -> list[str]:
    """Return every letter, and held-out words of each length that training has, drawn by the seed.

    They are of the sign language of this code, or of each if None. A run that holds no words out is asked for training
    words.
    """
    caption = split.alphabets.caption
    chosen = [each for each in split.alphabets.of_languages if language in (None, each.signed_language)]
    count = WORDS_A_LENGTH_AND_LANGUAGE if len(chosen) > 1 else WORDS_A_LENGTH
    words: list[str] = []
    for alphabet in chosen:
        words += [caption((symbol,)) for symbol in alphabet.symbols]
        for length in range(2, split.max_word_letters + 1):
            generator = numpy_generator(seed, "evaluation_words", length)
            words_drawn = (
                split.draw_word(length, generator, held_out=split.holds_words_out, alphabet=alphabet)
                for _ in range(20 * count)
            )
            words += itertools.islice(dict.fromkeys(map(caption, words_drawn)), count)
    return words


def asked_words(symbols: Sequence[Word], history: TrainingHistory, split: WordSplit) -> list[AskedWord]:
    """Return each word with whether training showed it and each of its pairs; a repeated word counts once."""
    words, caption = [], split.alphabets.caption
    for word in dict.fromkeys(symbols):
        pairs = [(split.alphabets.of(word).written(pair), pair in history.pairs) for pair in itertools.pairwise(word)]
        is_longer = len(letters_of(word)) > split.max_word_letters
        words.append(AskedWord(caption(word), word, word in history.words, is_longer, tuple(pairs)))
    return words


def training_history(
    run: TrainedRun, splits: FingerspellingSplits, wanted: Sequence[Word], most_rows: int
) -> TrainingHistory:
    """Go through the clips that the run was trained on again, without drawing them.

    Args:
        wanted: words that are asked for; at most half of `rows` show these.
        most_rows: of `rows`.
    """
    segment = splits.split.alphabets.segment
    every = max(1, -(-2 * run.samples_seen // most_rows))
    words: set[Word] = set()
    same: list[ClipRow] = []
    spread: list[ClipRow] = []
    clips = 0
    keys = itertools.islice(BatchOrder(splits.training, run.frames_per_step, run.config.SEED, 0), run.step)
    for key in tqdm(keys, total=run.step, desc="replaying the training's order", file=sys.stderr, disable=None):
        for epoch, index in key.clips:
            row = splits.training.row(epoch, index)
            word = segment(row.caption)
            words.add(word)
            if word in wanted and len(same) < most_rows // 2:
                same.append(row)
            elif clips % every == 0:
                spread.append(row)
            clips += 1
    pairs = frozenset(pair for word in words for pair in itertools.pairwise(word))
    return TrainingHistory(frozenset(words), pairs, (*same, *spread), clips)


@dataclass(frozen=True)
class EvaluationClips:
    """Clip by clip, all of a word in a row, as videos hold them."""

    words: tuple[AskedWord, ...]  # what each clip was asked to show
    generated: tuple[numpy.ndarray, ...]  # uint8 [T, H, W, 3] each, from noises of their own
    real: tuple[numpy.ndarray, ...]  # the same, each in a look of its own that no training clip has


def make_clips(
    run: TrainedRun, splits: FingerspellingSplits, words: Sequence[AskedWord], samples_per_word: int, seed: int
) -> EvaluationClips:
    """Generate `samples_per_word` clips of each word, and draw as many real ones. All of them are kept.

    The clips of a word depend on the seed, its place in the list and the sampler, not on how many others there are.
    (The sampler "ddpm" draws further noise for a whole batch of clips.)
    """
    places = [(index, sample) for index in range(len(words)) for sample in range(samples_per_word)]
    of_clips = tuple(words[index] for index, _ in places)

    noises = [
        run.sampler.initial_noise(frames, seed, SPELLING_NOISE, *place)
        for frames, place in zip(run.sampler.frames(run.model, [word.text for word in of_clips]), places, strict=True)
    ]
    real = tuple(
        splits.renderer.render_look(words[index].symbols, derive_seed(seed, "evaluation_style", index, sample))
        for index, sample in places
    )
    generated = _generate(run, [word.text for word in of_clips], noises, seed)
    return EvaluationClips(of_clips, tuple(map(to_pixels, generated)), real)


def make_sensitivity_clips(run: TrainedRun, words: Sequence[AskedWord], seed: int) -> Tensor:
    """Generate each word from the same initial noises: [W, SENSITIVITY_NOISES, 3, T, H, W], see `at_equal_moments`."""
    lengths = run.sampler.frames(run.model, [word.text for word in words])
    noises = [
        run.sampler.initial_noise(frames, seed, SENSITIVITY_NOISE, index)
        for frames in lengths
        for index in range(SENSITIVITY_NOISES)
    ]
    clips = _generate(run, [word.text for word in words for _ in range(SENSITIVITY_NOISES)], noises, seed)
    return at_equal_moments(clips).unflatten(0, (len(words), SENSITIVITY_NOISES))


def in_unit_range(clips: Iterable[numpy.ndarray]) -> Iterator[Tensor]:
    """Yield uint8 clips [T, H, W, 3] as float32 [3, T, H, W] in [-1, 1]."""
    return (to_unit_range(torch.from_numpy(clip)) for clip in clips)


def _generate(run: TrainedRun, texts: Sequence[str], noises: Sequence[Tensor], seed: int) -> list[Tensor]:
    """Generate a clip of each text, with a progress bar."""
    return run.sampler.sample(
        run.model,
        texts,
        noises,
        derive_seed(seed, "evaluation"),
        watch=lambda groups: tqdm(groups, desc="generating", unit="batch", file=sys.stderr, disable=None),
    )
