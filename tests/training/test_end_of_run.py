"""After which step a run ends: one process at once, several after the same step."""

import signal
from dataclasses import dataclass

import numpy
import pytest
import torch

from compute.device import ComputeDevice
from config import Config
from data.order import BatchCounts, Part
from distributed.processes import Processes
from tests.compute.late_device import LateDevice
from training.learner import stopping_limits
from training.stopping import GO_ON, OUT_OF_TIME, Ending, EndOfRun, StoppingLimits, ending_for_signal

CPU = ComputeDevice(torch.device("cpu"), None)


@dataclass
class Stop:
    signal_number: int | None = None

    @property
    def ending(self) -> Ending | None:
        return None if self.signal_number is None else ending_for_signal(self.signal_number)


def end_of(stop: Stop, world_size: int, *, minutes: float | None = None, rank: int = 0, compute=CPU) -> EndOfRun:
    end = EndOfRun(StoppingLimits(10, minutes), stop, Processes(Part(rank, world_size)), compute)
    assert end.start(0) is None
    return end


def test_one_process_ends_after_the_step_in_which_a_signal_comes() -> None:
    stop = Stop()
    end = end_of(stop, 1)
    assert end.after(1, torch.tensor(GO_ON)) is None
    stop.signal_number = signal.SIGTERM
    assert end.between_steps() == ending_for_signal(signal.SIGTERM)
    assert end.after(2, torch.tensor(GO_ON)) == ending_for_signal(signal.SIGTERM)


def test_one_of_several_ends_only_when_all_have_heard_of_it() -> None:
    stop = Stop(signal.SIGINT)
    end = end_of(stop, 2)
    assert end.between_steps() is None
    assert end.after(1, torch.tensor(float(GO_ON))) is None  # it was sent before the signal came
    request = end.request()
    assert request > OUT_OF_TIME
    others = end_of(Stop(), 2, rank=1)
    assert others.request() == GO_ON
    for each in (end, others):
        assert each.after(2, torch.tensor(float(request))) == ending_for_signal(signal.SIGINT)


def test_on_a_gpu_all_hear_of_it_two_steps_later() -> None:
    end = end_of(Stop(), 2, compute=LateDevice())
    told = torch.tensor(float(end_of(Stop(signal.SIGTERM), 2).request()))
    assert [end.after(step, told) for step in (1, 2, 3)] == [None, None, ending_for_signal(signal.SIGTERM)]


def test_the_last_step_and_the_time() -> None:
    for world_size in (1, 2):
        end = end_of(Stop(), world_size, minutes=60)
        assert end.request() == GO_ON
        last = end.after(10, torch.tensor(float(GO_ON)))
        assert last is not None
        assert last.reason == "all 10 steps are done (MAX_STEPS or NUM_EPOCHS)"
    for rank, expected in ((0, OUT_OF_TIME), (1, GO_ON)):  # clocks differ, and the main process's counts
        assert end_of(Stop(), 2, minutes=0.0, rank=rank).request() == expected
    over = end_of(Stop(), 2, minutes=1.0).after(4, torch.tensor(float(OUT_OF_TIME)))
    assert over is not None
    assert over.reason.startswith("MAX_MINUTES (1, of each launch) is over; 6 of 10 steps are left")
    alone = EndOfRun(StoppingLimits(10, 0.0), Stop(), Processes(), CPU)
    assert alone.start(3) == alone.after(3, torch.tensor(GO_ON))


def test_a_resumed_run_that_is_done_does_no_step() -> None:
    for world_size in (1, 2):
        end = EndOfRun(StoppingLimits(10, None), Stop(), Processes(Part(0, world_size)), CPU)
        assert end.start(10) is not None


@pytest.mark.parametrize(("epochs", "steps"), [(1, 1), (2, 1), (3, 1), (4, 2), (16, 8)])
def test_epochs_end_with_the_last_batch_that_they_complete_and_too_few_for_one_still_have_a_step(
    epochs: int, steps: int
) -> None:
    """Of 48 frames, 2 clips of 12 frames an epoch are half a batch."""
    counts = BatchCounts(numpy.array([12, 12]), 48)
    config = Config(NUM_EPOCHS=epochs, MAX_STEPS=None)
    assert stopping_limits(config, counts, None).asked_steps == steps
