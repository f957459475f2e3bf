"""The clips of an evaluation: generated ones, and real ones of the same words."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor
from tqdm import tqdm

from common.randomness import derive_seed
from data.fingerspelling import FingerspellingSplits
from evaluation.words import AskedWord
from measures.clips import to_unit_range
from sampling.sampler import to_pixels
from sampling.trained_run import TrainedRun

SENSITIVITY_WORDS = 8


SENSITIVITY_NOISES = 2


SPELLING_NOISE, SENSITIVITY_NOISE = 3, 4  # streams of ClipSampler.initial_noise; 0 to 2 are the dashboard's


CLIPS_AT_ONCE = 64


@dataclass(frozen=True)
class EvaluationClips:
    """Clip by clip, all of a word in a row, as videos hold them.

    Attributes:
        words: what each clip was asked to show.
        generated: uint8 [N, T, H, W, 3], each from a noise of its own.
        real: the same, each in a look of its own that no training clip has.
    """

    words: tuple[AskedWord, ...]
    generated: numpy.ndarray
    real: numpy.ndarray


def make_clips(
    run: TrainedRun, splits: FingerspellingSplits, words: Sequence[AskedWord], samples_per_word: int, seed: int
) -> EvaluationClips:
    """Generate `samples_per_word` clips of each word, and draw as many real ones. All of them are kept.

    The clips of a word depend on the seed, its place in the list and the sampler, not on how many others there are.
    (The sampler "ddpm" draws further noise for a whole batch of clips.)
    """
    places = [(index, sample) for index in range(len(words)) for sample in range(samples_per_word)]
    of_clips = tuple(words[index] for index, _ in places)

    def noise(clip: int) -> Tensor:
        return run.sampler.initial_noise(seed, SPELLING_NOISE, *places[clip])

    real = [
        splits.renderer.render(words[index].symbols, derive_seed(seed, "evaluation_style", index, sample))
        for index, sample in places
    ]
    generated = [to_pixels(part) for part in _generate(run, of_clips, noise, seed)]
    return EvaluationClips(of_clips, numpy.concatenate(generated), numpy.stack(real))


def make_sensitivity_clips(run: TrainedRun, words: Sequence[AskedWord], seed: int) -> Tensor:
    """Generate each word from the same initial noises: float32 [W, SENSITIVITY_NOISES, 3, T, H, W] in [-1, 1]."""
    noises = [run.sampler.initial_noise(seed, SENSITIVITY_NOISE, index) for index in range(SENSITIVITY_NOISES)]
    of_clips = [word for word in words for _ in noises]
    clips = list(_generate(run, of_clips, lambda clip: noises[clip % SENSITIVITY_NOISES], seed))
    return torch.cat(clips).unflatten(0, (len(words), SENSITIVITY_NOISES))


def in_parts(clips: numpy.ndarray) -> Iterator[Tensor]:
    """Yield uint8 clips [N, T, H, W, 3] as float32 [n, 3, T, H, W] in [-1, 1], a few at a time."""
    for start in range(0, len(clips), CLIPS_AT_ONCE):
        yield to_unit_range(torch.from_numpy(clips[start : start + CLIPS_AT_ONCE]))


def _generate(
    run: TrainedRun, words: Sequence[AskedWord], noise: Callable[[int], Tensor], seed: int
) -> Iterator[Tensor]:
    """Yield the clips of the words, BATCH_SIZE at a time; `noise` gives the initial noise of each."""
    size = run.config.BATCH_SIZE
    for start in tqdm(range(0, len(words), size), desc="generating", unit="batch", file=sys.stderr, disable=None):
        texts = [word.text for word in words[start : start + size]]
        initial = torch.stack([noise(clip) for clip in range(start, start + len(texts))])
        yield run.sampler.sample(run.model, texts, initial, derive_seed(seed, "evaluation", start))
