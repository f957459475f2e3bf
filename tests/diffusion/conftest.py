"""Shared by the tests of the diffusion mathematics: batches and an oracle."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor


@pytest.fixture
def random_video() -> Callable[..., Tensor]:
    """A maker of [2, 3, 4, 5, 5] float32 noise, one tensor a seed."""

    def make(seed: int, shape: tuple[int, ...] = (2, 3, 4, 5, 5)) -> Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed))

    return make
