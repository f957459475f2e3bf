import math

import numpy
import pytest
import torch

from logging_system.statistics.moments import DeviceMoments


def test_agree_with_numpy_over_many_steps():
    generator = torch.Generator().manual_seed(3)
    moments, seen = DeviceMoments(), {"loss": [], "vector": [], "integers": []}
    for step in range(50):
        values = {
            "loss": torch.randn((), generator=generator) + 5,
            "vector": torch.randn(2, 3 + step % 2, generator=generator) * 4,
            "integers": torch.randint(0, 1000, (4,), generator=generator),
        }
        moments.add(values)
        for name, value in values.items():
            seen[name].extend(value.flatten().double().tolist())
    for name, result in moments.collect().items():
        expected = numpy.array(seen[name])
        assert result.count == len(expected)
        assert result.mean == pytest.approx(expected.mean(), rel=1e-6)
        assert result.std == pytest.approx(expected.std(), rel=1e-5)
        assert result.non_finite == 0


def test_small_spread_beside_a_large_mean_is_not_lost():
    values = 1000.0 + torch.linspace(-0.01, 0.01, 41)
    moments = DeviceMoments()
    for value in values:
        moments.add({"x": value})
    assert moments.collect()["x"].std == pytest.approx(values.double().std(correction=0).item(), rel=1e-3)


def test_values_that_are_not_finite_are_counted_and_left_out():
    moments = DeviceMoments()
    moments.add({"x": torch.tensor([math.nan, 1.0, math.inf, 3.0, -math.inf])})
    moments.add({"x": torch.tensor([5.0, 5.0, 5.0, 5.0, math.nan])})
    result = moments.collect()["x"]
    assert (result.count, result.non_finite) == (6, 4)
    assert result.mean == pytest.approx(4.0)
    assert result.std == pytest.approx(numpy.std([1, 3, 5, 5, 5, 5]))


def test_first_values_not_finite_then_finite():
    moments = DeviceMoments()
    for value in (math.nan, math.inf, 7.0, 9.0):
        moments.add({"x": torch.tensor(value)})
    result = moments.collect()["x"]
    assert (result.count, result.mean, result.std, result.non_finite) == (2, 8.0, 1.0, 2)


def test_nothing_but_nan_gives_nan_and_not_a_calm_zero():
    moments = DeviceMoments()
    moments.add({"x": torch.tensor([math.nan, math.nan])})
    result = moments.collect()["x"]
    assert (result.count, result.non_finite) == (0, 2)
    assert math.isnan(result.mean)
    assert math.isnan(result.std)


def test_mask_chooses_and_an_empty_choice_is_absent():
    values = torch.tensor([1.0, 10.0, math.nan, math.nan, 5.0])
    moments = DeviceMoments()
    moments.add_masked("chosen", values, torch.tensor([True, False, True, False, True]))
    moments.add_masked("chosen", torch.tensor([8.0, 100.0]), torch.tensor([True, False]))
    moments.add_masked("none", values, torch.zeros(5, dtype=torch.bool))
    results = moments.collect()
    assert set(results) == {"chosen"}
    result = results["chosen"]
    assert (result.count, result.non_finite) == (3, 1)
    assert result.mean == pytest.approx(14 / 3)
    assert result.std == pytest.approx(numpy.std([1, 5, 8]))


def test_mask_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        DeviceMoments().add_masked("x", torch.zeros(3), torch.ones(2, dtype=torch.bool))


def test_collect_starts_again():
    moments = DeviceMoments()
    moments.add({"x": torch.tensor(1.0), "empty": torch.zeros(0)})
    assert set(moments.collect()) == {"x"}
    assert moments.collect() == {}
    moments.add({"x": torch.tensor(3.0)})
    assert moments.collect()["x"].mean == 3.0


def test_one_transfer_whatever_the_number_of_names(count_transfers):
    moments = DeviceMoments()
    for step in range(5):
        moments.add({f"name_{number}": torch.full((3,), float(number)) for number in range(20)})
        moments.add_masked("masked", torch.ones(step + 1), torch.ones(step + 1, dtype=torch.bool))
    with count_transfers() as transfers:
        assert len(moments.collect()) == 21
    assert len(transfers) == 1


def test_adding_leaves_everything_on_the_device(fake_cuda):
    values = torch.randn(4, device=fake_cuda)
    moments = DeviceMoments()
    moments.add({"x": values, "y": values.sum()})
    moments.add_masked("z", values, values > 0)


def test_global_randomness_and_gradients_are_left_alone():
    before = torch.get_rng_state()
    weight = torch.ones(3, requires_grad=True)
    moments = DeviceMoments()
    moments.add({"x": weight * 2})
    assert moments.collect()["x"].mean == 2.0
    assert torch.equal(torch.get_rng_state(), before)
