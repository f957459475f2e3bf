"""Means over many steps without asking the device for a number at every step."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor

from logging_system.records import SampleStatistics


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


MAXIMUM_BUFFERED_STEPS = 64  # held at a time, so that a long LOG_EVERY_STEPS does not hold memory


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
        return len(self._pending) >= MAXIMUM_BUFFERED_STEPS

    def take(self) -> SampleStatistics | None:
        """Return the clips of all steps since the last call, concatenated on the device; None if there were none."""
        pending, self._pending = self._pending, []
        return SampleStatistics.concatenate(pending) if pending else None


@dataclass(frozen=True)
class Moments:
    """Mean and population standard deviation of the finite values seen, and how many were not finite.

    Without a finite value, ``count`` is 0 and ``mean`` and ``std`` are NaN: a run that diverged must not look calm.
    """

    count: int
    mean: float
    std: float
    non_finite: int


class DeviceMoments:
    """Collects values on their device; one transfer in :meth:`collect` brings every result to the host.

    Names that are added together share their arithmetic: about a dozen small kernels for one call, however many
    names it has. Sums are of differences from a value near the first mean (float32, "shifted data", Chan, Golub and
    LeVeque 1983), because a plain sum of squares loses a standard deviation that is small beside the mean.
    """

    def __init__(self) -> None:
        self._groups: dict[tuple[object, ...], _Group] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add every element of every tensor; any shapes and real dtypes. Elements that are not finite are counted."""
        filled = {name: tensor.detach() for name, tensor in values.items() if tensor.numel()}
        for device in {tensor.device for tensor in filled.values()}:
            here = {name: tensor for name, tensor in filled.items() if tensor.device == device}
            sizes = tuple((name, tensor.numel()) for name, tensor in here.items())
            data = torch.cat([tensor.reshape(-1).float() for tensor in here.values()])
            self._group(device, sizes).add(data, None)

    def add_masked(self, name: str, values_B: Tensor, mask_B: Tensor) -> None:
        """Add the elements of ``values_B`` where ``mask_B`` (bool, same shape, same device) is true."""
        if values_B.shape != mask_B.shape:
            raise ValueError(f"{name}: values {tuple(values_B.shape)} and mask {tuple(mask_B.shape)} differ in shape")
        if values_B.numel():
            group = self._group(values_B.device, ((name, values_B.numel()),))
            group.add(values_B.detach().reshape(-1).float(), mask_B.detach().reshape(-1))

    def collect(self) -> dict[str, Moments]:
        """Return the moments of every name and start again.

        Names that got no value are absent, unless some of theirs were not finite.
        """
        groups, self._groups = list(self._groups.values()), {}
        partial: dict[str, _Partial] = {}
        for group, (counts, sums) in zip(groups, _to_host(groups), strict=True):
            for index, name in enumerate(group.names):
                part = _partial_of(counts[:, index].tolist(), sums[:, index].tolist())
                partial[name] = _merge(partial[name], part) if name in partial else part
        return {name: _finish(part) for name, part in partial.items() if part.count or part.non_finite}

    def _group(self, device: torch.device, sizes: tuple[tuple[str, int], ...]) -> "_Group":
        key = (device, sizes)
        if key not in self._groups:
            self._groups[key] = _Group(device, sizes)
        return self._groups[key]


class _Group:
    """The running sums of names that always arrive together with the same numbers of elements."""

    def __init__(self, device: torch.device, sizes: tuple[tuple[str, int], ...]) -> None:
        self.device = device
        self.names = [name for name, _ in sizes]
        owners = [index for index, (_, size) in enumerate(sizes) for _ in range(size)]
        self._segment = torch.tensor(owners, device=device)  # which name each element belongs to
        self.counts = torch.zeros(2, len(sizes), dtype=torch.int32, device=device)  # finite, not finite
        self.shift = torch.zeros(1, len(sizes), dtype=torch.float32, device=device)
        self.sums = torch.zeros(2, len(sizes), dtype=torch.float32, device=device)  # of differences, of their squares

    def add(self, data: Tensor, mask: Tensor | None) -> None:
        finite = data.isfinite()
        wanted = finite if mask is None else finite & mask
        unwanted = finite.logical_not() if mask is None else finite.logical_not() & mask
        self._settle_shift(data, wanted)
        shift = self.shift.squeeze(0).index_select(0, self._segment)
        difference = torch.where(wanted, data - shift, 0.0)
        self.sums.index_add_(1, self._segment, torch.stack([difference, difference.square()]))
        self.counts.index_add_(1, self._segment, torch.stack([wanted, unwanted]).to(torch.int32))

    def packed(self) -> Tensor:
        """Return int32 [5 * names]: the counts, then the bits of shift and sums, so that all share one transfer."""
        sums = torch.cat([self.shift, self.sums]).view(torch.int32)
        return torch.cat([self.counts, sums]).reshape(-1)

    def _settle_shift(self, data: Tensor, wanted: Tensor) -> None:
        """Choose the mean of the first finite values as the shift of each name; later calls leave it alone."""
        clean = torch.stack([torch.where(wanted, data, 0.0), wanted.float()])
        total, number = torch.zeros_like(self.sums).index_add_(1, self._segment, clean).unbind()
        undecided = (self.counts.select(0, 0) == 0) & (number > 0)
        self.shift = torch.where(undecided, total / number.clamp(min=1.0), self.shift)


@dataclass(frozen=True)
class _Partial:
    count: int
    mean: float
    squared_deviations: float
    non_finite: int


def _to_host(groups: list[_Group]) -> list[tuple[Tensor, Tensor]]:
    """Copy the sums of every group to the host, one transfer for each device; counts travel as the bits they are."""
    by_device: dict[torch.device, list[int]] = {}
    for number, group in enumerate(groups):
        by_device.setdefault(group.device, []).append(number)
    result: dict[int, tuple[Tensor, Tensor]] = {}
    for numbers in by_device.values():
        packed = [groups[number].packed() for number in numbers]
        pieces = torch.split(torch.cat(packed).cpu(), [piece.numel() for piece in packed])
        for number, piece in zip(numbers, pieces, strict=True):
            table = piece.reshape(5, -1)
            result[number] = (table[:2], table[2:].view(torch.float32).double())
    return [result[number] for number in range(len(groups))]


def _partial_of(counts: list[int], sums: list[float]) -> _Partial:
    (count, non_finite), (shift, total, squares) = counts, sums
    if count == 0:
        return _Partial(0, math.nan, 0.0, non_finite)
    return _Partial(count, shift + total / count, max(0.0, squares - total * total / count), non_finite)


def _merge(first: _Partial, second: _Partial) -> _Partial:
    """Combine two parts of one sample (Chan, Golub and LeVeque 1983, equation 2.1)."""
    non_finite = first.non_finite + second.non_finite
    if first.count == 0 or second.count == 0:
        full = second if first.count == 0 else first
        return _Partial(full.count, full.mean, full.squared_deviations, non_finite)
    count = first.count + second.count
    distance = second.mean - first.mean
    mean = first.mean + distance * second.count / count
    spread = distance * distance * first.count * second.count / count
    return _Partial(count, mean, first.squared_deviations + second.squared_deviations + spread, non_finite)


def _finish(part: _Partial) -> Moments:
    std = math.sqrt(part.squared_deviations / part.count) if part.count else math.nan
    return Moments(part.count, part.mean, std, part.non_finite)


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
