"""Steps whose loss or gradient was not finite: counted, kept for replay, and too many in a row given up."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from common.errors import UserError
from data.records import Batch
from training.device import ComputeDevice
from training.late_numbers import LateNumbers

NOT_SKIPPED = -1


class TooManySkippedSteps(UserError):
    """The run is given up. Its weights may be what is wrong, so they must not push good checkpoints out."""


class SkippedSteps:
    """Learns which steps were skipped without making the host wait for the device.

    From a GPU it therefore learns it two steps later; until then it holds on to the batches.
    """

    def __init__(
        self,
        *,
        already_skipped: int,
        limit_in_a_row: int,
        compute: ComputeDevice,
        rank: int,
        keep: Callable[[int, Batch], None],
    ) -> None:
        """`keep` gets the step and its batch, for every one that was skipped through a fault of this rank."""
        self._total = already_skipped
        self._last_step = 0
        self._in_a_row = 0
        self._limit = limit_in_a_row
        self._rank = rank
        self._keep = keep
        self._unknown: LateNumbers[tuple[int, Batch]] = LateNumbers(compute)

    def add(self, step: int, batch: Batch, skipped: Tensor, fault: Tensor) -> None:
        """Take note of a step that has just been done; both tensors as in `step.StepOutcome`."""
        self._learn(self._unknown.put((step, batch), torch.where(skipped, fault, NOT_SKIPPED)))

    def total(self) -> int:
        """Return how many steps were skipped since step 0."""
        self._learn(self._unknown.rest())
        return self._total

    def end_in_one(self) -> bool:
        """Say whether the latest step was skipped: its weights may be what is wrong."""
        self._learn(self._unknown.rest())
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

    def _learn(self, known: Sequence[tuple[tuple[int, Batch], Tensor]]) -> None:
        for (self._last_step, batch), number in known:
            at_fault = int(number)
            if at_fault == NOT_SKIPPED:
                self._in_a_row = 0
                continue
            self._total += 1
            self._in_a_row += 1
            if at_fault == self._rank:
                self._keep(self._last_step, batch)
