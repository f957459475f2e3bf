"""The order in which an epoch shows its clips, how they become batches, and which of several processes takes which.

There is one order for all processes, a pure function of (seed, epoch). So a step shows the same clips for any number of
processes, and a resume can go on without reading what came before.

A batch is what all processes take in one step: clips of one length, as many as a budget of frames allows. A clip waits
until there are enough of its length, if need be for those of the next epochs. So each epoch shows every clip once, and
every batch is full.
"""

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy

from common.randomness import numpy_generator

_LANE_BITS = 6
LANES = 1 << _LANE_BITS  # enough for 64 processes to read groups of their own, and for a batch to mix many groups
# The piece of the sequence that each lane reads: the lane's number with its bits reversed. Lanes that are equal modulo
# a power of two then read neighbouring pieces.
_PIECE_OF_LANE = numpy.array([int(f"{lane:0{_LANE_BITS}b}"[::-1], 2) for lane in range(LANES)])

Groups = Sequence[Sequence[int]]  # numbers of clips, each in one of the groups


@dataclass(frozen=True)
class Part:
    """One of several processes that share the clips of each batch: it takes every `world_size`-th, from `rank` on.

    Raises:
        ValueError: there is no such part.
    """

    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"rank {self.rank} is none of {self.world_size}")

    @property
    def own(self) -> slice:
        """The places of its clips among those of a batch."""
        return slice(self.rank, None, self.world_size)


WHOLE_WORK = Part()


class BatchCounts:
    """How many clips a batch has, and how many batches are complete when an epoch ends."""

    def __init__(self, lengths: numpy.ndarray, frames_in_batch: int) -> None:
        """Count the clips of an epoch.

        Args:
            lengths: frames of each clip, int64 [clips], the same in every epoch, from 1 to `frames_in_batch`.
            frames_in_batch: that a batch has at most.
        """
        found, clips = numpy.unique(lengths, return_counts=True)
        self.clips_of: Mapping[int, int] = dict(zip(found.tolist(), clips.tolist(), strict=True))
        """Clips of an epoch, by length, from the shortest."""
        self._frames_in_batch = frames_in_batch

    def in_batch(self, frames: int) -> int:
        """Return how many clips of that length a batch has."""
        return self._frames_in_batch // frames

    def until_end_of(self, epoch: int) -> int:
        """Return how many batches are complete at the end of an epoch (0 for the first); for -1, that is 0."""
        return sum((epoch + 1) * clips // self.in_batch(frames) for frames, clips in self.clips_of.items())

    def epoch_of(self, batch: int) -> int:
        """Return the epoch in which a batch (0 for the first) becomes complete."""
        return bisect.bisect_right(range(2**62), batch, key=self.until_end_of)

    def left_before(self, epoch: int) -> dict[int, int]:
        """Return how many clips of earlier epochs wait for an epoch, by length."""
        return {frames: epoch * clips % self.in_batch(frames) for frames, clips in self.clips_of.items()}

    @property
    def clips_on_average(self) -> float:
        """Clips of a batch, on average over all that come."""
        return sum(self.clips_of.values()) / self._batches_of_an_epoch

    @property
    def frames_on_average(self) -> float:
        """Frames of a batch, on average over all that come."""
        return sum(frames * clips for frames, clips in self.clips_of.items()) / self._batches_of_an_epoch

    @property
    def _batches_of_an_epoch(self) -> float:
        return sum(clips / self.in_batch(frames) for frames, clips in self.clips_of.items())

    def most_frames(self, parts: int) -> int:
        """Return the frames of the largest part of a batch, where its clips are divided as evenly as can be."""
        return max(-(-self.in_batch(frames) // parts) * frames for frames in self.clips_of)


def epoch_order(
    lengths: numpy.ndarray, groups: Groups | None, counts: BatchCounts, seed: int, epoch: int
) -> numpy.ndarray:
    """Return all clips of an epoch in the order in which they are shown, int64 [clips].

    Without groups, it is a permutation of all clips.

    With groups (clips in one file, which one process should read), the groups are shuffled, and the clips of each are.
    For each length, the sequence of its clips is cut into `LANES` pieces, and the order takes one clip of each in turn.
    So a batch mixes as many groups, if it has as many clips. Yet a process that takes every W-th clip of each batch,
    where W is a power of two up to `LANES`, has a contiguous part of each sequence: complete groups, apart from some
    near its ends, where those of different lengths end a little before or after each other.
    """
    if groups is None:
        return numpy_generator(seed, "clip_order", epoch).permutation(len(lengths))
    generator = numpy_generator(seed, "group_order", epoch)
    shuffled = [numpy.asarray(groups[index], numpy.int64) for index in generator.permutation(len(groups))]
    sequence = numpy.concatenate([generator.permutation(group) for group in shuffled])
    order = _in_lanes(sequence, numpy.arange(len(sequence)) % LANES)  # which decides where each length comes
    lengths_in_order, lengths_in_sequence = lengths[order], lengths[sequence]
    for frames, clips in counts.clips_of.items():
        lanes = _lanes(epoch * clips + numpy.arange(clips), counts.in_batch(frames))
        order[lengths_in_order == frames] = _in_lanes(sequence[lengths_in_sequence == frames], lanes)
    return order


def _lanes(numbers: numpy.ndarray, in_batch: int) -> numpy.ndarray:
    """Return the lanes of clips of one length [N], numbered from the first that was ever shown.

    A clip's place in its batch and its lane are equal modulo every power of two up to `in_batch` and `LANES`, so that
    processes have lanes of their own. Batches of fewer clips than there are lanes take them in turn.
    """
    batch, place = numpy.divmod(numbers, in_batch)
    lanes_of_batch = min(LANES, 1 << (in_batch.bit_length() - 1))
    return place % lanes_of_batch + lanes_of_batch * (batch % (LANES // lanes_of_batch))


def _in_lanes(sequence: numpy.ndarray, lanes: numpy.ndarray) -> numpy.ndarray:
    """Cut a sequence [N] into a piece for each lane, and return at each place what comes next in the piece of its lane.

    `lanes`: of the places, [N].
    """
    sizes = numpy.bincount(lanes, minlength=LANES)
    sizes_of_pieces = sizes[_PIECE_OF_LANE]  # reversing bits twice changes nothing: also the lane of each piece
    pieces = numpy.split(sequence, numpy.cumsum(sizes_of_pieces)[:-1])
    result = numpy.empty_like(sequence)
    result[numpy.argsort(lanes, kind="stable")] = numpy.concatenate([pieces[piece] for piece in _PIECE_OF_LANE])
    return result
