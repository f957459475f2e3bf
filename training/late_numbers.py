"""Reading what a step found out without making the host wait for the device."""

from collections import deque
from typing import Generic, TypeVar

from torch import Tensor

from training.device import ComputeDevice, OnItsWay

About = TypeVar("About")

LAG_STEPS = 2
"""By how much a CUDA device may be behind the host before the host waits for it."""


class LateNumbers(Generic[About]):
    """Small tensors of successive steps on their way to the host, each with what it is about.

    From a CUDA device they are read LAG_STEPS steps later. That number is fixed, and does not depend on how fast the
    device is, so that every process of a run learns of a step at the same step.
    """

    def __init__(self, compute: ComputeDevice) -> None:
        self._compute = compute
        self._on_their_way: deque[tuple[About, OnItsWay]] = deque()

    def put(self, about: About, numbers: Tensor) -> list[tuple[About, Tensor]]:
        """Send the numbers of a step; return those of the steps that are known now, in order, each once."""
        on_its_way = self._compute.send_to_host(numbers)
        self._on_their_way.append((about, on_its_way))
        return self._take(0 if on_its_way.is_on_host else LAG_STEPS)

    def rest(self) -> list[tuple[About, Tensor]]:
        """Return all that are not known yet, after waiting for the device."""
        return self._take(0)

    def _take(self, left: int) -> list[tuple[About, Tensor]]:
        taken = []
        while len(self._on_their_way) > left:
            about, on_its_way = self._on_their_way.popleft()
            taken.append((about, on_its_way.read()))
        return taken
