"""Which clips an epoch shows, in which order, and which of several processes shows them.

Everything is a pure function of (seed, epoch, part of the work), so that every process knows its own clips without
asking the others, and a resume knows where to go on without reading what came before.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy

from common.randomness import numpy_generator

WINDOW_GROUPS = 4  # groups whose clips are mixed: enough for variety, and few files to read from at a time


@dataclass(frozen=True)
class Part:
    """One of several processes that share the clips of an epoch.

    Raises:
        ValueError: there is no such part.
    """

    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"rank {self.rank} is none of {self.world_size}")


WHOLE_WORK = Part()

Groups = Sequence[Sequence[int]]  # numbers of clips, each in one of the groups


def clips_of_each_rank(clips: int, groups: Groups | None, world_size: int) -> int:
    """Return how many clips every rank shows in an epoch, in each epoch the same, however groups are dealt in it.

    Args:
        clips: in an epoch, for all ranks together.
        groups: see `ClipOrder`.
        world_size: number of ranks.
    """
    if groups is None:
        return clips // world_size
    # Groups are dealt in rounds of about the same size (_deal). Whichever are left over, the smallest group of a round
    # has at least as many clips as if the largest were.
    sizes = sorted(len(group) for group in groups if len(group) > 0)
    rounds = len(sizes) // world_size
    return sum(sizes[::world_size][:rounds])


class ClipOrder:
    """The clips of one part of the work, epoch after epoch.

    Without groups, an epoch is a permutation of all clips, and rank r of R takes every R-th of it from the r-th on.

    With groups (clips in one file, which are read fastest together) each group goes to one rank in an epoch, perhaps to
    another in the next. A rank goes through its groups in a shuffled order, and mixes the clips of `WINDOW_GROUPS` at a
    time.

    All ranks show the same number of clips. What is left over differs from epoch to epoch.

    Args:
        clips: in an epoch, for all ranks together.
        groups: each clip's number in one of them; None if the clips may come in any order.
        seed: of the order; the same for all ranks.
        part: whose clips.
    """

    def __init__(self, clips: int, groups: Groups | None, seed: int, part: Part) -> None:
        self._clips = clips
        self._groups = None if groups is None else [numpy.asarray(group, numpy.int64) for group in groups if len(group)]
        self._seed = seed
        self._part = part
        self._clips_of_each_rank = clips_of_each_rank(clips, groups, part.world_size)

    def epoch(self, epoch: int) -> numpy.ndarray:
        """Return the clips of an epoch in order, int64 [clips_of_each_rank]."""
        if self._groups is None:
            permutation = numpy_generator(self._seed, "clip_order", epoch).permutation(self._clips)
            order = permutation[self._part.rank :: self._part.world_size]
        else:
            order = self._mixed(self._groups, epoch)
        return order[: self._clips_of_each_rank]

    def _mixed(self, groups: Sequence[numpy.ndarray], epoch: int) -> numpy.ndarray:
        mine = self._deal(numpy.array([len(group) for group in groups]), epoch)
        windows = []
        for first in range(0, len(mine), WINDOW_GROUPS):
            window = numpy.concatenate([groups[index] for index in mine[first : first + WINDOW_GROUPS]])
            generator = numpy_generator(self._seed, "clips_of_window", epoch, self._part.rank, first)
            windows.append(generator.permutation(window))
        return numpy.concatenate(windows)

    def _deal(self, sizes: numpy.ndarray, epoch: int) -> numpy.ndarray:
        """Return which groups the rank has, in a shuffled order.

        Groups of about the same size are dealt in one round, one to each rank, so that all ranks have about as many
        clips. The groups that do not go around are chosen by chance before, so that it can be any; who gets one has
        more clips than an epoch shows.
        """
        ranks = self._part.world_size
        generator = numpy_generator(self._seed, "group_order", epoch)
        shuffled = generator.permutation(len(sizes))
        left_over, dealt = numpy.split(shuffled, [len(sizes) % ranks])
        by_size = dealt[numpy.argsort(sizes[dealt], kind="stable")]  # those of the same size stay shuffled
        mine = [
            int(generator.permutation(dealt_at_once)[self._part.rank]) for dealt_at_once in by_size.reshape(-1, ranks)
        ]
        mine += left_over[self._part.rank : self._part.rank + 1].tolist()
        return numpy_generator(self._seed, "groups_of_rank", epoch, self._part.rank).permutation(mine)
