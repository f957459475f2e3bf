"""Trains the recogniser, on real clips only, and keeps what it has trained next to the cached clips."""

import hashlib
import itertools
import json
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import astuple, dataclass, replace
from pathlib import Path

import numpy
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from common.field_types import language_mark
from common.files import write_atomically
from common.randomness import derive_seed, numpy_generator, torch_generator
from config import Config
from data.batches import prepared
from data.fingerspelling import FingerspellingSplits
from data.fingerspelling.source import RENDERING_VERSION, WordRenderer
from data.fingerspelling.timing import FASTEST, SLOWEST, random_speed, shown_frames
from data.fingerspelling.words import Word, WordSplit, letters_of
from measures.clips import to_unit_range
from measures.recogniser import BLANK, LARGEST_SIDE, LetterRecogniser, Reading

VERSION = 3  # raised when the same words would give another recogniser: stored ones then do not count
BATCH_FRAMES = 384  # so that long clips do not make long steps
FEWEST_CLIPS = 4
MOST_TRIES = 20_000  # for the words of a step: one whose length is too rare has its first word again
LEARNING_RATE = 2e-3
WARMUP_STEPS = 50
WEIGHT_DECAY = 0.01
LARGEST_GRADIENT = 1.0
NOTHING_SHOWN = -100  # the class of a frame that does not count
LARGEST_GRAIN = 0.1  # standard deviation of the noise on some clips, of values in [-1, 1]
SPOILED_SHARE = 0.35  # of the clips
BLURRED_SIZE = 4  # pixels a side that are left of a blurred frame: too few for a finger
MIXED_CLIPS = 6  # frames of this many clips are averaged to a smear, as a generator's first guess is
FAINTEST = 0.3  # of a smear's contrast
SECONDS_BETWEEN_REPORTS = 10.0
CPU = torch.device("cpu")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SpelledClips:
    """Clips of one length."""

    clips_BTHWC: Tensor  # uint8
    words: list[Word]  # [B], without spaces
    edges: list[numpy.ndarray]  # [B] of float64 [L + 1]: when, in frames, the letters of each begin and end


@dataclass(frozen=True)
class RecogniserWords(Dataset[SpelledClips]):
    """The recogniser's own clips: words that the generator may train on too, in looks of their own.

    Words are drawn as the generator's are, so that no letter can be guessed from its neighbours (but for doubled ones),
    and held-out words and words with a held-out pair are never drawn. All clips of a step have as many frames as a word
    and a speed that are drawn for it take; their words are any that take this long at some speed that training has.
    """

    renderer: WordRenderer
    split: WordSplit
    seed: int

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
    words: RecogniserWords,
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
    symbols = words.split.alphabets.symbols
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(words.seed, "recogniser_weights"))
        recogniser = LetterRecogniser(symbols).to(device)
    optimizer = torch.optim.AdamW(recogniser.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    numbers = range(1, steps + 1)
    with closing(prepared(words, numbers, num_workers, words.seed)) as batches:
        for step, drawn in zip(numbers, batches, strict=True):
            spoiling = torch_generator(words.seed, "recogniser_spoiling", step)
            clips = spoil_letters(drawn, lambda rest: not words.split.is_held_out(rest), spoiling)
            reading = recogniser(_with_grain(clips.video_BCTHW, words.seed, step).to(device))
            reading = recogniser.within_languages(reading, [language_mark(word[0]) for word in drawn.words])
            # Both are small, and CTC's gradient differs from time to time on CUDA.
            on_host = Reading(reading.ctc_BTK.cpu(), reading.frames_BTS.cpu())
            loss = reading_loss(on_host, drawn.words, drawn.edges, clips.spoiled_B, symbols)
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(recogniser.parameters(), LARGEST_GRADIENT)
            optimizer.step()
            schedule.step()
            if on_step is not None:
                on_step(step, loss.item())
    return recogniser.eval().requires_grad_(False)


def reading_loss(
    reading: Reading,
    words: Sequence[Word],
    edges: Sequence[numpy.ndarray],
    spoiled: Sequence[int | None],
    symbols: Sequence[str],
) -> Tensor:
    """Return CTC's loss a symbol plus the cross-entropy of the letter that each frame shows.

    Args:
        words: the symbols of each clip.
        edges: when, in frames, they begin and end.
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
        for place, symbol in enumerate(word):
            first, last = shown_frames(of_word, place)
            if place != gap:
                shown[index, first:last] = classes[symbol]
    scores = reading.frames_BTS.flatten(0, 1)
    seen = nn.functional.cross_entropy(scores, shown.flatten(), ignore_index=NOTHING_SHOWN, reduction="sum")
    return ctc + seen / (shown != NOTHING_SHOWN).sum().clamp(min=1)


def _rate(step: int, steps: int) -> float:
    """Rise over the warm-up, then fall to zero along a straight line."""
    warmup = min(WARMUP_STEPS, steps)
    return min((step + 1) / warmup, (steps - step) / max(1, steps - warmup))


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
        if chance >= SPOILED_SHARE or not may_be_read((*word[:letter], *word[letter + 1 :])):
            spoiled.append(None)
            continue
        first, last = shown_frames(clips.edges[index], letter)
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


def build_recogniser(config: Config, splits: FingerspellingSplits, device: torch.device) -> LetterRecogniser:
    """Return the recogniser of the data's alphabet and clips; train it and report that where none is cached.

    It is trained on the run's device if that is CUDA. It stays on the CPU on MPS, whose kernels for it nothing checks,
    and where DETERMINISTIC rules a part of it out (the gradient of adaptive_avg_pool2d).
    """
    # The recogniser would cut the square out of other pictures, and average larger ones down.
    side = min(*splits.renderer.image_size, LARGEST_SIDE)
    renderer = replace(splits.renderer, image_size=(side, side))
    words = RecogniserWords(renderer, splits.split, config.SEED)
    steps, reported = config.RECOGNISER_STEPS, time.monotonic()

    def report(step: int, loss: float) -> None:
        """Say why the run does not begin yet."""
        nonlocal reported
        if step == 1:
            print("Training the recogniser that reads generated letters; it is kept in CACHE_DIR for later runs.")
        elif time.monotonic() - reported > SECONDS_BETWEEN_REPORTS or step == steps:
            print(f"recogniser: step {step} of {steps}, loss {loss:.3f}", flush=True)
        else:
            return
        reported = time.monotonic()

    trains_there = device.type == "cuda" and not config.DETERMINISTIC
    return open_recogniser(
        words, steps, config.CACHE_DIR, report, device=device if trains_there else CPU, num_workers=config.NUM_WORKERS
    )


def open_recogniser(
    words: RecogniserWords,
    steps: int,
    cache_folder: Path,
    on_step: Callable[[int, float], None],
    *,
    device: torch.device = CPU,
    num_workers: int = 0,
) -> LetterRecogniser:
    """Return the recogniser in evaluation mode on the device, from the cache or freshly trained.

    One that the CPU has trained is used everywhere. One that another device has trained is used there alone, so that
    what a run on the CPU measures does not depend on what else has filled the cache. Where the cache cannot be written,
    this is logged, and the next run trains again.

    Args:
        words: what it is trained on.
        steps: how long.
        cache_folder: CACHE_DIR.
        on_step: receives (step, loss) while it is trained.
        device: where it is trained and used.
        num_workers: processes that draw clips ahead.
    """
    key = _key(words, steps)
    names = [key] if device.type == "cpu" else [key, f"{key}-{device.type}"]
    paths = [cache_folder / "recognisers" / f"{name}.safetensors" for name in names]
    for path in paths:
        stored = _read(path, words.split.alphabets.symbols)
        if stored is not None:
            return stored.to(device)
    recogniser = train_recogniser(words, steps, on_step, device=device, num_workers=num_workers)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, safetensors.torch.save(recogniser.state_dict()))
    except OSError as error:
        _log.warning("The recogniser cannot be kept in %s (%s): the next run trains it again.", path.parent, error)
    return recogniser


def _read(path: Path, symbols: tuple[str, ...]) -> LetterRecogniser | None:
    """Return a stored recogniser; None if there is none or it is damaged."""
    with torch.device("meta"):  # without initial weights, which would be drawn from the global generator
        recogniser = LetterRecogniser(symbols)
    try:
        recogniser.load_state_dict(safetensors.torch.load_file(path), assign=True)
    except FileNotFoundError:
        return None
    except (OSError, safetensors.SafetensorError, RuntimeError) as error:
        _log.warning("The stored recogniser %s cannot be used and is trained again: %s", path, error)
        return None
    return recogniser.eval().requires_grad_(False)


def _key(words: RecogniserWords, steps: int) -> str:
    """Return a name that depends on everything the recogniser depends on."""
    split, renderer = words.split, words.renderer
    parts = (
        *(VERSION, RENDERING_VERSION, steps, words.seed),
        *(split.alphabets.languages, split.alphabets.symbols, astuple(renderer.lengths), renderer.image_size),
        *(split.max_word_letters, split.held_out_word_fraction, split.held_out_bigram_fraction, split.seed),
    )
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
