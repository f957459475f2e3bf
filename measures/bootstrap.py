"""How sure is a figure? Percentile bootstrap over words (Davison and Hinkley 1997, sections 2.4 and 3.8).

Words are drawn with replacement, with all their clips: clips of one word succeed or fail together, and treating them
as independent would make the intervals too narrow.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy

from common.randomness import numpy_generator

RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval; none where there is nothing to draw from: a single word, or a single pair."""

    value: float
    low: float | None
    high: float | None


def bootstrap_ratio(
    numerators: numpy.ndarray, denominators: numpy.ndarray, words: Sequence[str], seed: int
) -> Interval:
    """Return sum(numerators) / sum(denominators).

    Args:
        numerators: [N], such as the errors of each clip.
        denominators: [N], not below 0 and not all 0, such as its letters.
        words: [N] names, such as its word.
        seed: of the resampling.
    """
    names = sorted(set(words))
    place = {name: index for index, name in enumerate(names)}
    index_N = numpy.array([place[word] for word in words])
    above_W = numpy.bincount(index_N, weights=numerators, minlength=len(names))
    below_W = numpy.bincount(index_N, weights=denominators, minlength=len(names))
    ratios = [
        float(counts_W @ above_W) / float(counts_W @ below_W)
        for counts_W in _resamples(len(names), seed)
        if counts_W @ below_W > 0  # a draw of words that have none of it has no ratio
    ]
    return _interval(float(above_W.sum() / below_W.sum()), ratios, len(names))


def bootstrap_pairs(numerators_WW: numpy.ndarray, denominators_WW: numpy.ndarray, seed: int) -> Interval:
    """Return sum(numerators) / sum(denominators) over all ordered pairs of different words.

    Words are drawn, not pairs: pairs that share a word are not independent.

    Args:
        numerators_WW: [W, W], W at least 2; the diagonal does not count.
        denominators_WW: the same.
        seed: of the resampling.
    """
    words = len(numerators_WW)
    others_WW = ~numpy.eye(words, dtype=bool)
    above_WW, below_WW = numerators_WW * others_WW, denominators_WW * others_WW
    ratios = [
        float(counts_W @ above_WW @ counts_W) / float(counts_W @ below_WW @ counts_W)
        for counts_W in _resamples(words, seed)
        if (counts_W > 0).sum() > 1  # a draw of one word alone has no pairs
    ]
    return _interval(float(above_WW.sum() / below_WW.sum()), ratios, words - 1)


def _resamples(words: int, seed: int) -> Iterator[numpy.ndarray]:
    """Yield how often each resample draws each word: [W] float64. One at a time, because words may be many."""
    generator = numpy_generator(seed, "bootstrap")
    for _ in range(RESAMPLES):
        yield numpy.bincount(generator.integers(0, words, words), minlength=words).astype(numpy.float64)


def _interval(value: float, resampled: Sequence[float], choices: int) -> Interval:
    if choices < 2:
        return Interval(value, None, None)
    tail = (1 - CONFIDENCE) / 2
    low, high = numpy.quantile(resampled, (tail, 1 - tail)).tolist()
    return Interval(value, low, high)
