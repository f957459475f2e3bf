"""How long finger-spelling takes, and when each letter of a word is shown.

A letter that is held takes LETTER_SECONDS: the normal speed of the presentations in Tokkyou 24-1 (0.33 s a letter;
jstage.jst.go.jp/article/tokkyou/24/1), within the 2 to 6 letters a second at which people spell (Reed, Delhorne,
Durlach and Fischer 1990, J. Speech Hear. Res. 33, 786-797). One that moves takes as long as it was recorded.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy

from common.field_types import LETTERS_A_SECOND
from data.fingerspelling.strokes import LetterMotion
from data.fingerspelling.words import SPACE

LETTER_SECONDS = 1 / LETTERS_A_SECOND
PAUSE_SECONDS = 0.25  # between two words
SPEED_SPREAD = 0.1  # standard deviation of the logarithm of most clips' speed, which is 1 in the middle
VARIED_SHARE = 0.3  # of the clips, whose speed is anything between the two: models must learn slow and fast
SLOWEST, FASTEST = 0.6, 1.6
TIMING_JITTER = 0.1  # of the shorter of two letters: how far their change may move


@dataclass(frozen=True)
class SpelledTime:
    """How long each letter of a word takes at speed 1, in seconds."""

    strokes: tuple[float, ...]  # [L], for the letter itself
    pauses: tuple[float, ...]  # [L], for which it is held after it, because a word ends

    @property
    def seconds(self) -> float:
        """Of the whole word."""
        return sum(self.strokes) + sum(self.pauses)


@dataclass(frozen=True)
class WordTiming:
    """When the letters of a word are shown, in frames."""

    edges: numpy.ndarray  # float64 [L + 1], rising from 0 to the clip's frames: letter i has edges i to i + 1
    strokes: numpy.ndarray  # float64 [L], what of it is the letter itself and not the pause after it

    @property
    def frames(self) -> int:
        """Of the clip."""
        return round(float(self.edges[-1]))


def spelled_time(symbols: Sequence[str], letters: Mapping[str, LetterMotion]) -> SpelledTime:
    """Return how long the letters of a word take; spaces between them are pauses."""
    strokes: list[float] = []
    pauses: list[float] = []
    for symbol in symbols:
        if symbol == SPACE:
            pauses[-1] += PAUSE_SECONDS
        else:
            letter = letters[symbol]
            strokes.append(max(LETTER_SECONDS, letter.recorded_seconds) if letter.is_moving else LETTER_SECONDS)
            pauses.append(0.0)
    return SpelledTime(tuple(strokes), tuple(pauses))


def time_letters(time: SpelledTime, frames: int, generator: numpy.random.Generator | None = None) -> WordTiming:
    """Spread letters over a clip of any number of frames, each its own share.

    `generator`: moves the changes of letters a little; not at all if None.
    """
    scale = frames / time.seconds
    strokes, pauses = scale * numpy.array(time.strokes), scale * numpy.array(time.pauses)
    edges = numpy.concatenate([[0.0], numpy.cumsum(strokes + pauses)])
    if generator is not None:
        jitter = generator.uniform(-TIMING_JITTER, TIMING_JITTER, len(strokes) - 1)
        edges[1:-1] += jitter * numpy.minimum(strokes[:-1], strokes[1:])
    edges[-1] = frames
    return WordTiming(edges, numpy.diff(edges) - pauses)


def shown_frames(edges: Sequence[float] | numpy.ndarray, letter: int) -> tuple[int, int]:
    """Return the first frame whose centre lies between a letter's edges, and the one after the last."""
    first, last = (math.ceil(float(edge) - 0.5) for edge in edges[letter : letter + 2])
    return first, last


def random_speed(generator: numpy.random.Generator) -> float:
    """Draw the speed of a clip: 2 takes half the time."""
    if generator.random() < VARIED_SHARE:
        return float(numpy.exp(generator.uniform(numpy.log(SLOWEST), numpy.log(FASTEST))))
    return float(numpy.clip(numpy.exp(SPEED_SPREAD * generator.standard_normal()), SLOWEST, FASTEST))
