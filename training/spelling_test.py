"""The live letter error rate: the same held-out words generated from the same noise, and read."""

from collections.abc import Mapping
from functools import cached_property

import torch
from torch import nn

from common.randomness import derive_seed
from data.fingerspelling.words import WordSplit
from data.records import Batch
from evaluation.letter_errors import letter_error_rate, shuffled_letter_error_rate
from evaluation.recogniser import LetterRecogniser
from training.sampling import ClipSampler

MOST_WORDS = 32
NOISE_STREAM = 2  # of ClipSampler.initial_noise; the showcase's own noises are 0 and 1


class SpellingTest:
    """Compares what a recogniser reads in generated clips with what was asked for."""

    def __init__(
        self,
        *,
        recogniser: LetterRecogniser,
        sampler: ClipSampler,
        split: WordSplit,
        validation_batch: Batch,
        clips_at_once: int,
        seed: int,
    ) -> None:
        """The words are those of the validation clips, which are the real clips to compare with."""
        self._recogniser = recogniser
        self._sampler = sampler
        self._captions = validation_batch.captions[:MOST_WORDS]
        self._asked = [split.alphabet.segment(caption) for caption in self._captions]
        self._real_NCTHW = validation_batch.video_BCTHW[:MOST_WORDS]
        self._clips_at_once = clips_at_once
        self._seed = seed

    def measures(self, model: nn.Module) -> Mapping[str, float]:
        """Generate and read one clip a word; return the figures by the names of their tags."""
        readings: list[tuple[str, ...]] = []
        for start in range(0, len(self._captions), self._clips_at_once):
            captions = self._captions[start : start + self._clips_at_once]
            noise = [
                self._sampler.initial_noise(self._seed, NOISE_STREAM, index)
                for index in range(start, start + len(captions))
            ]
            step_noise_seed = derive_seed(self._seed, "spelling_test", start)
            clips = self._sampler.sample(model, captions, torch.stack(noise), step_noise_seed)
            readings += self._recogniser.read(clips)
        measures = {
            "Letter_Error_Rate": letter_error_rate(self._asked, readings),
            "Real_Ceiling": self._real_ceiling,
        }
        floor = shuffled_letter_error_rate(self._asked, readings)
        return measures if floor is None else {**measures, "Shuffled_Floor": floor}

    @cached_property
    def _real_ceiling(self) -> float:
        return letter_error_rate(self._asked, self._recogniser.read(self._real_NCTHW))
