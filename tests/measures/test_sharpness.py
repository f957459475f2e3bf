"""Sharpness on clips whose detail is known."""

import pytest
import torch

from measures.clips import ratio_to_real, sharpness


def striped(contrast: float) -> torch.Tensor:
    """Two clips of grey columns, dark and bright in turn: neighbours differ by `contrast` across and by 0 downwards."""
    columns = torch.tensor([-0.5, 0.5]).repeat(4) * contrast
    return columns.expand(2, 3, 5, 8, 8)


def test_ratio_follows_the_contrast_of_neighbouring_pixels() -> None:
    assert ratio_to_real(sharpness, striped(0.5), striped(1.0)) == pytest.approx(0.5)
    assert ratio_to_real(sharpness, striped(1.0), striped(0.4)) == pytest.approx(2.5)
    assert ratio_to_real(sharpness, torch.zeros(1, 3, 5, 8, 8), striped(1.0)) == 0.0


def test_flat_real_clips_give_no_ratio() -> None:
    assert ratio_to_real(sharpness, striped(1.0), torch.full((1, 3, 5, 8, 8), 0.3)) is None


def test_noise_on_top_of_a_real_clip_raises_it() -> None:
    real = striped(0.1)
    noisy = real + torch.randn(real.shape, generator=torch.Generator().manual_seed(0))
    ratio = ratio_to_real(sharpness, noisy, real)
    assert ratio is not None
    assert ratio > 5
