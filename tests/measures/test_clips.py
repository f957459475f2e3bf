"""Measures of pixels on clips whose motion, detail, colours and distances are known."""

import numpy
import pytest
import torch

from data.records import as_video
from measures.clips import (
    COMPARED_FRAMES,
    COMPARED_SIZE,
    are_copies,
    at_equal_moments,
    chroma,
    frozen_share,
    hold_share,
    mean_of,
    motion_energy,
    nearest_distances,
    pick_for_comparison,
    ratio_to_real,
    sharpness,
    small_copies,
)


def moving(*levels: float) -> torch.Tensor:
    """A clip whose frames are flat, each at the given level."""
    return torch.tensor(levels)[None, :, None, None].expand(3, len(levels), 4, 4)


def test_motion_energy_is_the_mean_squared_change() -> None:
    assert motion_energy(moving(0.0, 0.5, 0.5, -0.5)).item() == pytest.approx((0.25 + 0 + 1) / 3)


def test_a_measure_of_clips_of_different_lengths_counts_each_clip_once_and_not_each_frame() -> None:
    short, long = moving(0.0, 0.5), moving(0.0, 0.0, 0.0, 0.0, 0.0)
    assert mean_of(motion_energy, [short, long]) == pytest.approx(0.125)
    assert ratio_to_real(motion_energy, [short, long], [short]) == pytest.approx(0.5)


def test_motion_ratio_is_1_for_the_real_thing_0_for_a_still_and_absent_without_real_motion() -> None:
    real = moving(0.0, 0.5, 0.0)
    assert ratio_to_real(motion_energy, [real], [real]) == pytest.approx(1.0)
    assert ratio_to_real(motion_energy, [moving(0.2, 0.2, 0.2, 0.2)], [real]) == 0.0
    assert ratio_to_real(motion_energy, [2 * real], [real]) == pytest.approx(4.0)
    assert ratio_to_real(motion_energy, [real], [moving(0.2, 0.2)]) is None


def test_frozen_frames_are_counted_over_all_changes_of_frame() -> None:
    assert frozen_share(moving(0.0, 0.0, 0.5, 0.5, 1.0)).item() == pytest.approx(0.5)
    just_below, just_above = 2 * 1.9 / 255, 2 * 2.1 / 255  # mean changes around the threshold, on the range -1..1
    assert frozen_share(moving(0.0, just_below)).item() == 1.0
    assert frozen_share(moving(0.0, just_above)).item() == 0.0


def test_holds_are_counted_over_all_changes_of_frame_and_grain_is_no_motion() -> None:
    # 0.05 and 0 hold, 0.15 and 0.3 do not.
    assert hold_share(moving(0.0, 0.05, 0.05, 0.2, 0.5)).item() == pytest.approx(0.5)
    held = moving(0.3, 0.3, 0.3, 0.9, 0.9).repeat(1, 1, 8, 8)
    grainy = held + 0.1 * torch.randn(held.shape, generator=torch.Generator().manual_seed(0))
    assert frozen_share(grainy).item() == 0.0
    assert hold_share(grainy).item() == hold_share(held).item() == pytest.approx(0.75)


def test_hold_ratio_is_1_for_the_real_thing_0_without_rest_and_absent_without_real_holds() -> None:
    real, restless = moving(0.0, 0.0, 0.5, 0.5), moving(0.0, 0.3, 0.6, 0.9)
    assert ratio_to_real(hold_share, [real], [real]) == pytest.approx(1.0)
    assert ratio_to_real(hold_share, [restless], [real]) == 0.0
    assert ratio_to_real(hold_share, [moving(0.0, 0.0, 0.0, 0.0)], [real]) == pytest.approx(1.5)
    assert ratio_to_real(hold_share, [real], [restless]) is None


def test_bytes_become_the_unit_range_channels_first() -> None:
    video = numpy.zeros((2, 5, 4, 6, 3), dtype=numpy.uint8)
    video[1, 2, 3, 4] = (255, 0, 51)
    unit = as_video(torch.from_numpy(video))
    assert unit.shape == (2, 3, 5, 4, 6)
    assert unit[1, :, 2, 3, 4].tolist() == pytest.approx([1.0, -1.0, -0.6])


def striped(contrast: float) -> torch.Tensor:
    """A clip of grey columns, dark and bright in turn: neighbours differ by `contrast` across and by 0 downwards."""
    columns = torch.tensor([-0.5, 0.5]).repeat(4) * contrast
    return columns.expand(3, 5, 8, 8)


def test_sharpness_ratio_follows_the_contrast_of_neighbouring_pixels() -> None:
    assert ratio_to_real(sharpness, [striped(0.5)], [striped(1.0)]) == pytest.approx(0.5)
    assert ratio_to_real(sharpness, [striped(1.0)], [striped(0.4)]) == pytest.approx(2.5)
    assert ratio_to_real(sharpness, [torch.zeros(3, 9, 8, 8)], [striped(1.0)]) == 0.0


def test_flat_real_clips_give_no_sharpness_ratio() -> None:
    assert ratio_to_real(sharpness, [striped(1.0)], [torch.full((3, 5, 8, 8), 0.3)]) is None


def test_noise_on_top_of_a_real_clip_raises_its_sharpness() -> None:
    real = striped(0.1)
    noisy = real + torch.randn(real.shape, generator=torch.Generator().manual_seed(0))
    ratio = ratio_to_real(sharpness, [noisy], [real])
    assert ratio is not None
    assert ratio > 5


def test_grey_has_no_chroma_and_pure_colours_have_all() -> None:
    colours = torch.tensor([[0.3, 0.3, 0.3], [1.0, -1.0, -1.0], [-1.0, 1.0, 1.0], [0.5, 0.0, -0.25]])
    clips = colours[:, :, None, None, None].expand(4, 3, 5, 4, 4)
    assert [chroma(clip).item() for clip in clips] == pytest.approx([0.0, 2.0, 2.0, 0.75])


def test_chroma_is_the_mean_over_pixels_and_frames() -> None:
    clip = torch.zeros(3, 2, 1, 2)
    clip[0, 1, 0, 1] = 1.0
    assert chroma(clip).item() == pytest.approx(0.25)


def test_clips_of_any_length_show_the_same_moments() -> None:
    """The moment of a frame is where its middle is in its clip, from 0 to 1."""
    clips = [((torch.arange(frames) + 0.5) / frames).expand(3, 1, 2, frames).movedim(-1, 1) for frames in (4, 16, 40)]
    shown = at_equal_moments(clips)
    assert shown.shape == (3, 3, COMPARED_FRAMES, 1, 2)
    moments = (torch.arange(COMPARED_FRAMES) + 0.5) / COMPARED_FRAMES
    for clip, picked in zip(clips, shown, strict=True):
        assert ((picked - moments[:, None, None]).abs() <= 0.5 / clip.shape[1] + 1e-6).all()  # half a frame
    assert torch.equal(shown[1], clips[1])
    assert torch.equal(shown[0], clips[0].repeat_interleave(4, dim=1))


def flat_clips(*levels: float, frames: int = 4, size: int = 32) -> list[torch.Tensor]:
    return [torch.full((3, frames, size, size), level) for level in levels]


def test_clips_of_any_length_are_compared() -> None:
    """What is shown faster or slower is the same clip; where frames are left out, their mean counts."""
    short = torch.rand(3, COMPARED_FRAMES, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    slow = short.repeat_interleave(3, dim=1)
    other = -short.repeat_interleave(2, dim=1)
    distances = nearest_distances(small_copies([short, slow, other]), small_copies([short]))
    assert distances[:2].tolist() == pytest.approx([0.0, 0.0], abs=1e-3)
    assert distances[2].item() == pytest.approx(2 * short.square().mean().sqrt().item(), rel=1e-4)


def test_distance_is_the_root_mean_square_to_the_nearest() -> None:
    training = small_copies(flat_clips(-1.0, 0.0, 0.5))
    distances = nearest_distances(small_copies(flat_clips(0.1, -0.7)), training)
    assert distances.tolist() == pytest.approx([0.1, 0.3], abs=1e-4)
    assert nearest_distances(small_copies(flat_clips(1.0)), small_copies(flat_clips(-1.0))).item() == pytest.approx(2.0)


def test_a_copy_is_at_0_wherever_it_is_in_the_list() -> None:
    clips = list(torch.rand(5, 3, 4, 24, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1)
    assert nearest_distances(small_copies(clips[3:4]), small_copies(clips)).item() == pytest.approx(0.0, abs=1e-3)


def test_grain_hardly_counts_and_another_clip_does() -> None:
    generator = torch.Generator().manual_seed(0)
    grain = 0.3 * torch.randn(3, COMPARED_FRAMES, 64, 64, generator=generator)
    training = small_copies(flat_clips(0.0, size=64))
    # Each compared value averages 4 x 4 pixels, so that the grain's deviation of 0.3 shrinks to a quarter.
    assert nearest_distances(small_copies([grain]), training).item() == pytest.approx(0.3 / 4, rel=0.05)


def test_copies_are_no_larger_than_the_compared_size_and_small_clips_stay_as_they_are() -> None:
    assert small_copies(flat_clips(0.0, size=64)).shape == (1, 3 * COMPARED_FRAMES * COMPARED_SIZE**2)
    clip = torch.rand(3, COMPARED_FRAMES, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(small_copies([clip]), clip.flatten()[None])


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
