"""What is remembered over a launch stays within its bounds: loss columns, time-lapse clips, clips of steps."""

import dataclasses
import itertools

import numpy
import torch

from logging_system.categories.c06_diffusion import CLIPS_A_BIN, MAXIMUM_COLUMNS, LossHistory
from logging_system.categories.c12_generated_samples import MAXIMUM_POINTS, MAXIMUM_PROMPTS, TimeLapse
from logging_system.records import SampleStatistics
from logging_system.statistics.moments import MAXIMUM_STEPS, BinSums, ClipBuffer, TimestepBins


def test_bins_sum_what_is_finite() -> None:
    bins = TimestepBins(4, 10)
    bins.add(torch.tensor([0, 2, 3, 9]), torch.tensor([1.0, 3.0, 5.0, torch.inf]))
    bins.add(torch.tensor([9]), torch.tensor([7.0]))
    found = bins.collect()
    assert found.sums.tolist() == [4.0, 5.0, 0.0, 7.0]
    assert found.counts.tolist() == [2.0, 1.0, 0.0, 1.0]
    assert numpy.isnan(found.means[2])
    assert bins.collect().counts.tolist() == [0.0] * 4


def test_loss_history_joins_neighbours_and_loses_nothing() -> None:
    history = LossHistory(first_step=0)
    total = 5 * MAXIMUM_COLUMNS + 3
    for number in range(1, total + 1):
        full = numpy.array([2.0 * CLIPS_A_BIN, 0.0])  # of two bins
        history.append(10 * number, BinSums(full * number, full))
        history.append(10 * number, BinSums(full * 1e9, full))  # no step has passed
    edges, means = history.step_edges(), history.means()
    columns = means.shape[1]
    assert MAXIMUM_COLUMNS / 2 <= columns <= MAXIMUM_COLUMNS
    assert edges.shape == (columns + 1,)
    assert (edges[0], edges[-1]) == (0, 10 * total)
    assert (numpy.diff(edges) > 0).all()
    # A column's mean is that of the numbers appended within its steps.
    expected = [numpy.arange(low / 10 + 1, high / 10 + 1).mean() for low, high in itertools.pairwise(edges)]
    numpy.testing.assert_allclose(means[0], expected)
    assert numpy.isnan(means[1]).all()
    # All columns but the last are equally wide: new ones wait until they hold as much as those that were joined.
    assert len(set(numpy.diff(edges)[:-1])) == 1


def test_a_column_waits_until_it_is_full() -> None:
    history = LossHistory(first_step=5)
    half = numpy.array([1.0, CLIPS_A_BIN - 1.0])  # half of what two bins must hold
    for number in range(1, 8):
        history.append(5 + number, BinSums(half * number, half))
    assert history.step_edges().tolist() == [5, 7, 9, 11, 12]
    numpy.testing.assert_allclose(history.means(), [[1.5, 3.5, 5.5, 7.0]] * 2)


def test_time_lapse_keeps_first_latest_and_what_lies_between() -> None:
    lapse = TimeLapse()
    for step in range(100, 4001, 100):
        lapse.add(step, [numpy.full((2 + prompt, 4, 4, 3), step % 256, numpy.uint8) for prompt in range(5)])
    steps = [step for step, _ in lapse.points]
    assert len(steps) == MAXIMUM_POINTS
    assert (steps[0], steps[-1]) == (100, 4000)
    assert max(numpy.diff(steps)) < 2000
    for step, clips in lapse.points:
        assert [len(clip) for clip in clips] == list(range(2, 2 + MAXIMUM_PROMPTS))
        assert all((clip == step % 256).all() for clip in clips)


def test_clip_buffer_joins_steps_and_starts_anew() -> None:
    names = [field.name for field in dataclasses.fields(SampleStatistics)]
    buffer = ClipBuffer()
    assert buffer.take() is None
    for step in range(MAXIMUM_STEPS):
        assert not buffer.is_full
        buffer.add(SampleStatistics(**{name: torch.full((2,), float(step)) for name in names}))
    assert buffer.is_full
    taken = buffer.take()
    assert taken is not None
    assert taken.beta.tolist() == [float(step) for step in range(MAXIMUM_STEPS) for _ in range(2)]
    assert buffer.take() is None
