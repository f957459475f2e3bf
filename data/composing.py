"""Sentences joined from clips that show one sign each (COMPOSE_SIGNS), as training and validation clips."""

import os
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy

from common.console import counted
from common.errors import UserError
from common.randomness import derive_seed, numpy_generator
from config import Config
from data.clip_splits import ClipSplit, caption_key
from data.inspection import MOST_READERS, ClipReader, InspectedClip, map_in_threads
from data.lengths import ClipLengths, clip_lengths
from data.media.joining import JoinedSign, Timeline, join_clips, plan_timeline
from data.records import ClipRow, DataSplits, FixedRows
from data.sentences import SPACE, Sentence, SentenceSplit, Signs, signs_of_captions
from models.tokens import Tokenizer, as_read

MOST_TRIES = 300  # for a sentence of a certain length: a length so rare that they fail has its first sentence again
PROMPTS_OF_EACH_KIND = 3


@dataclass(frozen=True)
class SignClip:
    """A clip of one sign."""

    clip: InspectedClip
    shown: JoinedSign


@dataclass(frozen=True)
class SentenceComposer:
    """Turns sentences into clips. A seed decides which clip shows each sign."""

    reader: ClipReader  # of the signs, each to the frame
    lengths: ClipLengths  # of the sentences
    signs: Signs
    clips_of: Mapping[str, Sequence[SignClip]]  # by sign: at least one

    def chosen(self, sentence: Sentence, seed: int) -> tuple[SignClip, ...]:
        """Return a clip of each sign: after the first sign of the same signer, where there is one."""
        chosen: list[SignClip] = []
        for place, sign in enumerate(sentence):
            clips = self.clips_of[sign]
            if chosen and (signer := chosen[0].clip.row.signer) is not None:
                clips = [each for each in clips if each.clip.row.signer == signer] or clips
            chosen.append(clips[derive_seed(seed, "sign_clip", place) % len(clips)])
        return tuple(chosen)

    def clips(self, row: ClipRow) -> tuple[SignClip, ...]:
        """Return the clips that a row's sentence is joined from."""
        return self.chosen(self.signs.segment(row.caption), row.style_seed)

    def timeline(self, chosen: Sequence[SignClip]) -> Timeline:
        """Return how clips are joined, before the whole gets the length of its row."""
        return plan_timeline([each.shown for each in chosen], self.lengths.frames_per_second)

    def seconds(self, sentence: Sentence, seed: int) -> float:
        """Return how long a sentence takes."""
        return self.timeline(self.chosen(sentence, seed)).frames / self.lengths.frames_per_second

    def row(self, place: str, sentence: Sentence, seed: int) -> ClipRow:
        """Return the row of a sentence; `place` and its caption name it."""
        caption, seconds = SPACE.join(sentence), self.seconds(sentence, seed)
        return ClipRow(f"{place}/{caption}", caption, self.lengths.of(seconds), seconds, seed)

    def load(self, row: ClipRow) -> numpy.ndarray:
        """Return a row's clip, uint8 [T, H, W, 3].

        Raises:
            UserError: the clip of a sign has gone or changed.
        """
        chosen = self.clips(row)
        joined = join_clips([self.reader.load(each.clip) for each in chosen], self.timeline(chosen))
        middles = (numpy.arange(row.frames) + 0.5) / row.frames
        return joined[(middles * len(joined)).astype(numpy.int64)]

    def edges(self, row: ClipRow) -> numpy.ndarray:
        """Return when, in frames, the L signs of a row's clip begin and end: float64 [L + 1], rising.

        The rest before the first sign and after the last one belongs to them; signs meet in the middle of their fade.
        """
        timeline = self.timeline(self.clips(row))
        return timeline.edges * (row.frames / timeline.frames)


@dataclass(frozen=True)
class TrainingSentences:
    """Random sentences that are not held out, other ones in every epoch.

    Sentence `index` has one number of signs, and so many frames, in every epoch: those of a sentence that is drawn for
    it once. In each epoch, sentences of as many signs are drawn until one takes as many frames, so that sentences and
    lengths are distributed as if each were drawn for itself.
    """

    composer: SentenceComposer
    split: SentenceSplit
    epoch_size: int

    def __len__(self) -> int:
        return self.epoch_size

    def _first(self, index: int) -> tuple[Sentence, int]:
        """Return the sentence, and the seed of its clips, that decide a length."""
        generator = numpy_generator(self.split.seed, "training_length", index)
        return self._draw(int(generator.integers(1, self.split.max_signs + 1)), generator)

    def _draw(self, length: int, generator: numpy.random.Generator) -> tuple[Sentence, int]:
        return self.split.draw_training(length, generator), int(generator.integers(2**62))

    @cached_property
    def seconds(self) -> numpy.ndarray:
        """How long the sentences take that decide the lengths: float64 [len(self)]."""
        return numpy.array([self.composer.seconds(*self._first(index)) for index in range(self.epoch_size)])

    def row(self, epoch: int, index: int) -> ClipRow:
        if not 0 <= index < self.epoch_size:
            raise IndexError(index)
        first = self._first(index)
        frames = self.composer.row("", *first).frames
        generator = numpy_generator(self.split.seed, "training_sentence", epoch, index)
        for _ in range(MOST_TRIES):
            row = self.composer.row(f"{epoch}/{index}", *self._draw(len(first[0]), generator))
            if row.frames == frames:
                return row
        return self.composer.row(f"{epoch}/{index}", *first)

    def lengths(self) -> numpy.ndarray:
        return numpy.array([self.composer.lengths.of(seconds) for seconds in self.seconds], dtype=numpy.int64)

    def groups(self) -> None:
        return None

    def load(self, row: ClipRow) -> numpy.ndarray:
        return self.composer.load(row)

    def edges(self, row: ClipRow) -> numpy.ndarray:
        """Return `SentenceComposer.edges` of a row."""
        return self.composer.edges(row)


@dataclass(frozen=True)
class FixedSentences(FixedRows):
    """The same sentences in every epoch."""

    composer: SentenceComposer

    def load(self, row: ClipRow) -> numpy.ndarray:
        return self.composer.load(row)


@dataclass(frozen=True)
class ComposedSplits(DataSplits):
    """Sentences of the signs of DATA_ROOT; `data.clip_set.open_clip_set` makes it."""

    training: TrainingSentences
    validation: FixedSentences
    split: SentenceSplit

    def signs_of(self, caption: str) -> Sentence:
        """Return the signs that a caption asks for, as `Signs.segment` does.

        Raises:
            UserError: it has words that are no sign.
        """
        return self.split.signs.segment(caption)

    def is_held_out(self, caption: str) -> bool:
        """Return whether no training clip shows the caption; also True of what is made of no known signs."""
        try:
            return self.split.is_held_out(self.signs_of(caption))
        except UserError:
            return True

    def has_unseen_clip(self, caption: str) -> bool:
        """Return whether there are clips of each of a caption's signs that training does not show."""
        trained, others = self.training.composer.clips_of, self.validation.composer.clips_of
        return all(others[sign] != trained[sign] for sign in self.signs_of(caption))

    def real_clips(self, caption: str, most: int) -> list[numpy.ndarray]:
        """Return clips of the caption, held-out ones of its signs where there are any. They may share those of some."""
        composer = self.validation.composer
        try:
            rows = [composer.row("real", self.signs_of(caption), seed) for seed in range(2 * most)]
            different = {tuple(each.clip.row.id for each in composer.clips(row)): row for row in reversed(rows)}
            return [composer.load(row) for row in list(different.values())[::-1][:most]]
        except UserError:
            return []


@dataclass(frozen=True)
class Composition:
    """What sentences a data set's clips are joined to."""

    split: SentenceSplit
    training: TrainingSentences
    validation: FixedSentences

    @property
    def text(self) -> str:
        """What comes out, for people."""
        lengths, shortened = self.training.composer.lengths, self._shortened
        frames = self.training.lengths()
        longer = f"; {shortened:.1%} are longer than MAX_FRAMES and shown faster" if shortened else ""
        span = f"{frames.min()} to {frames.max()} frames, median {numpy.median(frames):g}"
        held_out = any(self.split.is_held_out(self.split.signs.segment(row.caption)) for row in self.validation.rows)
        kind = "held-out ones" if held_out else "training sentences (none could be held out)"
        return (
            f"sentences of 1 to {self.split.max_signs} of {counted(len(self.split.signs.names), 'sign')}, "
            f"{len(self.training)} an epoch: {span}, {lengths.frames_per_second:g} a second{longer}; validation on "
            f"{len(self.validation)} {kind}"
        )

    @property
    def _shortened(self) -> float:
        return sum(map(self.training.composer.lengths.is_shortened, self.training.seconds)) / len(self.training)

    @property
    def default_prompts(self) -> tuple[str, ...]:
        """The signs of the most clips, then captions of validation."""
        numbers = Counter({sign: len(clips) for sign, clips in self.training.composer.clips_of.items()})
        frequent = [sign for sign, _ in numbers.most_common(PROMPTS_OF_EACH_KIND)]
        return (*frequent, *(row.caption for row in self.validation.rows[:PROMPTS_OF_EACH_KIND]))


def compose(config: Config, clips: ClipSplit, reader: ClipReader, tokenizer: Tokenizer) -> Composition:
    """Compose the sentences that COMPOSE_SIGNS asks for.

    Training sentences have 1 to COMPOSE_SIGNS signs, drawn uniformly. Validation asks for held-out ones, of signs that
    have held-out clips where two signs or more do, and shows those.

    Raises:
        UserError: the captions are sentences already, the model would not read the longest ones in full, the fractions
            leave nothing to train on, or a clip has gone.
    """
    read = partial(as_read, tokenizer)
    signs = signs_of_captions((clip.row.caption for clip in clips.training), read)
    split = SentenceSplit(
        signs, config.COMPOSE_SIGNS, config.HELD_OUT_WORD_FRACTION, config.HELD_OUT_BIGRAM_FRACTION, config.SEED
    )
    split.check()
    _check_length(config, signs, tokenizer)
    both = (*clips.training, *clips.held_out)
    threads = min(MOST_READERS, os.cpu_count() or 1)
    found = map_in_threads(lambda clip: _sign_clip(clip, reader), both, "Finding when clips move", threads)
    trained = _by_sign(found[: len(clips.training)], signs, read)
    held_out = _by_sign(found[len(clips.training) :], signs, read)
    composer = SentenceComposer(reader, clip_lengths(config), signs, trained)
    validating = SentenceComposer(reader, composer.lengths, signs, {**trained, **held_out})
    rows = _validation_rows(validating, split, sorted(held_out), config.VALIDATION_CLIPS)
    training = TrainingSentences(composer, split, config.EPOCH_SIZE)
    return Composition(split, training, FixedSentences(rows, validating))


def _check_length(config: Config, signs: Signs, tokenizer: Tokenizer) -> None:
    longest = max(signs.names, key=lambda sign: len(tokenizer.encode(sign)[0]))
    tokens = len(tokenizer.encode(SPACE.join([longest] * config.COMPOSE_SIGNS))[0])
    if tokens > tokenizer.max_length:
        raise UserError(
            f"COMPOSE_SIGNS={config.COMPOSE_SIGNS}: sentences may have {tokens} symbols, and {tokenizer.max_length} "
            "are read, so that different ones would look the same: lower it, or raise MAX_CAPTION_LENGTH."
        )


def _sign_clip(clip: InspectedClip, reader: ClipReader) -> SignClip:
    return SignClip(clip, JoinedSign(reader.frames(clip), reader.moving_frames(clip)))


def _by_sign(
    clips: Sequence[SignClip], signs: Signs, read: Callable[[str], Hashable]
) -> dict[str, tuple[SignClip, ...]]:
    """Return clips by their sign, which is found by what the model gets for the caption."""
    sign_of = {read(key): sign for key, sign in signs.sign_of.items()}
    groups: dict[str, list[SignClip]] = {}
    for each in clips:
        groups.setdefault(sign_of[read(caption_key(each.clip.row.caption))], []).append(each)
    return {sign: tuple(group) for sign, group in groups.items()}


def _validation_rows(
    composer: SentenceComposer, split: SentenceSplit, wanted: Sequence[str], count: int
) -> tuple[ClipRow, ...]:
    """Return fixed rows of distinct sentences as far as there are enough of them, held out if any can be.

    `wanted`: the signs that they are made of, if these make a held-out sentence.
    """
    usable = range(2, split.max_signs + 1)
    signs, held_out, lengths = split.signs.names, False, list(usable)
    for vocabulary in (wanted, split.signs.names):
        found = [
            length
            for length in usable
            if split.holds_out
            and len(vocabulary) >= 2
            and split.draw(length, vocabulary, numpy.random.default_rng(0), held_out=True) is not None
        ]
        if found:
            signs, held_out, lengths = tuple(vocabulary), True, found
            break
    generator = numpy_generator(split.seed, "validation_sentences")
    rows: list[ClipRow] = []
    seen: set[Sentence] = set()
    tries = 0
    while len(rows) < count:
        sentence = split.draw(lengths[int(generator.integers(len(lengths)))], signs, generator, held_out=held_out)
        tries += 1
        if sentence is None or (sentence in seen and tries < 20 * count):
            continue
        seen.add(sentence)
        seed = derive_seed(split.seed, "validation_style", len(rows))
        rows.append(composer.row(f"validation/{len(rows)}", sentence, seed))
    return tuple(rows)
