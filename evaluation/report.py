"""The figures of an evaluation, as JSON-compatible values."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor

from common.field_types import language_mark
from common.randomness import numpy_generator
from data.fingerspelling.source import WordRenderer
from data.fingerspelling.words import Word
from data.records import ClipSource
from evaluation.clips import AskedWord, EvaluationClips, TrainingHistory, in_unit_range
from measures.bootstrap import Interval, bootstrap_ratio
from measures.clips import (
    are_copies,
    at_equal_moments,
    chroma,
    hold_share,
    motion_energy,
    nearest_distances,
    sharpness,
    small_copies,
)
from measures.recogniser import LetterRecogniser
from measures.spelling import (
    exact_match_interval,
    letter_error_interval,
    letter_error_rate,
    letters_read,
    shuffled_floor_interval,
    still_clip,
    top_confusions,
)

CONFUSIONS_LISTED = 20

Figures = Mapping[str, Interval | None]

LOOKS = {
    "motion_energy_ratio": motion_energy,
    "hold_ratio": hold_share,
    "sharpness_ratio": sharpness,
    "chroma_ratio": chroma,
}


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


def read_clips(recogniser: LetterRecogniser, clips: EvaluationClips) -> Readings:
    """Read generated and real clips, and what is left of the real ones without motion and without the word.

    One clip after the other, because in float32 all of them take four times the memory.
    """
    marks = [language_mark(word.symbols[0]) for word in clips.words]

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


def spelling_figures(words: Sequence[AskedWord], readings: Readings, seed: int) -> Figures:
    """Return the figures of some clips' spelling by name; None where a single word says nothing.

    Args:
        words: of the clips.
        readings: of the same clips.
        seed: of the bootstrap.
    """
    asked = [word.symbols for word in words]
    return {
        "letter_error_rate": letter_error_interval(asked, readings.generated, seed),
        "exact_match": exact_match_interval(asked, readings.generated, seed),
        "real_ceiling": letter_error_interval(asked, readings.real, seed),
        "real_exact_match": exact_match_interval(asked, readings.real, seed),
        "shuffled_floor": shuffled_floor_interval(asked, readings.generated, seed),
        "still_frame": letter_error_interval(asked, readings.still, seed),
        "mean_clip": letter_error_interval(asked, readings.mean, seed) if len(set(asked)) > 1 else None,
    }


def language_figures(clips: EvaluationClips, renderer: WordRenderer, seed: int) -> Figures:
    """Return how often a clip is nearer to a real one of its own sign language than to one of another.

    Both real clips spell the same written word, without a style of their own. The other language is drawn for each
    clip of those that can spell the word. What is left of 1 for real clips is letters that look alike.
    """
    generator = numpy_generator(seed, "evaluation_languages")
    compared: list[int] = []
    distances: list[list[list[float]]] = []
    for place, word in enumerate(clips.words):
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
    names, ones = [clips.words[place].text for place in compared], numpy.ones(len(compared))
    return {
        "language_obeyed": bootstrap_ratio(is_nearer[:, 0], ones, names, seed),
        "language_obeyed_real": bootstrap_ratio(is_nearer[:, 1], ones, names, seed),
    }


def look_figures(clips: EvaluationClips, seed: int) -> Figures:
    """Return what generated clips have, as a ratio to what real clips of the same words have; 1 is right.

    None where the real clips have nothing of it.
    """
    names = [word.text for word in clips.words]
    generated, real = _looks(clips.generated), _looks(clips.real)
    return {
        name: bootstrap_ratio(generated[name], real[name], names, seed) if real[name].any() else None for name in LOOKS
    }


def _looks(clips: Sequence[numpy.ndarray]) -> dict[str, numpy.ndarray]:
    found = [[float(measure(clip)) for measure in LOOKS.values()] for clip in in_unit_range(clips)]
    return dict(zip(LOOKS, numpy.array(found).T, strict=True))


def memorisation_figures(
    clips: EvaluationClips,
    history: TrainingHistory,
    training: ClipSource,
    unseen_real: Sequence[numpy.ndarray],
    seed: int,
) -> Figures:
    """Compare clips of words that training did not show with training clips; of all words where it showed all.

    `unseen_real`: real clips, uint8 [T, H, W, 3] each, that training did not show either.

    Returns:
        memorisation is the share of generated clips that count as copied, about 0.05 where nothing is; with the mean
        distances of generated and real clips to their nearest training clips.
    """
    chosen = [index for index, word in enumerate(clips.words) if not word.in_training] or list(range(len(clips.words)))
    generated = torch.cat([small_copies([clip]) for clip in in_unit_range(clips.generated[index] for index in chosen)])
    real = torch.cat([small_copies([clip]) for clip in in_unit_range(unseen_real)])
    nearest = torch.full((len(generated) + len(real),), torch.inf)
    for start in range(0, len(history.rows), 512):
        loaded = (training.load(row) for row in history.rows[start : start + 512])
        copies = torch.cat([small_copies([clip]) for clip in in_unit_range(loaded)])
        nearest = torch.minimum(nearest, nearest_distances(torch.cat((generated, real)), copies))
    of_generated, of_real = nearest[: len(generated)], nearest[len(generated) :]
    names = [clips.words[index].text for index in chosen]
    ones = numpy.ones(len(chosen))
    mean_real = float(of_real.mean())
    return {
        "memorisation": bootstrap_ratio(are_copies(of_generated, of_real).numpy(), ones, names, seed),
        "nearest_training_distance": bootstrap_ratio(of_generated.double().numpy(), ones, names, seed),
        "nearest_training_distance_real": Interval(mean_real, None, None),
    }


def figures_as_json(figures: Figures) -> dict[str, object]:
    """Return the values by name, and under "intervals" their 95 % intervals; null where there is none."""
    return {
        **{name: None if figure is None else figure.value for name, figure in figures.items()},
        "intervals": {
            name: None if figure is None or figure.low is None else [figure.low, figure.high]
            for name, figure in figures.items()
        },
    }


def word_records(words: Sequence[AskedWord], readings: Readings) -> list[dict[str, object]]:
    """Return one record a word, in the order of the words: what training showed of it, and what was read.

    Args:
        words: of the clips, all clips of a word in a row.
        readings: of the same clips.
    """
    records: list[dict[str, object]] = []
    for word in dict.fromkeys(words):
        places = [index for index, other in enumerate(words) if other == word]
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
