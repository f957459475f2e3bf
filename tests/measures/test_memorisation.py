"""Distances to the nearest training clip, worked out by hand."""

import pytest
import torch

from measures.clips import COMPARED_SIZE, are_copies, nearest_distances, pick_for_comparison, small_copies


def flat_clips(*levels: float, size: int = 32) -> torch.Tensor:
    return torch.tensor(levels)[:, None, None, None, None].expand(len(levels), 3, 4, size, size)


def test_distance_is_the_root_mean_square_to_the_nearest() -> None:
    training = small_copies(flat_clips(-1.0, 0.0, 0.5))
    distances = nearest_distances(small_copies(flat_clips(0.1, -0.7)), training)
    assert distances.tolist() == pytest.approx([0.1, 0.3], abs=1e-5)
    assert nearest_distances(small_copies(flat_clips(1.0)), small_copies(flat_clips(-1.0))).item() == pytest.approx(2.0)


def test_a_copy_is_at_0_wherever_it_is_in_the_list() -> None:
    clips = torch.rand(5, 3, 4, 24, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert nearest_distances(small_copies(clips[3:4]), small_copies(clips)).item() == pytest.approx(0.0, abs=1e-3)


def test_grain_hardly_counts_and_another_clip_does() -> None:
    generator = torch.Generator().manual_seed(0)
    grain = 0.3 * torch.randn(1, 3, 4, 64, 64, generator=generator)
    training = small_copies(flat_clips(0.0, size=64))
    # Each compared value averages 4 x 4 pixels, so that the grain's deviation of 0.3 shrinks to a quarter.
    assert nearest_distances(small_copies(grain), training).item() == pytest.approx(0.3 / 4, rel=0.05)


def test_copies_are_no_larger_than_the_compared_size_and_small_clips_stay_as_they_are() -> None:
    assert small_copies(flat_clips(0.0, size=64)).shape == (1, 3 * 4 * COMPARED_SIZE**2)
    clip = torch.rand(1, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(small_copies(clip), clip.flatten(1))


def test_clips_of_the_wanted_captions_come_first_and_the_rest_is_spread() -> None:
    captions = ["A", "B"] * 50
    picked = pick_for_comparison(captions, ["B"], 20)
    assert len(picked) == 20 == len(set(picked))
    assert picked == sorted(picked)
    assert sum(captions[index] == "B" for index in picked) >= 10
    assert picked[0] < 10
    assert picked[-1] >= 90


def test_a_small_data_set_is_compared_with_whole() -> None:
    assert pick_for_comparison(["A", "B", "C"], ["C"], 256) == [0, 1, 2]
    assert pick_for_comparison([], ["C"], 256) == []
    assert len(pick_for_comparison(["A"] * 10, ["A"], 4)) == 4


def test_a_few_copies_among_many_clips_are_seen() -> None:
    real = torch.linspace(0.2, 0.3, 101)
    generated = torch.tensor([0.25] * 90 + [0.01] * 10)
    assert are_copies(generated, real).tolist() == [False] * 90 + [True] * 10
    assert are_copies(real, real).float().mean().item() == pytest.approx(0.05, abs=0.01)
