"""Statistics of many tensors at once, against numpy in float64."""

import math

import numpy
import pytest
import torch

from logging_system.statistics import tensors as module
from logging_system.statistics.tensors import merge_statistics, tensor_statistics


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
