"""Batched sums of the scalars of every step."""

import math

import numpy
import pytest
import torch

from logging_system.statistics.moments import MAXIMUM_STEPS, StepMoments


@pytest.mark.parametrize("steps", [1, MAXIMUM_STEPS - 1, MAXIMUM_STEPS, 2 * MAXIMUM_STEPS + 5])
def test_every_step_counts_once(steps: int) -> None:
    moments = StepMoments()
    for step in range(steps):
        moments.add({"a": torch.tensor(float(step)), "b": torch.tensor(step % 2 == 0)})
    found = moments.collect({"c": torch.tensor(7.0)})
    values = numpy.arange(steps)
    assert found["a"].count == steps
    assert found["a"].mean == pytest.approx(values.mean())
    assert found["a"].std == pytest.approx(values.std(), rel=1e-5, abs=1e-6)
    assert found["b"].mean == pytest.approx((values % 2 == 0).mean())
    assert found["c"].mean == 7.0
    assert moments.collect() == {}


def test_values_are_copied_and_non_finite_ones_counted() -> None:
    moments = StepMoments()
    reused = torch.tensor(1.0)
    moments.add({"a": reused})
    reused.fill_(3.0)
    moments.add({"a": reused})
    reused.fill_(math.nan)
    moments.add({"a": reused})
    found = moments.collect()["a"]
    assert (found.count, found.mean, found.non_finite) == (2, 2.0, 1)
