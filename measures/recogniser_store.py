"""The recogniser of an alphabet and a clip size: trained once, then kept beside the clips."""

import hashlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import safetensors.torch
import torch

from common.files import write_atomically
from config import Config
from data.fingerspelling import FingerspellingSplits
from data.fingerspelling.source import RENDERING_VERSION
from measures.recogniser import LARGEST_SIDE, LetterRecogniser
from measures.recogniser_training import RecogniserWords, train_recogniser

VERSION = 1  # raised when the same words would give another recogniser: stored ones then do not count


_log = logging.getLogger(__name__)


def open_recogniser(
    words: RecogniserWords, steps: int, cache_folder: Path, on_step: Callable[[int, float], None]
) -> LetterRecogniser:
    """Return the recogniser in evaluation mode on the CPU, from the cache or else freshly trained.

    Where the cache cannot be written, this is logged, and the next run trains again.

    Args:
        words: what it is trained on.
        steps: how long.
        cache_folder: CACHE_DIR.
        on_step: receives (step, loss) while it is trained.
    """
    path = cache_folder / "recognisers" / f"{_key(words, steps)}.safetensors"
    stored = _read(path, words.split.alphabet.symbols)
    if stored is not None:
        return stored
    recogniser = train_recogniser(words, steps, on_step)
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
        *(split.alphabet.signed_language, split.alphabet.symbols, renderer.num_frames, renderer.image_size),
        *(split.max_word_letters, split.held_out_word_fraction, split.held_out_bigram_fraction, split.seed),
    )
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


SECONDS_BETWEEN_REPORTS = 10.0


def build_recogniser(config: Config, splits: FingerspellingSplits) -> LetterRecogniser:
    """Return the recogniser of the data's alphabet and clips; where none is cached, train it and say so."""
    # Drawn no larger than it looks at them.
    renderer = replace(splits.renderer, image_size=min(splits.renderer.image_size, LARGEST_SIDE))
    words = RecogniserWords(renderer, splits.split, config.SEED)
    return open_recogniser(words, config.RECOGNISER_STEPS, config.CACHE_DIR, _Reporter(config.RECOGNISER_STEPS))


class _Reporter:
    """Says on the console why the run does not begin yet."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._last = time.monotonic()

    def __call__(self, step: int, loss: float) -> None:
        now = time.monotonic()
        if step == 1:
            print("Training the recogniser that reads generated letters; it is kept in CACHE_DIR for later runs.")
        elif now - self._last > SECONDS_BETWEEN_REPORTS or step == self._steps:
            print(f"recogniser: step {step} of {self._steps}, loss {loss:.3f}", flush=True)
        else:
            return
        self._last = now
