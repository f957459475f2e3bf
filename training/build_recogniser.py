"""From constants to the recogniser that reads generated letters: shared by training and evaluation."""

import time
from dataclasses import replace

from config import Config
from data.fingerspelling import FingerspellingSplits
from evaluation.recogniser import LARGEST_SIDE, LetterRecogniser
from evaluation.recogniser_training import RecogniserWords
from training.recogniser_store import open_recogniser

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
