"""Finger-spelling: which words an evaluation asks for, what training showed of them, and what a recogniser reads."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor

from common.randomness import derive_seed, numpy_generator
from data.clip_splits import caption_key
from data.fingerspelling import FingerspellingSplits
from data.fingerspelling.source import WordRenderer
from data.fingerspelling.words import Word, WordSplit, letters_of
from evaluation.clips import (
    COMPARED_CLIPS,
    REFERENCE_CLIPS,
    REFERENCES_A_CAPTION,
    Asked,
    EvaluationClips,
    Figures,
    Labelled,
    RealClips,
    Subject,
    TrainingHistory,
    in_unit_range,
    places_of_each,
    training_history,
)
from measures.bootstrap import bootstrap_ratio
from measures.clips import at_equal_moments, small_copies
from measures.recogniser import LetterRecogniser
from measures.retrieval import RETRIEVAL_POOL
from measures.spelling import (
    exact_match_interval,
    letter_error_interval,
    letter_error_rate,
    letters_read,
    shuffled_floor_interval,
    still_clip,
    top_confusions,
)
from sampling.trained_run import TrainedRun

WORDS_A_LENGTH = 24  # held-out words of each length that are drawn where the user names none
WORDS_A_LENGTH_AND_LANGUAGE = 4  # where a run signs several languages
LETTERS, TRAINED, NEW, LONGER = "letters", "words in training", "words not in training", "longer than in training"
CONFUSIONS_LISTED = 20
SPELLED_NOTE = (
    "Real clips come from one recording of each letter: between them only size, place, colour, stroke and timing vary. "
    "The real ceiling says how well the recogniser copes with that, not with other signers."
)


@dataclass(frozen=True)
class AskedWord(Asked):
    """A word, with what training showed of it."""

    symbols: Word
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


def spelled_subject(
    run: TrainedRun, splits: FingerspellingSplits, texts: Sequence[str], language: str | None, samples: int, seed: int
) -> Subject:
    """Return what a run that spells is asked for: these words, or else letters and new words."""
    split = splits.split
    default = default_words(split, language, seed)
    history = training_history(run, splits.training, set(map(caption_key, texts or default)), COMPARED_CLIPS)
    words = asked_words(texts or default, history, split)
    beside = tuple(
        splits.renderer.render_look(word.symbols, derive_seed(seed, "evaluation_style", index, sample))
        for index, word in enumerate(words)
        for sample in range(samples)
    )
    more = default[: max(0, RETRIEVAL_POOL - len(words))] if texts else []
    captions = list(dict.fromkeys([*(word.text for word in words), *more]))
    references = tuple(
        Labelled(caption, clip) for caption in captions for clip in splits.real_clips(caption, REFERENCES_A_CAPTION)
    )
    queries = tuple(Labelled(words[place // samples].text, clip) for place, clip in enumerate(beside))
    draw = split.draw_held_out_word if split.holds_words_out else split.draw_training_word
    generator = numpy_generator(seed, "evaluation_reference")
    unseen = [
        splits.renderer.render_look(draw(generator), derive_seed(seed, "evaluation_reference_style", index))
        for index in range(REFERENCE_CLIPS)
    ]
    return Subject(words, history, beside, RealClips(references, queries, 0), unseen, (SPELLED_NOTE,))


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


def asked_words(captions: Sequence[str], history: TrainingHistory, split: WordSplit) -> list[AskedWord]:
    """Return each word with whether training showed it and each of its pairs; a repeated word counts once."""
    alphabets = split.alphabets
    shown = set(map(alphabets.segment, history.captions))
    shown_pairs = {pair for word in shown for pair in itertools.pairwise(word)}
    words = []
    for word in dict.fromkeys(map(alphabets.segment, captions)):
        pairs = tuple((alphabets.of(word).written(pair), pair in shown_pairs) for pair in itertools.pairwise(word))
        is_longer = len(letters_of(word)) > split.max_word_letters
        words.append(AskedWord(alphabets.caption(word), word in shown, word, is_longer, pairs))
    return words


@dataclass(frozen=True)
class Readings:
    """What the recogniser reads in every clip of an evaluation, clip by clip."""

    generated: list[Word]
    real: list[Word]
    still: list[Word]
    mean: list[Word]

    def of(self, places: Sequence[int]) -> "Readings":
        """Return the readings of some clips."""
        return Readings(
            *([each[place] for place in places] for each in (self.generated, self.real, self.still, self.mean))
        )


def read_clips(recogniser: LetterRecogniser, clips: EvaluationClips[Asked], asked: Sequence[Word]) -> Readings:
    """Read generated and real clips, and what is left of the real ones without motion and without the word.

    One clip after the other, because in float32 all of them take four times the memory.

    `asked`: the symbols of each clip.
    """
    marks = [recogniser.mark_of(word[0]) for word in asked]

    def read(found: Iterable[Tensor]) -> list[Word]:
        return [recogniser.read([clip], [mark])[0] for clip, mark in zip(found, marks, strict=True)]

    total = sum((at_equal_moments([clip])[0] for clip in in_unit_range(clips.real)), torch.zeros(()))
    mean = total / len(clips.real)
    of_mean = {mark: recogniser.read([mean], [mark])[0] for mark in set(marks)}
    return Readings(
        generated=read(in_unit_range(clips.generated)),
        real=read(in_unit_range(clips.real)),
        still=read(map(still_clip, in_unit_range(clips.real))),
        mean=[of_mean[mark] for mark in marks],
    )


def spelling_figures(asked: Sequence[Word], readings: Readings, seed: int) -> Figures:
    """Return the figures of some clips' spelling by name; None where a single word says nothing.

    Args:
        asked: the symbols of each clip.
        readings: of the same clips.
        seed: of the bootstrap.
    """
    return {
        "letter_error_rate": letter_error_interval(asked, readings.generated, seed),
        "exact_match": exact_match_interval(asked, readings.generated, seed),
        "real_ceiling": letter_error_interval(asked, readings.real, seed),
        "real_exact_match": exact_match_interval(asked, readings.real, seed),
        "shuffled_floor": shuffled_floor_interval(asked, readings.generated, seed),
        "still_frame": letter_error_interval(asked, readings.still, seed),
        "mean_clip": letter_error_interval(asked, readings.mean, seed) if len(set(asked)) > 1 else None,
    }


def language_figures(clips: EvaluationClips[AskedWord], renderer: WordRenderer, seed: int) -> Figures:
    """Return how often a clip is nearer to a real one of its own sign language than to one of another.

    Both real clips spell the same written word, without a style of their own. The other language is drawn for each
    clip of those that can spell the word. What is left of 1 for real clips is letters that look alike.
    """
    generator = numpy_generator(seed, "evaluation_languages")
    compared: list[int] = []
    distances: list[list[list[float]]] = []
    for place, word in enumerate(clips.asked):
        own = renderer.alphabets.of(word.symbols)
        text = own.written(word.symbols)
        others = [each for each in renderer.alphabets.of_languages if each is not own and each.can_spell(text)]
        spelled = [other for other in (each.segment(text) for each in others) if renderer.has_room_for(other)]
        if not spelled:
            continue
        other = spelled[int(generator.integers(len(spelled)))]
        captions = map(renderer.alphabets.caption, (word.symbols, other))
        plain = in_unit_range(renderer.clip(caption, None) for caption in captions)
        references = torch.cat([small_copies([clip]) for clip in plain])
        if torch.equal(references[0], references[1]):  # the two languages share their recordings
            continue
        pair = in_unit_range((clips.generated[place], clips.real[place]))
        distances.append(torch.cdist(torch.cat([small_copies([clip]) for clip in pair]), references).tolist())
        compared.append(place)
    if not compared:
        return {"language_obeyed": None, "language_obeyed_real": None}
    is_nearer = numpy.array([[own < other for own, other in of_clip] for of_clip in distances], dtype=float)
    names, ones = [clips.asked[place].text for place in compared], numpy.ones(len(compared))
    return {
        "language_obeyed": bootstrap_ratio(is_nearer[:, 0], ones, names, seed),
        "language_obeyed_real": bootstrap_ratio(is_nearer[:, 1], ones, names, seed),
    }


def word_records(words: Sequence[AskedWord], readings: Readings) -> list[dict[str, object]]:
    """Return one record a word, in the order of the words: what training showed of it, and what was read.

    Args:
        words: of the clips, all clips of a word in a row.
        readings: of the same clips.
    """
    records: list[dict[str, object]] = []
    for word, places in places_of_each(words).items():
        read = [readings.generated[place] for place in places]
        records.append(
            {
                "word": word.text,
                "symbols": list(word.symbols),
                "group": word.group,
                "in_training": word.in_training,
                "bigrams_in_training": dict(word.bigrams_in_training),
                "letter_error_rate": letter_error_rate([word.symbols] * len(read), read),
                "read": [" ".join(reading) for reading in read],
                "real_read": [" ".join(readings.real[place]) for place in places],
            }
        )
    return records


def sign_records(asked: Sequence[Asked], words: Sequence[Word], readings: Readings) -> list[dict[str, object]]:
    """Return one record a caption, those first that are misread most: the signs asked for, and what was read.

    Args:
        asked: of the clips.
        words: their signs.
        readings: of the same clips.
    """
    places_of = places_of_each(asked)
    rates = {
        one: letter_error_rate([words[place] for place in places], [readings.generated[place] for place in places])
        for one, places in places_of.items()
    }
    return [
        {
            "caption": one.text,
            "signs": list(words[places_of[one][0]]),
            "in_training": one.in_training,
            "word_error_rate": rate,
            "read": [list(readings.generated[place]) for place in places_of[one]],
            "real_read": [list(readings.real[place]) for place in places_of[one]],
        }
        for one, rate in sorted(rates.items(), key=lambda pair: -pair[1])
    ]


def confusion_records(words: Sequence[AskedWord], readings: Readings) -> list[dict[str, object]]:
    """Return the most frequent errors in generated clips: asked and read, null where there was nothing, and count."""
    confusions = top_confusions([word.symbols for word in words], readings.generated, CONFUSIONS_LISTED)
    return [{"asked": item.asked, "read": item.read, "count": item.count} for item in confusions]


def letter_records(words: Sequence[AskedWord], readings: Readings) -> dict[str, dict[str, object]]:
    """Return for each letter how often it was asked for, and the share read right in generated and in real clips."""
    asked = [word.symbols for word in words]
    generated, real = letters_read(asked, readings.generated), letters_read(asked, readings.real)
    return {
        symbol: {"asked": count, "read": right / count, "read_in_real_clips": real[symbol][0] / count}
        for symbol, (right, count) in generated.items()
    }
