"""The order in which an epoch shows its clips, and which of several processes takes which of them.

There is one order for all processes, a pure function of (seed, epoch). So a step shows the same clips for any number of
processes, and a resume can go on without reading what came before.
"""

from collections.abc import Sequence
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
    """One of several processes that share the clips of an epoch: it takes every `world_size`-th, from `rank` on.

    Raises:
        ValueError: there is no such part.
    """

    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"rank {self.rank} is none of {self.world_size}")

    def of(self, order: numpy.ndarray) -> numpy.ndarray:
        """Return what this part takes of an order [N]."""
        return order[self.rank :: self.world_size]


WHOLE_WORK = Part()


def epoch_order(clips: int, groups: Groups | None, seed: int, epoch: int) -> numpy.ndarray:
    """Return all clips of an epoch in the order in which they are shown, int64 [clips].

    Without groups, it is a permutation of all clips.

    With groups (clips in one file, which one process should read), the groups are shuffled, and the clips of each are.
    This sequence is cut into `LANES` pieces, and the order takes one clip of each in turn. So a batch mixes as many
    groups. Yet a process that takes every W-th clip, where W is a power of two up to `LANES`, has a contiguous part of
    the sequence: complete groups, apart from those that lie across its ends.

    Args:
        clips: in an epoch.
        groups: each clip's number in one of them; None if the clips may come in any order.
        seed: of the order.
        epoch: 0-based.
    """
    if groups is None:
        return numpy_generator(seed, "clip_order", epoch).permutation(clips)
    generator = numpy_generator(seed, "group_order", epoch)
    shuffled = [numpy.asarray(groups[index], numpy.int64) for index in generator.permutation(len(groups))]
    return _in_lanes(numpy.concatenate([generator.permutation(group) for group in shuffled]))


def _in_lanes(sequence: numpy.ndarray) -> numpy.ndarray:
    """Take one element of each lane in turn, [N] -> [N].

    The first lanes are longer by one element, so place i of the result belongs to lane i % LANES in the last turn too.
    """
    turns, rest = divmod(len(sequence), LANES)
    lengths = turns + (numpy.arange(LANES) < rest)
    lengths_of_pieces = lengths[_PIECE_OF_LANE]  # reversing bits twice changes nothing: also the lane of each piece
    starts = (numpy.cumsum(lengths_of_pieces) - lengths_of_pieces)[_PIECE_OF_LANE]
    turn, lane = numpy.divmod(numpy.arange(len(sequence)), LANES)
    return sequence[starts[lane] + turn]
