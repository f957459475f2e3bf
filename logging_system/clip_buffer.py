"""Per-clip figures of the steps since the last log point, kept as they are until somebody needs their sums."""

from dataclasses import fields

import torch

from logging_system.records import SampleStatistics

MAXIMUM_STEPS = 64  # held at a time, so that a long LOG_EVERY_STEPS does not hold memory


class ClipBuffer:
    """Collects the `SampleStatistics` of steps.

    Masked means and bins cost dozens of tiny kernels. Holding references and computing once for several steps makes
    an ordinary step nearly free.
    """

    def __init__(self) -> None:
        self._pending: list[SampleStatistics] = []

    def add(self, samples: SampleStatistics) -> None:
        self._pending.append(samples)

    @property
    def is_full(self) -> bool:
        """True when the owner should take the clips, even if no log point is due."""
        return len(self._pending) >= MAXIMUM_STEPS

    def take(self) -> SampleStatistics | None:
        """Return the clips of all steps since the last call, concatenated on the device; None if there were none."""
        pending, self._pending = self._pending, []
        if not pending:
            return None
        names = [field.name for field in fields(SampleStatistics)]
        return SampleStatistics(**{name: torch.cat([getattr(step, name) for step in pending]) for name in names})
