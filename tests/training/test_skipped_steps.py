"""Skipped steps are learnt of late on a GPU, without waiting; here a made-up device is as late as the test wants."""

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from data.records import Batch
from training.device import ComputeDevice
from training.skipped_steps import SkippedSteps, TooManySkippedSteps


@dataclass
class LateFlag:
    flag: Tensor
    device: "LateDevice"

    def has_arrived(self) -> bool:
        return self.device.is_idle

    def read(self) -> bool:
        self.device.waits += not self.device.is_idle
        return bool(self.flag)


@dataclass
class LateDevice:
    """Its flags arrive when it is idle."""

    is_idle: bool = False
    waits: int = 0

    def send_to_host(self, flag: Tensor) -> LateFlag:
        return LateFlag(flag, self)


@dataclass
class Rig:
    device: LateDevice = field(default_factory=LateDevice)
    kept: list[tuple[int, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.steps = SkippedSteps(
            already_skipped=2,
            limit_in_a_row=3,
            compute=self.device,
            keep=lambda step, batch: self.kept.append((step, batch.ids[0])),
        )

    def add(self, step: int, skipped: bool) -> None:
        batch = Batch(torch.zeros(1, 3, 1, 1, 1), torch.zeros(1, 1), ("A",), (f"clip {step}",), 0, 0)
        self.steps.add(step, batch, torch.tensor(skipped))


def test_a_busy_device_is_not_waited_for_and_no_batch_is_mixed_up() -> None:
    rig = Rig()
    for step, skipped in enumerate([False, True, False, True, True], start=1):
        rig.add(step, skipped)
        rig.steps.check()
    assert rig.kept == []
    assert rig.device.waits == 0
    rig.device.is_idle = True
    rig.add(6, False)
    assert rig.kept == [(2, "clip 2"), (4, "clip 4"), (5, "clip 5")]
    assert rig.steps.total() == 2 + 3
    assert not rig.steps.are_too_many  # never three in a row


def test_what_is_saved_waits_for_the_device() -> None:
    rig = Rig()
    rig.add(1, True)
    assert rig.steps.end_in_one()
    assert rig.device.waits == 1
    assert rig.steps.total() == 3
    rig.add(2, False)
    assert not rig.steps.end_in_one()


def test_the_run_is_given_up_as_soon_as_it_is_known() -> None:
    rig = Rig()
    for step in (1, 2, 3, 4):
        rig.add(step, True)
        rig.steps.check()
    rig.device.is_idle = True
    rig.add(5, True)
    with pytest.raises(
        TooManySkippedSteps, match=r"in the last 5 steps, up to step 5 \(MAX_SKIPPED_STEPS_IN_A_ROW is 3"
    ):
        rig.steps.check()


def test_on_the_cpu_it_is_known_at_once() -> None:
    compute = ComputeDevice(torch.device("cpu"), None)
    flag = compute.send_to_host(torch.tensor(True))
    assert flag.has_arrived()
    assert flag.read()
