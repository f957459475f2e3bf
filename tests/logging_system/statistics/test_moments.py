import math

import numpy
import pytest
import torch

from logging_system.statistics.moments import MAXIMUM_STEPS, DeviceMeans


def test_agree_with_numpy_over_many_steps():
    generator = torch.Generator().manual_seed(3)
    means, seen = DeviceMeans(), {"loss": [], "vector": [], "integers": []}
    for step in range(50):
        values = {
            "loss": torch.randn((), generator=generator) + 5,
            "vector": torch.randn(2, 3 + step % 2, generator=generator) * 4,
            "integers": torch.randint(0, 1000, (4,), generator=generator),
        }
        means.add(values)
        for name, value in values.items():
            seen[name].extend(value.flatten().double().tolist())
    for name, result in means.collect().items():
        expected = numpy.array(seen[name])
        assert result.count == len(expected)
        assert result.mean == pytest.approx(expected.mean(), rel=1e-6)
        assert result.non_finite == 0


def test_values_that_are_not_finite_are_counted_and_left_out():
    means = DeviceMeans()
    means.add({"x": torch.tensor([math.nan, 1.0, math.inf, 3.0, -math.inf])})
    means.add({"x": torch.tensor([5.0, 5.0, 5.0, 5.0, math.nan])})
    result = means.collect()["x"]
    assert (result.count, result.non_finite) == (6, 4)
    assert result.mean == pytest.approx(4.0)


def test_first_values_not_finite_then_finite():
    means = DeviceMeans()
    for value in (math.nan, math.inf, 7.0, 9.0):
        means.add({"x": torch.tensor(value)})
    result = means.collect()["x"]
    assert (result.count, result.mean, result.non_finite) == (2, 8.0, 2)


def test_nothing_but_nan_gives_nan_and_not_a_calm_zero():
    means = DeviceMeans()
    means.add({"x": torch.tensor([math.nan, math.nan])})
    result = means.collect()["x"]
    assert (result.count, result.non_finite) == (0, 2)
    assert math.isnan(result.mean)


def test_mask_chooses_and_an_empty_choice_is_absent():
    values = torch.tensor([1.0, 10.0, math.nan, math.nan, 5.0])
    means = DeviceMeans()
    means.add_masked("chosen", values, torch.tensor([True, False, True, False, True]))
    means.add_masked("chosen", torch.tensor([8.0, 100.0]), torch.tensor([True, False]))
    means.add_masked("none", values, torch.zeros(5, dtype=torch.bool))
    results = means.collect()
    assert set(results) == {"chosen"}
    result = results["chosen"]
    assert (result.count, result.non_finite) == (3, 1)
    assert result.mean == pytest.approx(14 / 3)


def test_mask_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        DeviceMeans().add_masked("x", torch.zeros(3), torch.ones(2, dtype=torch.bool))


def test_collect_starts_again():
    means = DeviceMeans()
    means.add({"x": torch.tensor(1.0), "empty": torch.zeros(0)})
    assert set(means.collect()) == {"x"}
    assert means.collect() == {}
    means.add({"x": torch.tensor(3.0)})
    assert means.collect()["x"].mean == 3.0


def test_one_transfer_whatever_the_number_of_names(count_transfers):
    means = DeviceMeans()
    for step in range(5):
        means.add({f"name_{number}": torch.full((3,), float(number)) for number in range(20)})
        means.add_masked("masked", torch.ones(step + 1), torch.ones(step + 1, dtype=torch.bool))
    with count_transfers() as transfers:
        assert len(means.collect()) == 21
    assert len(transfers) == 1


def test_adding_leaves_everything_on_the_device(fake_cuda):
    values = torch.randn(4, device=fake_cuda)
    means = DeviceMeans()
    means.add({"x": values, "y": values.sum()})
    means.add_masked("z", values, values > 0)


def test_global_randomness_and_gradients_are_left_alone():
    before = torch.get_rng_state()
    weight = torch.ones(3, requires_grad=True)
    means = DeviceMeans()
    means.add({"x": weight * 2})
    assert means.collect()["x"].mean == 2.0
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("steps", [1, MAXIMUM_STEPS - 1, MAXIMUM_STEPS, 2 * MAXIMUM_STEPS + 5])
def test_every_step_counts_once(steps: int) -> None:
    means = DeviceMeans()
    for step in range(steps):
        means.add_step({"a": torch.tensor(float(step)), "b": torch.tensor(step % 2 == 0)})
    means.add({"c": torch.tensor(7.0)})
    found = means.collect()
    values = numpy.arange(steps)
    assert found["a"].count == steps
    assert found["a"].mean == pytest.approx(values.mean())
    assert found["b"].mean == pytest.approx((values % 2 == 0).mean())
    assert found["c"].mean == 7.0
    assert means.collect() == {}


def test_values_are_copied_and_non_finite_ones_counted() -> None:
    means = DeviceMeans()
    reused = torch.tensor(1.0)
    means.add_step({"a": reused})
    reused.fill_(3.0)
    means.add_step({"a": reused})
    reused.fill_(math.nan)
    means.add_step({"a": reused})
    found = means.collect()["a"]
    assert (found.count, found.mean, found.non_finite) == (2, 2.0, 1)
