"""A made-up device that is behind the host, as a GPU is."""

from dataclasses import dataclass

from torch import Tensor


@dataclass
class Late:
    numbers: Tensor
    device: "LateDevice"
    is_on_host: bool = False

    def read(self) -> Tensor:
        self.device.read += 1
        return self.numbers


@dataclass
class LateDevice:
    """Counts how many of the numbers that it sent were read."""

    sent: int = 0
    read: int = 0

    def send_to_host(self, numbers: Tensor) -> Late:
        self.sent += 1
        return Late(numbers, self)
