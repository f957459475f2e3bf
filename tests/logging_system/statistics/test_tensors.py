"""Statistics and histograms of many tensors at once, against numpy in float64."""

import math

import numpy
import pytest
import torch

from logging_system.statistics import tensors as module
from logging_system.statistics.tensors import device_histograms, merge_statistics, tensor_statistics


def _tensors() -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return [
        torch.randn(7, 3, generator=random) * 4 + 2,
        1 + 1e-4 * torch.randn(1000, generator=random),  # E[x^2] - E[x]^2 would lose this spread
        torch.zeros(5),
        torch.randn(4, generator=random).bfloat16(),
    ]


@pytest.mark.parametrize("chunk", [1, 20, 2**24])
def test_values(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_VALUES", chunk)
    tensors = _tensors()
    statistics, extra = tensor_statistics(tensors, [torch.tensor(3), torch.tensor(0.25)])
    assert extra == [3.0, 0.25]
    for tensor, found in zip(tensors, statistics, strict=True):
        values = tensor.float().numpy().astype(numpy.float64).ravel()
        assert (found.count, found.non_finite) == (values.size, 0)
        assert found.mean == pytest.approx(values.mean(), rel=1e-5)
        assert found.std == pytest.approx(values.std(), rel=2e-3)
        assert found.norm == pytest.approx(numpy.linalg.norm(values), rel=1e-5)
        assert found.zeros == (values == 0).sum()


def test_merging_equals_concatenating() -> None:
    tensors = _tensors()
    merged = merge_statistics(tensor_statistics(tensors)[0])
    values = numpy.concatenate([tensor.float().numpy().astype(numpy.float64).ravel() for tensor in tensors])
    assert merged.mean == pytest.approx(values.mean(), rel=1e-5)
    assert merged.std == pytest.approx(values.std(), rel=1e-4)
    assert merged.norm == pytest.approx(numpy.linalg.norm(values), rel=1e-5)
    assert (merged.count, merged.zeros) == (values.size, 5)


def test_non_finite_values_are_counted_and_left_out() -> None:
    mixed = torch.tensor([1.0, math.nan, 3.0, math.inf, -math.inf, 0.0])
    hopeless = torch.full((3,), math.nan)
    (first, second), _ = tensor_statistics([mixed, hopeless])
    assert (first.count, first.non_finite, first.zeros) == (3, 3, 1)
    assert first.mean == pytest.approx(4 / 3)
    assert first.std == pytest.approx(numpy.std([1, 3, 0]))
    assert (second.count, second.non_finite) == (0, 3)
    assert math.isnan(second.norm)
    merged = merge_statistics([first, second])
    assert (merged.mean, merged.non_finite) == (first.mean, 6)


def test_huge_finite_values_do_not_overflow() -> None:
    (found,), _ = tensor_statistics([torch.tensor([3e30, -3e30, 4e30])])
    values = numpy.array([3e30, -3e30, 4e30])
    assert (found.count, found.non_finite) == (3, 0)
    assert found.norm == pytest.approx(numpy.linalg.norm(values), rel=1e-5)
    assert found.std == pytest.approx(values.std(), rel=1e-5)


def test_nothing_in_nothing_out() -> None:
    assert tensor_statistics([]) == ([], [])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_a_histogram_agrees_with_numpy(dtype):
    tensor = (torch.randn(7, 11, 5, generator=torch.Generator().manual_seed(1)) * 50).to(dtype)
    (histogram,) = device_histograms([tensor], 16)
    values = tensor.float().numpy().astype(numpy.float64).ravel()
    counts, edges = numpy.histogram(values, 16)
    assert histogram.bucket_counts == counts.tolist()
    assert histogram.bucket_limits == pytest.approx(edges[1:].tolist(), rel=1e-6, abs=1e-4)
    assert (histogram.minimum, histogram.maximum, histogram.count) == (values.min(), values.max(), values.size)
    assert histogram.sum == pytest.approx(values.sum(), rel=1e-4)
    assert histogram.sum_of_squares == pytest.approx((values**2).sum(), rel=1e-5)


def test_a_histogram_leaves_out_values_that_are_not_finite():
    tensor = torch.tensor([math.nan, 0.0, 1.0, math.inf, 3.9, 4.0, -math.inf])
    (histogram,) = device_histograms([tensor], 4)
    assert histogram.bucket_counts == [1.0, 1.0, 0.0, 2.0]
    assert histogram.bucket_limits == [1.0, 2.0, 3.0, 4.0]
    assert (histogram.minimum, histogram.maximum, histogram.count) == (0.0, 4.0, 4.0)
    assert histogram.sum == pytest.approx(8.9)


def test_extreme_range_of_a_histogram_does_not_overflow():
    largest = torch.finfo(torch.float32).max
    (histogram,) = device_histograms([torch.tensor([-largest, 0.0, largest])], 2)
    assert histogram.bucket_counts == [1.0, 2.0]
    assert histogram.bucket_limits == [0.0, largest]


@pytest.mark.parametrize("tensor", [torch.full((6,), -2.5), torch.tensor(-2.5)])
def test_constant_tensor_has_one_bin(tensor):
    (histogram,) = device_histograms([tensor], 8)
    assert (histogram.bucket_limits, histogram.bucket_counts) == ([-2.5], [float(tensor.numel())])


@pytest.mark.parametrize("tensor", [torch.zeros(0, 3), torch.tensor([math.nan, math.inf])])
def test_nothing_finite_gives_an_empty_histogram(tensor):
    histograms = device_histograms([torch.ones(2), tensor, torch.ones(3)], 8)
    assert [histogram.count for histogram in histograms] == [2.0, 0.0, 3.0]
    assert (histograms[1].bucket_limits, histograms[1].bucket_counts) == ([], [])


def test_one_transfer_for_all_histograms(count_transfers):
    tensors = [torch.randn(10 * (number + 1)) for number in range(30)]
    with count_transfers() as transfers:
        histograms = device_histograms(tensors, 64)
    assert len(transfers) == 1
    assert [histogram.count for histogram in histograms] == [tensor.numel() for tensor in tensors]


@pytest.mark.parametrize("bins", [0, 65])
def test_number_of_bins_is_checked(bins):
    with pytest.raises(ValueError, match="between 1 and 64"):
        device_histograms([torch.ones(2)], bins)


def test_global_randomness_is_left_alone():
    before = torch.get_rng_state()
    device_histograms([torch.ones(3, requires_grad=True)], 8)
    assert torch.equal(torch.get_rng_state(), before)
