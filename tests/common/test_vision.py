"""The parts of torchvision that are used work, also beside a PyTorch without CUDA."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from common.vision import make_grid, v2


def test_resize_averages_when_it_shrinks() -> None:
    checks = torch.zeros(1, 1, 32, 32)
    checks[..., ::2] = 1.0
    small = v2.functional.resize(checks, [8, 8], antialias=True)
    assert small.shape == (1, 1, 8, 8)
    assert torch.allclose(small[..., 1:-1], torch.tensor(0.5), atol=0.02)


def test_grid_places_images_in_rows() -> None:
    images = torch.arange(1.0, 5.0).reshape(4, 1, 1, 1).expand(4, 3, 2, 2)
    grid = make_grid(images, nrow=2, padding=1, pad_value=0.0)
    assert grid.shape == (3, 7, 7)
    assert grid[0, 1::3, 1::3].tolist() == [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.slow
def test_imports_in_a_fresh_process() -> None:
    program = "from common.vision import v2, make_grid; print(v2.Resize(4).size, make_grid.__name__)"
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=120
    )
    assert (result.returncode, result.stdout.strip()) == (0, "[4] make_grid"), result.stderr
