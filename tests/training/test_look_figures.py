"""How generated clips look beside real ones, on clips whose ratios are known."""

from collections.abc import Sequence

import numpy
import pytest

from evaluation.clips import Asked, EvaluationClips
from evaluation.report import look_figures

WORDS = tuple(Asked(letter, in_training=True) for letter in "ABCD")


def clips(generated: Sequence[numpy.ndarray], real: Sequence[numpy.ndarray]) -> EvaluationClips:
    return EvaluationClips(WORDS, tuple(generated), tuple(real))


def coloured(generator: numpy.random.Generator) -> numpy.ndarray:
    """Four clips of six frames: the first three alike, then every one another, with values within 60 of grey."""
    moving = generator.integers(-40, 41, (4, 6, 1, 1, 3)) * numpy.ones((1, 1, 16, 16, 1))
    moving += generator.integers(-20, 21, (4, 6, 16, 16, 3))
    moving[:, 1] = moving[:, 2] = moving[:, 0]
    return moving


def test_half_the_contrast_is_half_of_all_but_motion_energy_which_is_a_square() -> None:
    offsets = coloured(numpy.random.default_rng(0))
    figures = look_figures(clips((127 + offsets).astype(numpy.uint8), (127 + 2 * offsets).astype(numpy.uint8)), seed=0)
    for name, expected in {"motion_energy_ratio": 0.25, "sharpness_ratio": 0.5, "chroma_ratio": 0.5}.items():
        figure = figures[name]
        assert figure is not None
        assert (figure.value, figure.low, figure.high) == pytest.approx((expected, expected, expected), rel=1e-3)


def test_holds_are_compared_word_by_word() -> None:
    real = (127 + 2 * coloured(numpy.random.default_rng(0))).astype(numpy.uint8)
    never_rests = real[:, [0, 3, 2, 4, 1, 5]]
    figures = look_figures(clips(never_rests, real), seed=0)
    assert figures["hold_ratio"] is not None
    assert figures["hold_ratio"].value == 0.0
    half = numpy.concatenate([real[:2], never_rests[2:]])
    figures = look_figures(clips(half, real), seed=0)
    assert figures["hold_ratio"] is not None
    assert figures["hold_ratio"].value == pytest.approx(0.5)
    assert (figures["hold_ratio"].low, figures["hold_ratio"].high) == pytest.approx((0.0, 1.0))


def test_clips_that_are_shown_more_slowly_hold_more_and_look_the_same() -> None:
    """Every frame twice: half of the changes are none. Lengths differ from word to word, too."""
    real = list((127 + 2 * coloured(numpy.random.default_rng(0))).astype(numpy.uint8))
    real[3] = real[3][:5]
    figures = look_figures(clips([clip.repeat(2, axis=0) for clip in real], real), seed=0)
    values = {name: figure.value for name, figure in figures.items() if figure is not None}
    # Of five changes two are holds, of eleven 6 + 2; of four two, of nine 5 + 2.
    assert values["hold_ratio"] == pytest.approx((3 * 8 / 11 + 7 / 9) / (3 * 2 / 5 + 2 / 4))
    assert values["sharpness_ratio"] == pytest.approx(1.0)
    assert values["chroma_ratio"] == pytest.approx(1.0)


def test_what_real_clips_have_nothing_of_is_left_out() -> None:
    grey = numpy.full((4, 6, 16, 16, 3), 127, dtype=numpy.uint8)
    figures = look_figures(clips(grey, grey), seed=0)
    assert figures["motion_energy_ratio"] is None
    assert figures["sharpness_ratio"] is None
    assert figures["chroma_ratio"] is None
    assert figures["hold_ratio"] is not None
    assert figures["hold_ratio"].value == 1.0
