"""Trains the recogniser, on real clips only, and keeps what it has trained next to the cached clips."""

import itertools
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from common.console import counted
from common.randomness import derive_seed, numpy_generator, torch_generator
from config import Config
from data.clip_splits import caption_key
from data.fingerspelling import FingerspellingSplits
from data.fingerspelling.source import RENDERING_VERSION, WordRenderer
from data.fingerspelling.timing import FASTEST, SLOWEST, random_speed, shown_frames
from data.fingerspelling.words import Word, WordSplit, letters_of
from data.records import ClipRow
from measures.clips import to_unit_range
from measures.fitting import CPU, SmallClips, first_weights, fit, key_of, open_fitted, progress, to_bytes
from measures.recogniser import BLANK, LARGEST_SIDE, LetterRecogniser, Reading
from measures.retrieval import another_look

VERSION = 3  # raised when the same words would give another recogniser: stored ones then do not count
BATCH_FRAMES = 384  # so that long clips do not make long steps
FEWEST_CLIPS = 4
MOST_SIGNS = 200
FEWEST_CLIPS_OF_A_SIGN = 2
MOST_TRIES = 20_000  # for the words of a step: one whose length is too rare has its first word again
NOTHING_SHOWN = -100  # the class of a frame that does not count
LARGEST_GRAIN = 0.1  # standard deviation of the noise on some clips, of values in [-1, 1]
SPOILED_SHARE = 0.35  # of the clips
BLURRED_SIZE = 4  # pixels a side that are left of a blurred frame: too few for a finger
MIXED_CLIPS = 6  # frames of this many clips are averaged to a smear, as a generator's first guess is
FAINTEST = 0.3  # of a smear's contrast


@dataclass(frozen=True)
class SpelledClips:
    """Clips of one length."""

    clips_BTHWC: Tensor  # uint8
    words: list[Word]  # [B], without spaces
    edges: Sequence[numpy.ndarray | None]  # [B] of float64 [L + 1]: when, in frames, the symbols of each begin and end


class ReadableClips(Dataset[SpelledClips], ABC):
    """Real clips whose symbols a recogniser learns to read."""

    seed: int
    of_signs: ClassVar[bool]  # see `LetterRecogniser`

    @property
    @abstractmethod
    def symbols(self) -> tuple[str, ...]:
        """All that there are."""

    @abstractmethod
    def is_held_out(self, word: Word) -> bool:
        """Return whether no clip may ask for these symbols."""

    @abstractmethod
    def depends_on(self) -> tuple[object, ...]:
        """Return all that the clips depend on but RENDERING_VERSION, as JSON-compatible values."""

    @abstractmethod
    def __getitem__(self, step: int) -> SpelledClips:
        """Return the clips of a step, a pure function of it."""


@dataclass(frozen=True)
class RecogniserWords(ReadableClips):
    """The recogniser's own clips: words that the generator may train on too, in looks of their own.

    Words are drawn as the generator's are, so that no letter can be guessed from its neighbours (but for doubled ones),
    and held-out words and words with a held-out pair are never drawn. All clips of a step have as many frames as a word
    and a speed that are drawn for it take; their words are any that take this long at some speed that training has.
    """

    renderer: WordRenderer
    split: WordSplit
    seed: int
    of_signs = False

    @property
    def symbols(self) -> tuple[str, ...]:
        return self.split.alphabets.symbols

    def is_held_out(self, word: Word) -> bool:
        return self.split.is_held_out(word)

    def depends_on(self) -> tuple[object, ...]:
        split, renderer = self.split, self.renderer
        return (
            self.seed,
            *(split.alphabets.languages, split.alphabets.symbols, astuple(renderer.lengths), renderer.image_size),
            *(split.max_word_letters, split.held_out_word_fraction, split.held_out_bigram_fraction, split.seed),
        )

    def words(self, step: int) -> tuple[list[Word], int]:
        """Return the words of a step, spaces among their symbols, and the frames that each has."""
        renderer, generator = self.renderer, numpy_generator(self.seed, "recogniser_words", step)
        first = self.split.draw_training_word(generator)
        seconds = renderer.seconds(first) / random_speed(generator)
        frames = renderer.lengths.of(seconds)

        def can_last(word: Word) -> bool:
            slow, fast = (renderer.lengths.of(renderer.seconds(word) / speed) for speed in (SLOWEST, FASTEST))
            return fast <= frames <= slow

        draws = (self.split.draw_training_word(generator) for _ in range(MOST_TRIES))
        clips = max(FEWEST_CLIPS, BATCH_FRAMES // frames)
        words = [first, *itertools.islice(filter(can_last, draws), clips - 1)]
        return words + [first] * (clips - len(words)), frames

    def __getitem__(self, step: int) -> SpelledClips:
        """Return the clips of a step."""
        words, frames = self.words(step)
        seeds = [derive_seed(self.seed, "recogniser_style", step, index) for index in range(len(words))]
        places = [(word, seed, frames) for word, seed in zip(words, seeds, strict=True)]
        return SpelledClips(
            torch.from_numpy(numpy.stack([self.renderer.render(*place) for place in places])),
            [letters_of(word) for word in words],
            [self.renderer.letter_edges(*place) for place in places],
        )


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
            another_look(to_unit_range(self.clips.pixels[place]), seed)
            for place, seed in zip(chosen, seeds, strict=True)
        ]
        moments = [((torch.arange(frames) + 0.5) * look.shape[1] / frames).long() for look in looks]
        found = [(self.edges[place], frames / lengths[place]) for place in chosen]
        return SpelledClips(
            torch.stack([to_bytes(look[:, shown]) for look, shown in zip(looks, moments, strict=True)]),
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


def train_recogniser(
    words: ReadableClips,
    steps: int,
    on_step: Callable[[int, float], None] | None = None,
    *,
    device: torch.device = CPU,
    num_workers: int = 0,
) -> LetterRecogniser:
    """Train one from scratch and return it in evaluation mode, on the device.

    On the CPU it depends only on `words` and `steps`. On CUDA it sees the same clips, but some gradients are sums in no
    fixed order, so two of them agree no more than two that began with other weights. PyTorch's global generator is left
    as it was.

    Args:
        words: what it is trained on.
        steps: how long.
        on_step: receives (step, loss), step 1 first.
        device: where the network is.
        num_workers: processes that draw the clips of the next steps; the clips do not depend on it.
    """
    symbols = words.symbols

    def loss(recogniser: LetterRecogniser, step: int, drawn: SpelledClips) -> Tensor:
        spoiling = torch_generator(words.seed, "recogniser_spoiling", step)
        clips = spoil_letters(drawn, lambda rest: not words.is_held_out(rest), spoiling)
        reading = recogniser(_with_grain(clips.video_BCTHW, words.seed, step).to(device))
        reading = recogniser.within_languages(reading, [recogniser.mark_of(word[0]) for word in drawn.words])
        # Both are small, and CTC's gradient differs from time to time on CUDA.
        on_host = Reading(reading.ctc_BTK.cpu(), reading.frames_BTS.cpu())
        return reading_loss(on_host, drawn.words, drawn.edges, clips.spoiled_B, symbols)

    recogniser = first_weights(lambda: _untrained(words), words.seed, "recogniser_weights").to(device)
    return fit(recogniser, words, loss, steps, words.seed, on_step, num_workers=num_workers)


def _untrained(words: ReadableClips) -> LetterRecogniser:
    return LetterRecogniser(words.symbols, of_signs=words.of_signs)


def reading_loss(
    reading: Reading,
    words: Sequence[Word],
    edges: Sequence[numpy.ndarray | None],
    spoiled: Sequence[int | None],
    symbols: Sequence[str],
) -> Tensor:
    """Return CTC's loss a symbol plus the cross-entropy of the letter that each frame shows.

    Args:
        words: the symbols of each clip.
        edges: when, in frames, they begin and end; None where that is not known, so that CTC alone counts.
        spoiled: the place of a letter that cannot be read and must not be, for each clip, or None.
        symbols: in the order of the recogniser's classes.
    """
    classes = {symbol: index for index, symbol in enumerate(symbols)}
    frames = reading.ctc_BTK.shape[1]
    readable = [
        [classes[symbol] for place, symbol in enumerate(word) if place != gap]
        for word, gap in zip(words, spoiled, strict=True)
    ]
    ctc = nn.functional.ctc_loss(
        reading.ctc_BTK.float().log_softmax(dim=2).transpose(0, 1),
        torch.tensor([kind + 1 for word in readable for kind in word], dtype=torch.int64),
        input_lengths=torch.full((len(words),), frames),
        target_lengths=torch.tensor([len(word) for word in readable]),
        blank=BLANK,
        zero_infinity=True,  # a word with too many doubled letters for its frames cannot be read
    )
    shown = torch.full((len(words), frames), NOTHING_SHOWN)
    for index, (word, of_word, gap) in enumerate(zip(words, edges, spoiled, strict=True)):
        if of_word is None:
            continue
        for place, symbol in enumerate(word):
            first, last = shown_frames(of_word, place)
            if place != gap:
                shown[index, first:last] = classes[symbol]
    scores = reading.frames_BTS.flatten(0, 1)
    seen = nn.functional.cross_entropy(scores, shown.flatten(), ignore_index=NOTHING_SHOWN, reduction="sum")
    return ctc + seen / (shown != NOTHING_SHOWN).sum().clamp(min=1)


def _with_grain(video_BCTHW: Tensor, seed: int, step: int) -> Tensor:
    """Add a little noise, a different amount to each clip: a generated clip's faint grain is no letter."""
    generator = torch_generator(seed, "recogniser_grain", step)
    amount_B = torch.rand(video_BCTHW.shape[0], generator=generator) * LARGEST_GRAIN
    return video_BCTHW + amount_B[:, None, None, None, None] * torch.randn(video_BCTHW.shape, generator=generator)


@dataclass(frozen=True)
class SpoiledClips:
    """Clips of which some have a letter that cannot be read."""

    video_BCTHW: Tensor  # [B, 3, T, H, W]
    spoiled_B: tuple[int | None, ...]  # the place of that letter in each clip's word; None for a clip as it was


def spoil_letters(clips: SpelledClips, may_be_read: Callable[[Word], bool], generator: torch.Generator) -> SpoiledClips:
    """Blur, smear or wipe out one letter in some of the clips.

    Args:
        clips: real ones.
        may_be_read: whether a recogniser may be asked for what is left of a word.
        generator: decides everything.
    """
    words, video_BCTHW = clips.words, to_unit_range(clips.clips_BTHWC)
    video = video_BCTHW.clone()
    spoiled: list[int | None] = []
    for index, word in enumerate(words):
        chance, place, kind, contrast = torch.rand(4, generator=generator).tolist()
        others = torch.randint(len(words), (MIXED_CLIPS,), generator=generator)
        letter = int(place * len(word))
        of_clip = clips.edges[index]
        if of_clip is None or chance >= SPOILED_SHARE or not may_be_read((*word[:letter], *word[letter + 1 :])):
            spoiled.append(None)
            continue
        first, last = shown_frames(of_clip, letter)
        clip = video_BCTHW[index, :, first:last]
        if kind < 1 / 3:
            unreadable = _blurred(clip)
        elif kind < 2 / 3:
            unreadable = _smeared(clip, video_BCTHW[others, :, first:last], FAINTEST + (1 - FAINTEST) * contrast)
        else:
            unreadable = _background(clip).expand_as(clip)
        video[index, :, first:last] = unreadable
        spoiled.append(letter)
    return SpoiledClips(video, tuple(spoiled))


def _background(clip_CTHW: Tensor) -> Tensor:
    """Return the commonest value of each channel, which is the background's: [3, 1, 1, 1]."""
    return clip_CTHW.flatten(1).mode(dim=1).values[:, None, None, None]


def _blurred(clip_CTHW: Tensor) -> Tensor:
    frames_TCHW = clip_CTHW.transpose(0, 1)
    small = functional.adaptive_avg_pool2d(frames_TCHW, BLURRED_SIZE)
    size = list(clip_CTHW.shape[2:])
    return functional.interpolate(small, size=size, mode="bilinear", align_corners=False).transpose(0, 1)


def _smeared(clip_CTHW: Tensor, others_NCTHW: Tensor, contrast: float) -> Tensor:
    background = _background(clip_CTHW)
    return background + contrast * (others_NCTHW.mean(dim=0) - background)


def build_recogniser(
    config: Config, data: FingerspellingSplits | RecogniserSigns, device: torch.device
) -> LetterRecogniser:
    """Return the recogniser of the data's alphabet, or signs; train it and report that where none is cached."""
    words = data if isinstance(data, RecogniserSigns) else _spelled_words(data, config.SEED)
    kind = "signs" if words.of_signs else "letters"
    report = progress(config.RECOGNISER_STEPS, "recogniser", f"Training the recogniser that reads generated {kind}")
    return open_recogniser(
        words,
        config.RECOGNISER_STEPS,
        config.CACHE_DIR,
        report,
        device=training_device(config, device),
        num_workers=config.NUM_WORKERS,
    )


def _spelled_words(splits: FingerspellingSplits, seed: int) -> RecogniserWords:
    # The recogniser would cut the square out of other pictures, and average larger ones down.
    side = min(*splits.renderer.image_size, LARGEST_SIDE)
    return RecogniserWords(replace(splits.renderer, image_size=(side, side)), splits.split, seed)


def training_device(config: Config, device: torch.device) -> torch.device:
    """Return where the networks that judge a run on this device are trained: there, if that is CUDA.

    They stay on the CPU on MPS, whose kernels for them nothing checks, and where DETERMINISTIC rules a part of them out
    (the gradient of adaptive_avg_pool2d).
    """
    return device if device.type == "cuda" and not config.DETERMINISTIC else CPU


def open_recogniser(
    words: ReadableClips,
    steps: int,
    cache_folder: Path,
    on_step: Callable[[int, float], None],
    *,
    device: torch.device = CPU,
    num_workers: int = 0,
) -> LetterRecogniser:
    """Return the recogniser in evaluation mode on the device, from the cache or freshly trained (`open_fitted`).

    Args:
        words: what it is trained on.
        steps: how long.
        cache_folder: CACHE_DIR.
        on_step: receives (step, loss) while it is trained.
        device: where it is trained and used.
        num_workers: processes that draw clips ahead.
    """
    return open_fitted(
        "recogniser",
        key_of(VERSION, RENDERING_VERSION, steps, *words.depends_on()),
        lambda: _untrained(words),
        lambda: train_recogniser(words, steps, on_step, device=device, num_workers=num_workers),
        cache_folder,
        device,
    )
