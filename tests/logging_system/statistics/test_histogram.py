import math

import numpy
import pytest
import torch

from logging_system.statistics.tensors import device_histograms


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_agrees_with_numpy(dtype):
    tensor = (torch.randn(7, 11, 5, generator=torch.Generator().manual_seed(1)) * 50).to(dtype)
    (histogram,) = device_histograms([tensor], 16)
    values = tensor.float().numpy().astype(numpy.float64).ravel()
    counts, edges = numpy.histogram(values, 16)
    assert histogram.bucket_counts == counts.tolist()
    assert histogram.bucket_limits == pytest.approx(edges[1:].tolist(), rel=1e-6, abs=1e-4)
    assert (histogram.minimum, histogram.maximum, histogram.count) == (values.min(), values.max(), values.size)
    assert histogram.sum == pytest.approx(values.sum(), rel=1e-4)
    assert histogram.sum_of_squares == pytest.approx((values**2).sum(), rel=1e-5)


def test_values_that_are_not_finite_are_left_out():
    tensor = torch.tensor([math.nan, 0.0, 1.0, math.inf, 3.9, 4.0, -math.inf])
    (histogram,) = device_histograms([tensor], 4)
    assert histogram.bucket_counts == [1.0, 1.0, 0.0, 2.0]
    assert histogram.bucket_limits == [1.0, 2.0, 3.0, 4.0]
    assert (histogram.minimum, histogram.maximum, histogram.count) == (0.0, 4.0, 4.0)
    assert histogram.sum == pytest.approx(8.9)


def test_extreme_range_does_not_overflow():
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


def test_one_transfer_for_all(count_transfers):
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
