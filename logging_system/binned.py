"""Means of per-clip values by timestep, accumulated on the device."""

from dataclasses import dataclass

import numpy
import torch
from torch import Tensor


@dataclass(frozen=True)
class BinSums:
    """What fell in each bin; both arrays are float64 of shape [bins]."""

    sums: numpy.ndarray
    counts: numpy.ndarray

    @property
    def means(self) -> numpy.ndarray:
        """[bins], NaN where no clip fell."""
        filled = self.counts > 0
        return numpy.where(filled, self.sums / numpy.where(filled, self.counts, 1), numpy.nan)


class TimestepBins:
    """Sums and counts of a per-clip value in equal ranges of the timestep. Adding does not synchronise the device."""

    def __init__(self, bins: int, num_timesteps: int) -> None:
        self.bins = bins
        self._num_timesteps = num_timesteps
        self._totals: Tensor | None = None  # [2, bins]: sums, counts

    def add(self, timestep_B: Tensor, value_B: Tensor) -> None:
        """Add one value a clip. Values that are not finite are left out, of the count too."""
        if self._totals is None:
            self._totals = torch.zeros(2, self.bins, device=value_B.device)
        edges = torch.arange(self.bins, device=value_B.device)
        bin_B = timestep_B * self.bins // self._num_timesteps
        is_finite_B = torch.isfinite(value_B)
        member_BN = ((bin_B[:, None] == edges) & is_finite_B[:, None]).float()
        pair_2B = torch.stack([torch.where(is_finite_B, value_B, 0.0), is_finite_B.float()])
        self._totals += pair_2B @ member_BN

    def collect(self) -> BinSums:
        """Return what was added since the last call and start anew. One transfer."""
        if self._totals is None:
            return BinSums(numpy.zeros(self.bins), numpy.zeros(self.bins))
        sums, counts = numpy.asarray(self._totals.tolist())
        self._totals = None
        return BinSums(sums, counts)
