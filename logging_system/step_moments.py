"""Means over steps of a few scalars a step, at the price of one small copy a step."""

from collections.abc import Mapping

import torch
from torch import Tensor

from logging_system.moments import DeviceMoments, Moments

MAXIMUM_STEPS = 64  # kept at a time; then they are summed, without asking the device for a number


class StepMoments:
    """`DeviceMoments` for the scalars of every step, summed in batches instead of one by one.

    Every call of :meth:`add` has the same names. Values are copied at once, so the caller may reuse its tensors.
    """

    def __init__(self) -> None:
        self._moments = DeviceMoments()
        self._names: tuple[str, ...] = ()
        self._pending: list[Tensor] = []  # each [names] float32

    def add(self, values: Mapping[str, Tensor]) -> None:
        self._names = tuple(values)
        self._pending.append(torch.stack([value.detach().float() for value in values.values()]))
        if len(self._pending) >= MAXIMUM_STEPS:
            self._fold()

    def collect(self, extra: Mapping[str, Tensor] | None = None) -> dict[str, Moments]:
        """Return the moments since the last call, those of `extra` with them: one transfer for all."""
        self._fold()
        if extra:
            self._moments.add(extra)
        return self._moments.collect()

    def _fold(self) -> None:
        if self._pending:
            columns = torch.stack(self._pending, dim=1)
            self._moments.add(dict(zip(self._names, columns, strict=True)))
            self._pending = []
