"""The processes that train one model together: one alone, or several that torchrun has started."""

from collections.abc import Callable
from typing import TypeVar

from torch import Tensor

from common.errors import UserError
from data.order import WHOLE_WORK, Part

Value = TypeVar("Value")


PEER_LOST = "another process of this run has ended, so this one cannot go on"


class PeerLost(UserError):
    """Another process of the run has ended, so that this one cannot go on."""


class Processes:
    """This process as seen from the run: here, one that trains alone.

    What several processes do together (`training.process_group.ProcessGroup`) is for one alone nothing at all. Each
    method is to be called by all of them in the same order.
    """

    def __init__(self, part: Part = WHOLE_WORK) -> None:
        """`part` is this process's rank, and how many there are."""
        self.part = part
        self.processes_here = 1
        """How many of them share this machine."""

    @property
    def is_main(self) -> bool:
        """Whether it is the one that logs and writes checkpoints."""
        return self.part.rank == 0

    @property
    def are_several(self) -> bool:
        """Whether there are others."""
        return self.part.world_size > 1

    def gather_clips(self, numbers_KB: Tensor) -> Tensor:
        """Put together K numbers for each clip of a step, [K, B] on the training device.

        Nobody waits: on a GPU, it happens when the device gets there.

        Returns:
            [K, B * world_size], the same on every process, in the order of the global batch (`data.order`).
        """
        return numbers_KB

    def gather(self, value: Value) -> list[Value]:
        """Return every process's value, by rank. Waits for all."""
        return [value]

    def from_main(self, value: Value) -> Value:
        """Return the main process's value. Waits for it."""
        return value

    def wait(self) -> None:
        """Wait for all, however long the slowest takes."""

    def first_on_each_machine(self, work: Callable[[], Value]) -> Value:
        """Let one process of each machine do some work, and the others after it, who find the files that it wrote."""
        return work()

    @property
    def run_is_remembered(self) -> bool:
        """Whether what `remember_run` notes is still there when torchrun starts others in the place of these."""
        return True

    def remember_run(self, name: str) -> None:
        """Note the name of the run's folder for those that torchrun starts in the place of these, should one fail."""

    def remembered_run(self) -> str | None:
        """Return what processes of the same torchrun, in whose place these are, have noted; None without any."""
        return None

    def report_failure(self, message: str) -> bool:
        """Tell the others why this process ends; return whether it is the first on its machine to say just this."""
        return True

    def failure_is_known(self) -> bool:
        """Say whether a process has told why it ended."""
        return False
