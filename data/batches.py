"""From clips to batches: the order of an epoch, and the worker processes that prepare what comes next."""

import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from typing import TypeVar

import numpy
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from common.errors import UserError
from common.randomness import torch_generator
from data.order import WHOLE_WORK, BatchCounts, Part, epoch_order
from data.records import Batch, ClipRow, ClipSource
from data.workers import WorkerStart, starting_workers

Tokenize = Callable[[Sequence[str]], Tensor]
Item = TypeVar("Item")

PREFETCHED_BATCHES = 3  # by each worker


def load_batch(
    source: ClipSource, rows: Sequence[ClipRow], tokenize: Tokenize, epoch: int = 0, index: int = 0
) -> Batch:
    """Load the given clips, which have one length, in this process: all those of a step."""
    return _finish(_load(source, rows, epoch, index, len(rows)), tokenize)


def training_batches(
    source: ClipSource, order: "BatchOrder", *, num_workers: int, tokenize: Tokenize
) -> Generator[Batch, None, None]:
    """Yield the batches of one rank without end, epoch after epoch. Close the iterator to end the workers.

    Args:
        source: the clips, the same for every rank.
        order: of the same clips.
        num_workers: processes that load ahead; with 0, each batch is loaded when it is asked for.
        tokenize: turns B captions into int64 [B, L]; called in this process.

    Raises:
        UserError: a clip can no longer be loaded.
    """
    return _finished(prepared(_BatchDataset(source), order, num_workers, order.seed), tokenize)


@dataclass(frozen=True)
class BatchKey:
    """Names what one rank takes of a batch."""

    epoch: int  # in which the batch became complete
    index_in_epoch: int
    frames: int  # of each clip
    clips: tuple[tuple[int, int], ...]  # the epoch and the index of each
    clips_in_step: int  # of all ranks together


class BatchOrder(Sampler[BatchKey]):
    """All batches of one rank from a given one on, without end.

    The order is a pure function of the lengths and (seed, epoch): starting at `start_batch` yields exactly what a run
    from 0 would yield from there on. Batch k of all ranks together holds the same clips for any number of ranks, if
    `frames_in_batch` is the same: clip i of rank r is clip r + i * world_size of them. In an epoch, each clip comes
    once. Batches alternate between lengths as their clips come.
    """

    def __init__(
        self, source: ClipSource, frames_in_batch: int, seed: int, start_batch: int, part: Part = WHOLE_WORK
    ) -> None:
        """Prepare the order.

        Args:
            source: the clips, the same for every rank.
            frames_in_batch: that a batch of all ranks together has at most.
            seed: of the order.
            start_batch: number of the first batch, counted over all epochs.
            part: of the work that several processes share.
        """
        self._lengths = source.lengths()
        self._groups = source.groups()
        self._counts = BatchCounts(self._lengths, frames_in_batch)
        self.seed = seed
        self._start_batch = start_batch
        self._part = part

    def __iter__(self) -> Iterator[BatchKey]:
        first_epoch = self._counts.epoch_of(self._start_batch)
        waiting = self._waiting(first_epoch)
        length_of = self._lengths.tolist()
        number = self._counts.until_end_of(first_epoch - 1)
        for epoch in count(first_epoch):
            first = number
            for index in self._order(epoch).tolist():
                frames = length_of[index]
                clips = waiting[frames]
                clips.append((epoch, index))
                if len(clips) < self._counts.in_batch(frames):
                    continue
                if number >= self._start_batch:
                    own = tuple(clips[self._part.own])
                    yield BatchKey(epoch, number - first, frames, own, len(clips))
                number += 1
                clips.clear()

    def _order(self, epoch: int) -> numpy.ndarray:
        return epoch_order(self._lengths, self._groups, self._counts, self.seed, epoch)

    def _waiting(self, epoch: int) -> dict[int, list[tuple[int, int]]]:
        """Return the clips that earlier epochs have left for one, by length, in order."""
        left = self._counts.left_before(epoch)
        waiting: dict[int, list[tuple[int, int]]] = {frames: [] for frames in left}
        while any(left.values()):
            epoch -= 1
            order = self._order(epoch)
            lengths = self._lengths[order]
            for frames, clips in left.items():
                own = order[lengths == frames]
                last = own[max(0, len(own) - clips) :].tolist()
                waiting[frames] = [*((epoch, index) for index in last), *waiting[frames]]
                left[frames] -= len(last)
        return waiting


@dataclass(frozen=True)
class _LoadedClips:
    clips_BTHWC: Tensor  # uint8
    rows: tuple[ClipRow, ...]
    epoch: int
    index_in_epoch: int
    clips_in_step: int


def _load(
    source: ClipSource, rows: Sequence[ClipRow], epoch: int, index_in_epoch: int, clips_in_step: int
) -> _LoadedClips:
    clips = torch.from_numpy(numpy.stack([source.load(row) for row in rows]))
    return _LoadedClips(clips, tuple(rows), epoch, index_in_epoch, clips_in_step)


class _BatchDataset(Dataset[_LoadedClips | UserError]):
    """Returns an error of the user's and does not raise it: it would arrive wrapped in a worker's traceback."""

    def __init__(self, source: ClipSource) -> None:
        self._source = source

    def __getitem__(self, key: BatchKey) -> _LoadedClips | UserError:
        rows = [self._source.row(epoch, index) for epoch, index in key.clips]
        try:
            return _load(self._source, rows, key.epoch, key.index_in_epoch, key.clips_in_step)
        except UserError as error:
            return UserError(str(error))


def _finish(loaded: _LoadedClips | UserError, tokenize: Tokenize) -> Batch:
    if isinstance(loaded, UserError):
        raise loaded
    captions = tuple(row.caption for row in loaded.rows)
    return Batch(
        clips_BTHWC=loaded.clips_BTHWC,
        seconds_B=torch.tensor([row.seconds for row in loaded.rows], dtype=torch.float32),
        tokens_BL=tokenize(captions),
        captions=captions,
        ids=tuple(row.id for row in loaded.rows),
        epoch=loaded.epoch,
        index_in_epoch=loaded.index_in_epoch,
        clips_in_step=loaded.clips_in_step,
    )


def _finished(
    loading: Generator[_LoadedClips | UserError, None, None], tokenize: Tokenize
) -> Generator[Batch, None, None]:
    with closing(loading):
        for loaded in loading:
            yield _finish(loaded, tokenize)


def prepared(items: Dataset[Item], keys: Iterable[object], num_workers: int, seed: int) -> Generator[Item, None, None]:
    """Yield the items of the keys, in order, prepared ahead by processes if there are any.

    Close it to end them. With 0 of them, each item is made when it is asked for.
    """
    if num_workers == 0:
        yield from (items[key] for key in keys)
        return
    # Forked workers share the memory of what is loaded already; elsewhere forking is not safe. Python 3.12 and newer
    # warn (with -W default) that another thread may hold a lock at that moment, which a worker then finds locked for
    # ever. Workers need no lock of the threads that are there: one samples the system, one watches bars, some compute.
    start_method = "fork" if sys.platform == "linux" else "spawn"
    start = WorkerStart(os.getpid(), start_method)
    ready: Iterator[Item] | None = None
    loader = DataLoader(
        items,
        batch_size=None,  # an item is a batch already
        sampler=keys,
        num_workers=num_workers,
        prefetch_factor=PREFETCHED_BATCHES,
        worker_init_fn=start,
        multiprocessing_context=start_method,
        generator=torch_generator(seed, "loader_workers"),  # or the loader would draw from the global generator
    )
    try:
        with starting_workers():
            ready = iter(loader)
        yield from ready
    finally:
        start.end_workers()  # first of all, also of those that were started when a signal came
        ready = None
        del loader  # waits for their end
