"""Motion measures on clips whose motion is known."""

import numpy
import pytest
import torch

from measures.clips import (
    frozen_frame_percent,
    hold_share,
    motion_energy,
    ratio_to_real,
    to_unit_range,
)


def moving(*levels: float) -> torch.Tensor:
    """One clip whose frames are flat, each at the given level."""
    return torch.tensor(levels)[None, None, :, None, None].expand(1, 3, len(levels), 4, 4)


def test_motion_energy_is_the_mean_squared_change() -> None:
    assert motion_energy(moving(0.0, 0.5, 0.5, -0.5)).tolist() == pytest.approx([(0.25 + 0 + 1) / 3])


def test_ratio_is_1_for_the_real_thing_0_for_a_still_and_absent_without_real_motion() -> None:
    real = moving(0.0, 0.5, 0.0)
    assert ratio_to_real(motion_energy, real, real) == pytest.approx(1.0)
    assert ratio_to_real(motion_energy, moving(0.2, 0.2, 0.2), real) == 0.0
    assert ratio_to_real(motion_energy, 2 * real, real) == pytest.approx(4.0)
    assert ratio_to_real(motion_energy, real, moving(0.2, 0.2)) is None


def test_frozen_frames_are_counted_over_all_changes_of_frame() -> None:
    assert frozen_frame_percent(moving(0.0, 0.0, 0.5, 0.5, 1.0)) == pytest.approx(50.0)
    just_below, just_above = 2 * 1.9 / 255, 2 * 2.1 / 255  # mean changes around the threshold, on the range -1..1
    assert frozen_frame_percent(moving(0.0, just_below)) == 100.0
    assert frozen_frame_percent(moving(0.0, just_above)) == 0.0


def test_holds_are_counted_over_all_changes_of_frame_and_grain_is_no_motion() -> None:
    # 0.05 and 0 hold, 0.15 and 0.3 do not.
    assert hold_share(moving(0.0, 0.05, 0.05, 0.2, 0.5)).tolist() == pytest.approx([0.5])
    held = moving(0.3, 0.3, 0.3, 0.9, 0.9).repeat(1, 1, 1, 8, 8)
    grainy = held + 0.1 * torch.randn(held.shape, generator=torch.Generator().manual_seed(0))
    assert frozen_frame_percent(grainy) == 0.0
    assert hold_share(grainy).tolist() == hold_share(held).tolist() == pytest.approx([0.75])


def test_hold_ratio_is_1_for_the_real_thing_0_without_rest_and_absent_without_real_holds() -> None:
    real, restless = moving(0.0, 0.0, 0.5, 0.5), moving(0.0, 0.3, 0.6, 0.9)
    assert ratio_to_real(hold_share, real, real) == pytest.approx(1.0)
    assert ratio_to_real(hold_share, restless, real) == 0.0
    assert ratio_to_real(hold_share, moving(0.0, 0.0, 0.0, 0.0), real) == pytest.approx(1.5)
    assert ratio_to_real(hold_share, real, restless) is None


def test_bytes_become_the_unit_range_channels_first() -> None:
    video = numpy.zeros((2, 5, 4, 6, 3), dtype=numpy.uint8)
    video[1, 2, 3, 4] = (255, 0, 51)
    unit = to_unit_range(torch.from_numpy(video))
    assert unit.shape == (2, 3, 5, 4, 6)
    assert unit[1, :, 2, 3, 4].tolist() == pytest.approx([1.0, -1.0, -0.6])
