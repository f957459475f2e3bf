"""Clips of signs, or of sentences of them, that a recogniser learns to read, and whether it can learn to."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy
import torch

from common.console import counted
from common.randomness import derive_seed, numpy_generator
from data.clip_splits import caption_key
from data.fingerspelling.timing import FASTEST, SLOWEST
from data.fingerspelling.words import Word
from data.records import ClipRow, as_video, to_pixels
from measures.clips import at_moments
from measures.fitting import SmallClips
from measures.recogniser_training import BATCH_FRAMES, FEWEST_CLIPS, ReadableClips, SpelledClips
from measures.retrieval import another_look

MOST_SIGNS = 200
FEWEST_CLIPS_OF_A_SIGN = 2


@dataclass(frozen=True)
class SignVocabulary:
    """What a recogniser would read of a set of clips."""

    symbols: tuple[str, ...]  # sorted; empty if it cannot read them
    words: tuple[Word, ...]  # the symbols of each clip; empty if it cannot read them
    reason: str  # why it can or cannot, for people


def sign_vocabulary(captions: Sequence[str], signs_of: Callable[[str], Word] | None = None) -> SignVocabulary:
    """Decide whether a recogniser can learn to read the signs of clips, and what they are.

    There must be few, and each in several clips, or nothing tells it from its clip. Without composed sentences, each
    caption is one sign if that is possible, and otherwise its words are.

    Args:
        captions: of the training clips.
        signs_of: the signs of a composed sentence, which shows them as many others do; None for other clips.
    """
    if signs_of is not None:
        words = [tuple(map(caption_key, signs_of(caption))) for caption in captions]
        return _vocabulary(words, "sign", fewest=1)
    keys = list(map(caption_key, captions))
    whole = _vocabulary([(key,) for key in keys], "caption", FEWEST_CLIPS_OF_A_SIGN)
    parts = [tuple(key.split()) for key in keys]
    if whole.symbols or all(len(part) == 1 for part in parts):
        return whole
    return _vocabulary(parts, "word", FEWEST_CLIPS_OF_A_SIGN)


def _vocabulary(words: Sequence[Word], kind: str, fewest: int) -> SignVocabulary:
    clips = Counter(symbol for word in words for symbol in set(word))
    rare = sorted(symbol for symbol, count in clips.items() if count < fewest)
    if not 2 <= len(clips) <= MOST_SIGNS:
        few = "one alone cannot be misread" if len(clips) < 2 else f"a recogniser is trained for {MOST_SIGNS} at most"
        return SignVocabulary((), (), f"the clips show {counted(len(clips), kind)}, and {few}")
    if rare:
        needed = f"a recogniser needs {counted(fewest, 'clip')} of each {kind}"
        return SignVocabulary((), (), f"{needed}, and {len(rare)} of {len(clips)} have fewer, such as {rare[0]!r}")
    return SignVocabulary(tuple(sorted(clips)), tuple(words), f"the clips show {counted(len(clips), kind)}")


@dataclass(frozen=True)
class RecogniserSigns(ReadableClips):
    """Clips of signs or of sentences, each in another look and at another speed whenever it comes."""

    clips: SmallClips
    words: tuple[Word, ...]  # of each clip
    edges: tuple[numpy.ndarray | None, ...]  # of each clip, in its frames
    known: tuple[str, ...]  # all symbols
    held_out: Callable[[Word], bool]
    seed: int
    signs_of: Callable[[str], Word] | None = None
    of_signs = True

    @property
    def symbols(self) -> tuple[str, ...]:
        return self.known

    def is_held_out(self, word: Word) -> bool:
        return len(word) > 1 and self.held_out(word)

    def word_of(self, caption: str) -> Word:
        """Return what a caption asks for, as the training clips' captions were taken; its symbols may be unknown."""
        if self.signs_of is not None:
            return tuple(map(caption_key, self.signs_of(caption)))
        key = caption_key(caption)
        return (key,) if all(len(word) == 1 for word in self.words) else tuple(key.split())

    def depends_on(self) -> tuple[object, ...]:
        edges = [None if of_clip is None else of_clip.tolist() for of_clip in self.edges]
        return (self.seed, self.clips.digest, self.words, edges, self.symbols)

    def __getitem__(self, step: int) -> SpelledClips:
        generator = numpy_generator(self.seed, "recogniser_signs", step)
        lengths = numpy.array([row.frames for row in self.clips.rows])
        first = int(generator.integers(len(lengths)))
        frames = max(1, round(float(lengths[first] / generator.uniform(SLOWEST, FASTEST))))
        can_last = numpy.flatnonzero((SLOWEST * frames <= lengths) & (lengths <= FASTEST * frames))
        count = max(FEWEST_CLIPS, BATCH_FRAMES // frames)
        chosen = [first, *generator.choice(can_last, count - 1).tolist()] if len(can_last) else [first] * count
        seeds = [derive_seed(self.seed, "recogniser_look", step, index) for index in range(count)]
        looks = [
            another_look(as_video(self.clips.pixels[place]), seed) for place, seed in zip(chosen, seeds, strict=True)
        ]
        found = [(self.edges[place], frames / lengths[place]) for place in chosen]
        return SpelledClips(
            torch.from_numpy(to_pixels(torch.stack([at_moments(look, frames) for look in looks]))),
            [self.words[place] for place in chosen],
            [None if of_clip is None else of_clip * stretch for of_clip, stretch in found],
        )


def sign_clips(
    clips: SmallClips,
    seed: int,
    signs_of: Callable[[str], Word] | None = None,
    edges: Callable[[ClipRow], numpy.ndarray] | None = None,
    held_out: Callable[[Word], bool] = lambda word: False,
) -> RecogniserSigns | str:
    """Return training clips for a recogniser of their signs, or why there can be none.

    Args:
        clips: real ones that the generator is trained on.
        seed: of the draw.
        signs_of: the signs of a caption, where clips are composed of signs; else `sign_vocabulary` decides.
        edges: when, in frames, the L signs of a clip begin and end, float64 [L + 1]. Without, a clip of one sign shows
            it from its beginning to its end, and of several signs the times are not known.
        held_out: whether no training clip may ask for these symbols, two at least.
    """
    known = sign_vocabulary([row.caption for row in clips.rows], signs_of)
    if not known.symbols:
        return known.reason
    found: list[numpy.ndarray | None] = []
    for row, word in zip(clips.rows, known.words, strict=True):
        one = numpy.array([0.0, row.frames]) if len(word) == 1 else None
        found.append(one if edges is None else edges(row))
    return RecogniserSigns(clips, known.words, tuple(found), known.symbols, held_out, seed, signs_of)
