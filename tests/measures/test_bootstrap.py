"""Intervals against closed forms, and widths that grow and shrink as they must."""

import numpy
import pytest

from measures.bootstrap import bootstrap_pairs, bootstrap_ratio
from measures.spelling import exact_match_interval, letter_error_interval, shuffled_floor_interval

CAT, DOG, HI = tuple("CAT"), tuple("DOG"), tuple("HI")


def names(count: int) -> list[str]:
    return [str(index) for index in range(count)]


def test_the_interval_of_a_mean_agrees_with_the_normal_one() -> None:
    values = numpy.random.default_rng(0).normal(2.0, 1.0, 400)
    interval = bootstrap_ratio(values, numpy.ones(400), names(400), seed=0)
    half = 1.96 * values.std() / 400**0.5
    assert interval.value == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=0.02)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.02)


def test_clips_of_one_word_do_not_make_the_interval_narrower() -> None:
    errors = numpy.tile([0, 1], 50)
    alone = bootstrap_ratio(errors, numpy.ones(100), names(100), seed=0)
    words = [name for name in names(100) for _ in range(10)]
    repeated = bootstrap_ratio(errors.repeat(10), numpy.ones(1000), words, seed=0)
    assert repeated.high - repeated.low == pytest.approx(alone.high - alone.low, rel=0.1)


def test_a_single_word_has_no_interval() -> None:
    interval = bootstrap_ratio(numpy.array([1, 0]), numpy.array([2, 2]), ["A", "A"], seed=0)
    assert (interval.value, interval.low, interval.high) == (0.25, None, None)


def test_draws_without_anything_in_the_denominator_are_left_out() -> None:
    interval = bootstrap_ratio(numpy.array([1.0, 0.0]), numpy.array([2.0, 0.0]), ["A", "B"], seed=0)
    assert (interval.value, interval.low, interval.high) == (0.5, 0.5, 0.5)


def test_intervals_depend_on_the_seed_alone() -> None:
    values = numpy.random.default_rng(0).random(10)
    first, again, other = (bootstrap_ratio(values, numpy.ones(10), names(10), seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_pairs_leave_out_words_with_themselves() -> None:
    numerators = numpy.array([[100.0, 1.0, 3.0], [1.0, 100.0, 5.0], [3.0, 5.0, 100.0]])
    interval = bootstrap_pairs(numerators, numpy.ones((3, 3)), seed=0)
    assert interval.value == pytest.approx(3.0)
    assert interval.low == pytest.approx(1.0)
    assert interval.high == pytest.approx(5.0)


def test_a_single_pair_has_no_interval() -> None:
    interval = bootstrap_pairs(numpy.array([[0.0, 1.0], [3.0, 0.0]]), numpy.ones((2, 2)), seed=0)
    assert (interval.value, interval.low, interval.high) == (2.0, None, None)


def test_the_interval_of_a_mean_over_pairs_is_as_wide_as_theory_says() -> None:
    # The kernel x + y has mean 2 and, over pairs of n draws, the standard deviation 2 s / sqrt(n) (Hoeffding 1948).
    values = numpy.random.default_rng(0).normal(1.0, 1.0, 300)
    interval = bootstrap_pairs(values[:, None] + values[None, :], numpy.ones((300, 300)), seed=0)
    assert interval.value == pytest.approx(2 * values.mean())
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * 2 * values.std() / 300**0.5, rel=0.1)


def test_spelling_figures_have_the_values_of_the_counts() -> None:
    asked, read = [CAT, DOG, HI], [CAT, tuple("DO"), HI]
    assert letter_error_interval(asked, read, seed=0).value == pytest.approx(1 / 8)
    assert exact_match_interval(asked, read, seed=0).value == pytest.approx(2 / 3)
    floor = shuffled_floor_interval(asked, read, seed=0)
    assert floor is not None
    assert floor.value == pytest.approx(17 / 16)
    assert shuffled_floor_interval([CAT, CAT], [CAT, HI], seed=0) is None
