"""Likeness to real clips: known distributions, and hands that dissolve before a person who does not."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from measures.clips import sharpness
from measures.likeness import (
    clip_statistics,
    density_coverage,
    kernel_distance,
    map_agreement,
    motion_map,
    moving_error,
    moving_sharpness,
)
from measures.retrieval import another_look

FRAMES, SIDE = 24, 64


def person(path: str) -> Tensor:
    """Return a clip [3, T, 64, 64] of a patterned figure that stays, before which a hand of three fingers moves."""
    generator = torch.Generator().manual_seed(1)
    still = torch.full((3, 2 * SIDE, 2 * SIDE), -0.5)
    still[:, 16:, 24:104] = torch.rand(3, 28, 20, generator=generator).repeat_interleave(4, 1).repeat_interleave(4, 2)
    clip = still[:, None].repeat(1, FRAMES, 1, 1)
    for frame in range(FRAMES):
        angle = 2 * math.pi * frame / FRAMES
        top, left = {
            "circle": (52 + 20 * math.sin(angle), 52 + 20 * math.cos(angle)),
            "wave": (20 + 6 * math.sin(angle), 44 + 28 * math.sin(angle)),
        }[path]
        hand = clip[:, frame, round(top) : round(top) + 24, round(left) : round(left) + 24]
        hand[:] = -0.9
        for finger in range(3):
            hand[:, :, 8 * finger : 8 * finger + 5] = 0.9
    return avg_pool2d(clip.transpose(0, 1), 2).transpose(0, 1)  # as a camera sees it: no edge is sharper than a pixel


def dissolved(clip: Tensor) -> Tensor:
    """Return the clip with each frame averaged with its neighbours, and grain until it is as sharp as it was."""
    haze = torch.stack([clip.roll(shift, dims=1) for shift in (-4, -2, 0, 2, 4)]).mean(dim=0)
    grain = torch.randn(clip.shape, generator=torch.Generator().manual_seed(2))
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (low, middle) if sharpness(haze + middle * grain) > sharpness(clip) else (middle, high)
    return haze + low * grain


def test_dissolved_hands_are_seen_where_figures_of_whole_frames_are_healthy() -> None:
    real = person("circle")
    haze = dissolved(real)
    where, where_hazy = motion_map(real), motion_map(haze)
    assert sharpness(haze) / sharpness(real) == pytest.approx(1, abs=0.01)
    assert moving_sharpness(haze, where_hazy) / moving_sharpness(real, where) < 0.5
    assert moving_error(haze, real, where) > 0.2
    assert moving_error(real, real, where) == 0


def test_real_clips_in_another_look_are_not_accused() -> None:
    for path in ("circle", "wave"):
        real = person(path)
        ratios, agreements = [], []
        for seed in range(4):
            look = another_look(real, seed)
            ratios.append(moving_sharpness(look, motion_map(look)) / moving_sharpness(real, motion_map(real)))
            agreements.append(map_agreement(motion_map(look), motion_map(real)))
        assert torch.stack(ratios).mean() == pytest.approx(0.8, abs=0.1)  # its edges are as sharp as edges can be
        others = map_agreement(motion_map(person("wave")), motion_map(person("circle")))
        assert torch.stack(agreements).mean() > others + 0.2


def test_motion_maps_have_the_values_of_a_hand_computation() -> None:
    clip = torch.zeros(3, 2, 4, 4)
    clip[:, 1, 0, 0] = 1.0
    expected = torch.zeros(4, 4)
    expected[0, 0] = 0.5  # of 0 and 1
    torch.testing.assert_close(motion_map(clip), expected)
    assert motion_map(torch.zeros(3, 5, 32, 64)).shape == (8, 16)
    assert map_agreement(expected, expected) == pytest.approx(1)
    assert map_agreement(expected, -expected) == pytest.approx(-1)
    assert map_agreement(expected, torch.ones(4, 4)) == 0


def test_moving_error_counts_only_where_the_real_clip_moves() -> None:
    real = torch.zeros(3, 16, 16, 16)
    real[:, 8:, :8] = 1.0  # the upper half changes
    still_wrong, moving_wrong = real.clone(), real.clone()
    still_wrong[:, :, 12:] += 0.5
    moving_wrong[:, :, :4] += 0.5
    where = motion_map(real)
    assert moving_error(still_wrong, real, where) == 0
    assert moving_error(moving_wrong, real, where) == pytest.approx(0.5 / 2**0.5)


def test_sharpness_of_what_moves_does_not_see_what_is_still() -> None:
    clip = person("circle")
    where = motion_map(clip)
    pattern = torch.rand(3, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) - 0.5
    assert sharpness(clip + pattern) > 1.5 * sharpness(clip)
    torch.testing.assert_close(moving_sharpness(clip + pattern, where), moving_sharpness(clip, where))
    assert moving_sharpness(torch.zeros_like(clip), where) == 0


def test_kernel_distance_of_gaussians_is_what_theory_says() -> None:
    # E (x y + 1)^3 of one value a clip, means a and b, deviation 1, by the moments of a Gaussian.
    def expected_kernel(a: float, b: float) -> float:
        first, second, third = (lambda m: m), (lambda m: m**2 + 1), (lambda m: m**3 + 3 * m)
        return third(a) * third(b) + 3 * second(a) * second(b) + 3 * first(a) * first(b) + 1

    generator = torch.Generator().manual_seed(0)
    near, same, far = (torch.randn(200, 1, generator=generator) + mean for mean in (0.0, 0.0, 1.0))
    theory = expected_kernel(0, 0) + expected_kernel(1, 1) - 2 * expected_kernel(0, 1)
    found = kernel_distance(far, near, seed=0)
    assert found.low is not None
    assert found.high is not None
    assert found.low < theory < found.high
    assert found.low > 0
    null = kernel_distance(same, near, seed=0)
    assert null.low is not None
    assert null.high is not None
    assert null.low < 0 < null.high
    assert kernel_distance(far, near, seed=0) == found


def test_clips_of_one_caption_are_not_taken_for_likeness_of_distributions() -> None:
    generator = torch.Generator().manual_seed(0)
    of_caption = torch.randn(100, 4, generator=generator)
    first, second = (of_caption + 0.1 * torch.randn(100, 4, generator=generator) for _ in range(2))
    captions = [str(number) for number in range(100)]
    paired, unpaired = kernel_distance(first, second, 0, (captions, captions)), kernel_distance(first, second, 0)
    assert paired.low is not None
    assert paired.high is not None
    assert paired.low < 0 < paired.high
    assert unpaired.value < paired.low  # each clip has a near twin in the other set


def test_kernel_distance_is_the_mean_over_pairs_of_different_clips() -> None:
    first, second = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[0.0, 1.0], [2.0, 0.0], [1.0, 1.0]])

    def kernel(one: Tensor, other: Tensor) -> float:
        return float((one @ other / 2 + 1) ** 3)

    within = kernel(first[0], first[1])
    others = sum(kernel(second[i], second[j]) for i in range(3) for j in range(3) if i != j) / 6
    across = sum(kernel(one, other) for one in first for other in second) / 6
    assert kernel_distance(first, second, seed=0).value == pytest.approx(within + others - 2 * across)


def test_density_and_coverage_of_a_case_made_by_hand() -> None:
    # Real clips at 0 to 9 on a line: the fifth nearest of those at 0, 1, ..., 9 are 5, 4, 3, 3, 3, 3, 3, 3, 4, 5 away.
    real = torch.arange(10.0)[:, None]
    generated = torch.tensor([[0.5], [100.0]])
    # 0.5 is strictly within the balls round 0 to 3 alone: 0.5 < 5, 0.5 < 4, 1.5 < 3, 2.5 < 3, but not 3.5 < 3.
    density, coverage = density_coverage(generated, real)
    assert density == pytest.approx(4 / (5 * 2))
    assert coverage == pytest.approx(0.4)
    with pytest.raises(ValueError, match="more than 5"):
        density_coverage(generated, real[:5])


def test_statistics_of_a_clip_are_mean_and_deviation_over_time() -> None:
    found = clip_statistics([torch.tensor([[1.0, 0.0], [3.0, 0.0]]), torch.ones(5, 2)])
    assert found.tolist() == [[2.0, 0.0, 1.0, 0.0], [1.0, 1.0, 0.0, 0.0]]
