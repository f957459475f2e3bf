"""Means over many steps without asking the device for a number at every step."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor

from logging_system.records import SampleStatistics

MAXIMUM_STEPS = 64  # held at a time; then they are summed on the device, so that a long LOG_EVERY_STEPS holds no memory


@dataclass(frozen=True)
class Mean:
    """Mean of the finite values seen, and how many were finite and not finite.

    Without a finite value, ``count`` is 0 and ``mean`` is NaN: a run that diverged must not look calm.
    """

    count: float  # a whole number
    mean: float
    non_finite: float  # a whole number


class DeviceMeans:
    """Collects named values on their device; one transfer in :meth:`collect` brings all means to the host.

    Names that are added together share their arithmetic: about a dozen small kernels for one call, however many
    names it has. All values of one `collect` are on the same device.
    """

    def __init__(self) -> None:
        self._groups: dict[tuple[tuple[str, int], ...], _Group] = {}
        self._step_names: tuple[str, ...] = ()
        self._steps: list[Tensor] = []  # each [names] float32

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add every element of every tensor; any shapes and real dtypes. Elements that are not finite are counted."""
        filled = {name: tensor.detach() for name, tensor in values.items() if tensor.numel()}
        if filled:
            sizes = tuple((name, tensor.numel()) for name, tensor in filled.items())
            self._add(sizes, torch.cat([tensor.reshape(-1).float() for tensor in filled.values()]), None)

    def add_masked(self, name: str, values_B: Tensor, mask_B: Tensor) -> None:
        """Add the elements of ``values_B`` where ``mask_B`` (bool, same shape, same device) is true.

        Raises:
            ValueError: the shapes differ.
        """
        if values_B.shape != mask_B.shape:
            raise ValueError(f"{name}: values {tuple(values_B.shape)} and mask {tuple(mask_B.shape)} differ in shape")
        if values_B.numel():
            self._add(((name, values_B.numel()),), values_B.detach().reshape(-1).float(), mask_B.reshape(-1))

    def add_step(self, values: Mapping[str, Tensor]) -> None:
        """Add the scalars of one step, summed in batches instead of one by one.

        Every call has the same names. Values are copied at once, so the caller may reuse its tensors.
        """
        self._step_names = tuple(values)
        self._steps.append(torch.stack([value.detach().float() for value in values.values()]))
        if len(self._steps) >= MAXIMUM_STEPS:
            self._sum_steps()

    def collect(self) -> dict[str, Mean]:
        """Return the mean of every name since the last call, and start again.

        Names that got no value are absent, unless some of theirs were not finite.
        """
        self._sum_steps()
        groups, self._groups = list(self._groups.values()), {}
        if not groups:
            return {}
        names = [name for group in groups for name in group.names]
        rows = torch.cat([torch.cat([group.shift, group.sums]) for group in groups], dim=1).cpu().tolist()
        means: dict[str, Mean] = {}
        for name, shift, total, count, non_finite in zip(names, *rows, strict=True):
            part = Mean(count, shift + total / count if count else math.nan, non_finite)
            means[name] = _merge(means[name], part) if name in means else part
        return {name: mean for name, mean in means.items() if mean.count or mean.non_finite}

    def _sum_steps(self) -> None:
        if self._steps:
            columns = torch.stack(self._steps, dim=1)
            self._steps = []
            self.add(dict(zip(self._step_names, columns, strict=True)))

    def _add(self, sizes: tuple[tuple[str, int], ...], data: Tensor, mask: Tensor | None) -> None:
        if sizes not in self._groups:
            self._groups[sizes] = _Group(data.device, sizes)
        self._groups[sizes].add(data, mask)


class _Group:
    """The running sums of names that always arrive together with the same numbers of elements.

    Sums are of differences from the mean of the first values, so that float32 loses little however long they grow.
    """

    def __init__(self, device: torch.device, sizes: tuple[tuple[str, int], ...]) -> None:
        self.names = [name for name, _ in sizes]
        owners = [index for index, (_, size) in enumerate(sizes) for _ in range(size)]
        self._owner = torch.tensor(owners, device=device)  # which name each element belongs to
        self.shift = torch.zeros(1, len(sizes), device=device)
        self.sums = torch.zeros(3, len(sizes), device=device)  # of differences, of finite values, of the others

    def add(self, data: Tensor, mask: Tensor | None) -> None:
        finite = data.isfinite()
        wanted = finite if mask is None else finite & mask
        unwanted = ~finite if mask is None else ~finite & mask
        # The first finite values of each name settle its shift; later ones leave it alone.
        clean = torch.stack([torch.where(wanted, data, 0.0), wanted.float()])
        total, number = torch.zeros_like(self.sums[:2]).index_add_(1, self._owner, clean).unbind()
        undecided = (self.sums[1] == 0) & (number > 0)
        self.shift = torch.where(undecided, total / number.clamp(min=1.0), self.shift)
        difference = torch.where(wanted, data - self.shift[0].index_select(0, self._owner), 0.0)
        self.sums.index_add_(1, self._owner, torch.stack([difference, wanted.float(), unwanted.float()]))


def _merge(first: Mean, second: Mean) -> Mean:
    """Combine two parts of one sample (Chan, Golub and LeVeque 1983, equation 2.1)."""
    non_finite = first.non_finite + second.non_finite
    if first.count == 0 or second.count == 0:
        full = second if first.count == 0 else first
        return Mean(full.count, full.mean, non_finite)
    count = first.count + second.count
    return Mean(count, first.mean + (second.mean - first.mean) * second.count / count, non_finite)


@dataclass(frozen=True)
class BinSums:
    """What fell in each bin; both arrays are float64 of shape [bins]."""

    sums: numpy.ndarray
    counts: numpy.ndarray

    def __add__(self, other: "BinSums") -> "BinSums":
        return BinSums(self.sums + other.sums, self.counts + other.counts)

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
        """Return what was added since the last call and start again. One transfer."""
        if self._totals is None:
            return BinSums(numpy.zeros(self.bins), numpy.zeros(self.bins))
        sums, counts = numpy.asarray(self._totals.tolist())
        self._totals = None
        return BinSums(sums, counts)


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
        return SampleStatistics.concatenate(pending) if pending else None
