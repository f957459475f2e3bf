"""How long work takes where it is done: on a GPU, which is behind the host, that is not what the host sees."""

import time
from dataclasses import dataclass

import torch

Moment = float | torch.cuda.Event
"""The host's clock in seconds, or a mark in a CUDA device's queue of work."""


@dataclass(frozen=True)
class Stretch:
    """From one moment to another of the same device."""

    begun: Moment
    ended: Moment

    def seconds(self) -> float:
        """Return its length. On a CUDA device, both moments must be over: wait for the device before."""
        if isinstance(self.begun, float) or isinstance(self.ended, float):
            assert isinstance(self.begun, float)
            assert isinstance(self.ended, float)
            return self.ended - self.begun
        return self.begun.elapsed_time(self.ended) / 1000


def moment(device: torch.device) -> Moment:
    """Return now, as the device sees it. Nobody waits."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event
