"""Validation loss against training time: what a run records, and how many times sooner one curve gets to a loss."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.allocation import Allocation
from benchmarks.networks import OURS, NetworkName


@dataclass(frozen=True)
class LossCurvePlan:
    """One training run. The runs of a comparison differ in network, seed and perhaps learning rate alone.

    Attributes:
        seed: of all that is drawn: words and their split, clips, noise of the validation, weights, order of the clips
            and noise of the steps. The networks of one seed differ in their weights alone.
        training_seconds: after which no further step begins. Validation, set-up and warm-up do not count.
        parameters: how many the network should have, the text encoder included.
        learning_rate: after the warm-up, constant.
        training_clips: kept in memory before the clock starts.
        cache_folder: where rendered clips are kept for the runs that follow.
        allocation: whose freed memory is kept.
    """

    network: NetworkName
    seed: int
    training_seconds: float
    parameters: int
    learning_rate: float
    image_size: int
    num_frames: int
    batch_size: int
    training_clips: int
    validation_clips: int
    cache_folder: str
    allocation: Allocation


@dataclass(frozen=True)
class LossPoint:
    """One validation."""

    seconds: float  # of training before it
    step: int
    loss: float


@dataclass(frozen=True)
class LossCurve:
    """What one run came to: at least one point, the first of them before any step."""

    network: NetworkName
    seed: int
    parameters: int
    learning_rate: float
    points: tuple[LossPoint, ...]
    predict_zero: float  # loss of a network that always says 0
    text_gap: float | None  # at the end, loss with shuffled captions minus loss with the right ones

    @property
    def last(self) -> LossPoint:
        return self.points[-1]

    @property
    def best(self) -> LossPoint:
        """The validation with the lowest loss, the first of equals; where all are NaN, the first."""
        return min(self.points, key=lambda point: math.inf if math.isnan(point.loss) else point.loss)


@dataclass(frozen=True)
class FailedRun:
    """A run that gave no curve."""

    network: NetworkName
    seed: int
    reason: str
    is_crash: bool  # and no limit of memory or time


@dataclass(frozen=True)
class Lead:
    """How much sooner a network of ours had the lowest loss that the best peer reached, for one seed.

    Attributes:
        peer_seconds: training time at which the peer was first measured at that loss.
        our_seconds: training time at which ours was there; None where it never was.
        is_bound: ours was there at its first validation after a step already, so that `our_seconds` is at most this.
    """

    seed: int
    peer: NetworkName
    loss: float
    peer_seconds: float
    our_seconds: float | None
    is_bound: bool

    @property
    def ratio(self) -> float | None:
        """How many times sooner; None where ours never got there."""
        return None if self.our_seconds is None else self.peer_seconds / self.our_seconds


def curve_from_json(values: Mapping[str, object]) -> LossCurve:
    """Rebuild a curve from what `dataclasses.asdict` made of it, after a way through JSON."""
    points = values["points"]
    assert isinstance(points, list)
    return LossCurve(**{**values, "points": tuple(LossPoint(**point) for point in points)})  # type: ignore[arg-type]


def validation_times(training_seconds: float) -> list[float]:
    """Return after how many training seconds to validate: doubling every other time, up to the whole time.

    Close together at first, where losses fall fastest; a slow network validates after each of its first steps.
    """
    return [training_seconds / 2 ** (halvings / 2) for halvings in range(16, -1, -1)]


def first_time_at(points: Sequence[LossPoint], loss: float) -> tuple[float, int] | None:
    """Return when a curve first was at or below a loss, and the number of the point that it was measured at.

    The time is interpolated linearly between that validation and the one before; None if the curve never gets there.
    """
    for index, point in enumerate(points):
        if point.loss <= loss:
            if index == 0 or not math.isfinite(points[index - 1].loss):
                return point.seconds, index
            before = points[index - 1]
            share = (before.loss - loss) / (before.loss - point.loss)
            return before.seconds + share * (point.seconds - before.seconds), index
    return None


def lead_over(ours: LossCurve, peers: Sequence[LossCurve]) -> Lead | None:
    """Compare ours with the peer of the lowest loss, all of one seed.

    Returns:
        None where there is nothing to compare: no peer, or none that any training improved.
    """
    improved = [peer for peer in peers if peer.best.step > 0]
    if not improved:
        return None
    peer = min(improved, key=lambda candidate: candidate.best.loss)
    trained = [point for point in ours.points if point.step > 0]
    # From the first step on: what the initial weights score is no matter of speed.
    reached = first_time_at(trained, peer.best.loss)
    return Lead(
        seed=ours.seed,
        peer=peer.network,
        loss=peer.best.loss,
        peer_seconds=peer.best.seconds,
        our_seconds=None if reached is None else reached[0],
        is_bound=reached is not None and reached[1] == 0,
    )


def leads(runs: Sequence[LossCurve | FailedRun]) -> list[Lead]:
    """Return the leads of all seeds for which ours and a peer have a curve."""
    curves = [run for run in runs if isinstance(run, LossCurve)]
    ours = [curve for curve in curves if curve.network == OURS]
    peers = [curve for curve in curves if curve.network != OURS]
    found = (lead_over(curve, [peer for peer in peers if peer.seed == curve.seed]) for curve in ours)
    return [lead for lead in found if lead is not None]
