"""Which process keeps the others waiting: how long each works on its own between the moments at which all meet."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from distributed.processes import Processes

Moment = float | torch.cuda.Event
"""The host's clock in seconds, or a mark in a CUDA device's queue of work."""


def moment(device: torch.device) -> Moment:
    """Return the present moment on the device, without waiting for it."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


@dataclass(frozen=True)
class Stretch:
    """The time between two moments of the same device."""

    begun: Moment
    ended: Moment

    def seconds(self) -> float:
        """Return its length. Both moments must be over: wait for a CUDA device before."""
        if isinstance(self.begun, float) or isinstance(self.ended, float):
            assert isinstance(self.begun, float)
            assert isinstance(self.ended, float)
            return self.ended - self.begun
        return self.begun.elapsed_time(self.ended) / 1000


class RankTimes:
    """Adds up what a process does before it has to wait for the others in the same step.

    That is waiting for data, and the forward passes: their backward passes send gradients, so that all end at the same
    time, however slow one may be. (With a divided model, `PARALLELISM` "fsdp", forward passes meet as well: waiting
    for data is then what tells the processes apart.)
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._reset()

    def _reset(self) -> None:
        self._steps = 0
        self._seconds = 0.0
        self._stretches: list[Stretch] = []

    def add(self, data_seconds: float, own_work: Sequence[Stretch]) -> None:
        """Count a step. Nobody waits."""
        if self._processes.are_several:
            self._steps += 1
            self._seconds += data_seconds
            self._stretches += own_work

    def compare(self) -> tuple[float, ...]:
        """Return the mean seconds of a step by rank since the last call, and begin anew; empty for one process alone.

        Call on all processes, when their devices have done what they were given.
        """
        if not self._processes.are_several or self._steps == 0:
            return ()
        own = (self._seconds + sum(stretch.seconds() for stretch in self._stretches)) / self._steps
        self._reset()
        return tuple(self._processes.gather(own))
