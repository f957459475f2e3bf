"""Skipped steps are learnt of two steps late on a GPU, without waiting; here a made-up device is as late."""

from dataclasses import dataclass, field

import pytest
import torch

from compute.device import ComputeDevice
from data.records import Batch
from tests.compute.late_device import LateDevice
from training.skipped import SkippedSteps, TooManySkippedSteps


@dataclass
class Rig:
    device: LateDevice = field(default_factory=LateDevice)
    kept: list[tuple[int, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.steps = SkippedSteps(
            already_skipped=2,
            max_skipped_steps_in_a_row=3,
            compute=self.device,
            rank=1,
            keep=lambda step, batch: self.kept.append((step, batch.ids[0])),
        )

    def add(self, step: int, skipped: bool, fault: int = 1) -> None:
        clips = torch.zeros(1, 1, 1, 1, 3, dtype=torch.uint8)
        batch = Batch(clips, torch.ones(1), torch.zeros(1, 1), ("A",), (f"clip {step}",), 0, 0, 1)
        self.steps.add(step, batch, torch.tensor(skipped), torch.tensor(fault))


def test_a_gpu_is_two_steps_behind_and_no_batch_is_mixed_up() -> None:
    rig = Rig()
    learnt = []
    for step, skipped in enumerate([False, True, False, True, True, False, False], start=1):
        rig.add(step, skipped)
        rig.steps.check()
        assert rig.device.sent - rig.device.read == min(step, 2)
        learnt.append([kept for kept, _ in rig.kept])
    assert learnt == [[], [], [], [2], [2], [2, 4], [2, 4, 5]]
    assert rig.kept == [(2, "clip 2"), (4, "clip 4"), (5, "clip 5")]
    assert rig.steps.total() == 2 + 3
    assert not rig.steps.are_too_many  # never three in a row


def test_what_is_saved_waits_for_the_device() -> None:
    rig = Rig()
    rig.add(1, True)
    assert rig.device.read == 0
    assert rig.steps.last_was_skipped()
    assert rig.device.read == 1
    assert rig.steps.total() == 3
    rig.add(2, False)
    assert not rig.steps.last_was_skipped()


def test_the_run_is_given_up_as_soon_as_it_is_known() -> None:
    rig = Rig()
    for step in (1, 2, 3, 4):
        rig.add(step, True)
        rig.steps.check()
    rig.add(5, True)
    with pytest.raises(
        TooManySkippedSteps, match=r"in the last 3 steps, up to step 3 \(MAX_SKIPPED_STEPS_IN_A_ROW is 3"
    ):
        rig.steps.check()


def test_a_step_that_another_process_broke_is_counted_and_kept_by_that_one() -> None:
    rig = Rig()
    rig.add(1, True, fault=0)
    rig.add(2, True, fault=1)
    assert rig.steps.total() == 2 + 2
    assert rig.kept == [(2, "clip 2")]


def test_on_the_cpu_it_is_known_at_once() -> None:
    compute = ComputeDevice(torch.device("cpu"), None)
    numbers = compute.send_to_host(torch.tensor(3))
    assert numbers.is_on_host
    assert int(numbers.read()) == 3
