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

from common.console import counted
from common.errors import UserError
from common.randomness import torch_generator
from data.order import WHOLE_WORK, Part, epoch_order
from data.records import Batch, ClipRow, ClipSource
from data.workers import WorkerStart, starting_workers

Tokenize = Callable[[Sequence[str]], Tensor]
Item = TypeVar("Item")

PREFETCHED_BATCHES = 3  # by each worker


def batches_per_epoch(source: ClipSource, batch_size: int, part: Part = WHOLE_WORK) -> int:
    """Return the number of full batches of each rank; the clips of an incomplete last step are left out.

    Raises:
        UserError: there are fewer clips than one batch of each rank needs.
    """
    clips, clips_of_all = len(source), batch_size * part.world_size
    if clips < clips_of_all:
        factors, remedy = "BATCH_SIZE * GRADIENT_ACCUMULATION_STEPS", "add clips or lower these"
        if part.world_size > 1:
            factors += f" * {part.world_size} processes"
            remedy = "add clips, start fewer processes or lower these"
        if clips >= part.world_size:
            remedy += f", such as --batch-size 1 --gradient-accumulation-steps {clips // part.world_size}"
        raise UserError(
            f"There {'is' if clips == 1 else 'are'} {counted(clips, 'training clip')}, fewer than the {clips_of_all} "
            f"of one step ({factors}): {remedy}."
        )
    return clips // clips_of_all


def load_batch(
    source: ClipSource, rows: Sequence[ClipRow], tokenize: Tokenize, epoch: int = 0, index: int = 0
) -> Batch:
    """Load the given clips in this process."""
    return _finish(_load(source, rows, epoch, index), tokenize)


def training_batches(
    source: ClipSource,
    *,
    batch_size: int,
    seed: int,
    start_batch: int,
    num_workers: int,
    tokenize: Tokenize,
    part: Part = WHOLE_WORK,
) -> Generator[Batch, None, None]:
    """Yield the batches of one rank without end, epoch after epoch.

    The order is a pure function of (seed, epoch): starting at `start_batch` yields exactly what a run from 0 would
    yield from there on. Batch k of all ranks together holds the same clips for any number of ranks with as many clips
    together: clip i of rank r is clip r + i * world_size of them. In an epoch, each clip is loaded at most once. Close
    the iterator to end the workers.

    Args:
        source: the clips, the same for every rank.
        batch_size: clips in a batch of one rank.
        seed: of the order.
        start_batch: number of the first batch, counted over all epochs.
        num_workers: processes that load ahead; with 0, each batch is loaded when it is asked for.
        tokenize: turns B captions into int64 [B, L]; called in this process.
        part: of the work that several processes share.

    Raises:
        UserError: fewer clips than a batch of each rank, or a clip that can no longer be loaded.
    """
    order = BatchOrder(source, batch_size, seed, start_batch, part)
    return _finished(prepared(_BatchDataset(source), order, num_workers, seed), tokenize)


@dataclass(frozen=True)
class BatchKey:
    """Names one batch: which clips of which epoch."""

    epoch: int
    index_in_epoch: int
    clip_indices: tuple[int, ...]


class BatchOrder(Sampler[BatchKey]):
    """All batches of one rank from a given one on, without end."""

    def __init__(
        self, source: ClipSource, batch_size: int, seed: int, start_batch: int, part: Part = WHOLE_WORK
    ) -> None:
        self._batches = batches_per_epoch(source, batch_size, part)
        self._clips = len(source)
        self._groups = source.groups()
        self._batch_size = batch_size
        self._seed = seed
        self._start_batch = start_batch
        self._part = part

    def __iter__(self) -> Iterator[BatchKey]:
        first_epoch, first_batch = divmod(self._start_batch, self._batches)
        for epoch in count(first_epoch):
            order = self._part.of(epoch_order(self._clips, self._groups, self._seed, epoch))
            for batch in range(first_batch, self._batches):
                chosen = order[batch * self._batch_size : (batch + 1) * self._batch_size]
                yield BatchKey(epoch, batch, tuple(chosen.tolist()))
            first_batch = 0


@dataclass(frozen=True)
class _LoadedClips:
    clips_BTHWC: Tensor  # uint8
    rows: tuple[ClipRow, ...]
    epoch: int
    index_in_epoch: int


def _load(source: ClipSource, rows: Sequence[ClipRow], epoch: int, index_in_epoch: int) -> _LoadedClips:
    clips = torch.from_numpy(numpy.stack([source.load(row) for row in rows]))
    return _LoadedClips(clips, tuple(rows), epoch, index_in_epoch)


class _BatchDataset(Dataset[_LoadedClips | UserError]):
    """Returns an error of the user's and does not raise it: it would arrive wrapped in a worker's traceback."""

    def __init__(self, source: ClipSource) -> None:
        self._source = source

    def __getitem__(self, key: BatchKey) -> _LoadedClips | UserError:
        rows = [self._source.row(key.epoch, index) for index in key.clip_indices]
        try:
            return _load(self._source, rows, key.epoch, key.index_in_epoch)
        except UserError as error:
            return UserError(str(error))


def _finish(loaded: _LoadedClips | UserError, tokenize: Tokenize) -> Batch:
    if isinstance(loaded, UserError):
        raise loaded
    captions = tuple(row.caption for row in loaded.rows)
    return Batch(
        clips_BTHWC=loaded.clips_BTHWC,
        tokens_BL=tokenize(captions),
        captions=captions,
        ids=tuple(row.id for row in loaded.rows),
        epoch=loaded.epoch,
        index_in_epoch=loaded.index_in_epoch,
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
