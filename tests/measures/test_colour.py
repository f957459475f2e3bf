"""Chroma of colours whose chroma is known."""

import pytest
import torch

from measures.clips import chroma


def test_grey_has_none_and_pure_colours_have_all() -> None:
    colours = torch.tensor([[0.3, 0.3, 0.3], [1.0, -1.0, -1.0], [-1.0, 1.0, 1.0], [0.5, 0.0, -0.25]])
    video = colours[:, :, None, None, None].expand(4, 3, 5, 4, 4)
    assert chroma(video).tolist() == pytest.approx([0.0, 2.0, 2.0, 0.75])


def test_it_is_the_mean_over_pixels_and_frames() -> None:
    video = torch.zeros(1, 3, 2, 1, 2)
    video[0, 0, 1, 0, 1] = 1.0
    assert chroma(video).item() == pytest.approx(0.25)
