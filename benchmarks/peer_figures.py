"""What benchmarks.peers measures, cell by cell."""

from dataclasses import dataclass
from typing import Literal

from benchmarks.networks import OURS, NetworkName
from benchmarks.spread import Spread, ratio_of, spread_of

Bound = Literal["seconds", "memory"]


@dataclass(frozen=True, order=True)
class Cell:
    """What all networks are given."""

    image_size: int
    parameters: int
    batch_size: int
    frames: int


@dataclass(frozen=True)
class Measurement:
    """One network in one cell; one number an alternation."""

    network: NetworkName
    parameters: int
    step_seconds: tuple[float, ...]
    forward_seconds: tuple[float, ...]
    step_flops: int  # of the whole batch
    forward_flops: int
    peak_gib: float  # resident set, over all training steps
    imported_gib: float  # the same before the network was built


@dataclass(frozen=True)
class Skip:
    """Why a network has no figures in a cell."""

    network: NetworkName
    reason: str
    bound: Bound | None  # which of the two it went past, in this cell or with a smaller batch; None: it failed


@dataclass(frozen=True)
class CellResult:
    """All networks in one cell."""

    cell: Cell
    matmul_flops_per_second: tuple[float, ...]  # one an alternation
    measurements: tuple[Measurement, ...]
    skips: tuple[Skip, ...]

    def find(self, network: NetworkName) -> Measurement | Skip | None:
        """Return what is known about a network; None if it had no part in the cell."""
        known: tuple[Measurement | Skip, ...] = (*self.measurements, *self.skips)
        return next((found for found in known if found.network == network), None)


@dataclass(frozen=True)
class Comparison:
    """A measurement's spreads, and how many times more than the U-Net of this repository it took in the same cell."""

    step_seconds: Spread
    forward_seconds: Spread
    step_flops_per_second: Spread
    share_of_matmul: Spread  # step_flops_per_second / that of matrix products in the same alternation
    step_ratio: Spread | None  # None: the U-Net has no figures in the cell
    forward_ratio: Spread | None
    memory_ratio: float | None


def compare(result: CellResult, measurement: Measurement) -> Comparison:
    """Summarise over the alternations; every ratio is between two figures of one alternation."""
    speeds = [measurement.step_flops / seconds for seconds in measurement.step_seconds]
    own = next((found for found in result.measurements if found.network == OURS), None)
    return Comparison(
        step_seconds=spread_of(measurement.step_seconds),
        forward_seconds=spread_of(measurement.forward_seconds),
        step_flops_per_second=spread_of(speeds),
        share_of_matmul=ratio_of(speeds, result.matmul_flops_per_second),
        step_ratio=None if own is None else ratio_of(measurement.step_seconds, own.step_seconds),
        forward_ratio=None if own is None else ratio_of(measurement.forward_seconds, own.forward_seconds),
        memory_ratio=None if own is None else measurement.peak_gib / own.peak_gib,
    )
