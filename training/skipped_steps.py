"""Steps whose loss or gradient was not finite: counted, kept for replay, and too many in a row given up."""

from collections import deque
from collections.abc import Callable

from torch import Tensor

from common.errors import UserError
from data.records import Batch
from training.device import ComputeDevice, FlagOnItsWay


class TooManySkippedSteps(UserError):
    """The run is given up. Its weights may be what is wrong, so they must not push good checkpoints out."""


class SkippedSteps:
    """Learns which steps were skipped without making the host wait for the device.

    On a GPU it therefore learns it a step or two later; until then it holds on to the batches.
    """

    def __init__(
        self,
        *,
        already_skipped: int,
        limit_in_a_row: int,
        compute: ComputeDevice,
        keep: Callable[[int, Batch], None],
    ) -> None:
        """`keep` gets the step and its batch, for every one that was skipped."""
        self._total = already_skipped
        self._last_step = 0
        self._in_a_row = 0
        self._limit = limit_in_a_row
        self._compute = compute
        self._keep = keep
        self._unknown: deque[tuple[int, Batch, FlagOnItsWay]] = deque()

    def add(self, step: int, batch: Batch, skipped: Tensor) -> None:
        """Take note of a step that has just been done; `skipped` is a scalar bool on the device."""
        self._unknown.append((step, batch, self._compute.send_to_host(skipped)))
        self._learn(wait=False)

    def total(self) -> int:
        """Return how many steps were skipped since step 0."""
        self._learn(wait=True)
        return self._total

    def end_in_one(self) -> bool:
        """Say whether the latest step was skipped: its weights may be what is wrong."""
        self._learn(wait=True)
        return self._in_a_row > 0

    @property
    def are_too_many(self) -> bool:
        """Whether the last steps that are known of were skipped, as many as the limit."""
        return self._in_a_row >= self._limit

    def check(self) -> None:
        """Give the run up where it has to be.

        Raises:
            TooManySkippedSteps: `are_too_many`.
        """
        if self.are_too_many:
            raise TooManySkippedSteps(
                f"the loss or its gradient was not finite in the last {self._in_a_row} steps, up to step "
                f"{self._last_step} (MAX_SKIPPED_STEPS_IN_A_ROW is {self._limit}). They changed no weight. "
                f"`python -m training.replay` looks into such a step. Lower LEARNING_RATE, or look for broken clips."
            )

    def _learn(self, *, wait: bool) -> None:
        while self._unknown and (wait or self._unknown[0][2].has_arrived()):
            self._last_step, batch, flag = self._unknown.popleft()
            if flag.read():
                self._total += 1
                self._in_a_row += 1
                self._keep(self._last_step, batch)
            else:
                self._in_a_row = 0
