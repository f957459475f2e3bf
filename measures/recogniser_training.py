"""Trains the recogniser, on real clips only, and keeps what it has trained next to the cached clips."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from common.randomness import derive_seed, numpy_generator, torch_generator
from config import Config
from data.fingerspelling import FingerspellingSplits
from data.fingerspelling.source import RENDERING_VERSION, WordRenderer
from data.fingerspelling.timing import FASTEST, SLOWEST, random_speed, shown_frames
from data.fingerspelling.words import Word, WordSplit, letters_of
from data.records import as_video
from measures.fitting import CPU, first_weights, fit, key_of, open_fitted, progress
from measures.recogniser import BLANK, LARGEST_SIDE, LetterRecogniser, Reading

VERSION = 3  # raised when the same words would give another recogniser: stored ones then do not count
BATCH_FRAMES = 384  # so that long clips do not make long steps
FEWEST_CLIPS = 4
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
    words, video_BCTHW = clips.words, as_video(clips.clips_BTHWC)
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


def build_recogniser(config: Config, words: ReadableClips, device: torch.device) -> LetterRecogniser:
    """Return the recogniser of these clips' symbols; train it and report that where none is cached."""
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


def spelled_words(splits: FingerspellingSplits, seed: int) -> RecogniserWords:
    """Return the clips from which a recogniser of a run's letters learns."""
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
