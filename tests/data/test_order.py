import itertools
import os
from collections import Counter

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import UserError
from common.randomness import numpy_generator
from data.batches import BatchOrder, batches_per_epoch, training_batches
from data.order import WINDOW_GROUPS, ClipOrder, Part, clips_of_each_rank
from data.records import ClipRow

SIZES = [5, 3, 8, 4, 4, 6, 2, 7, 5, 5]  # of ten shards: 49 clips


def in_groups(sizes):
    ends = list(itertools.accumulate(sizes))
    return [list(range(end - size, end)) for size, end in zip(sizes, ends, strict=True)]


class Clips:
    """Clips in shards; the pixels tell which process loaded which clip."""

    def __init__(self, sizes=SIZES, grouped=True):
        self.size = sum(sizes)
        self.sizes = sizes if grouped else None

    def __len__(self):
        return self.size

    def row(self, epoch, index):
        return ClipRow(f"{epoch}/{index}", f"clip {index}")

    def groups(self):
        return None if self.sizes is None else in_groups(self.sizes)

    def load(self, row):
        return numpy.frombuffer(os.getpid().to_bytes(12, "little"), numpy.uint8).reshape(1, 2, 2, 3)


def loaded_by(batch):
    """Return the id of the process that loaded each clip of a batch."""
    pixels = ((batch.video_BCTHW + 1) * 127.5).round().to(int).permute(0, 2, 3, 4, 1).flatten(1)
    return [int.from_bytes(bytes(clip.tolist()), "little") for clip in pixels]


def take(count, tokenize, part, num_workers=0, start_batch=0, source=None, batch_size=3):
    batches = training_batches(
        source or Clips(),
        batch_size=batch_size,
        seed=5,
        start_batch=start_batch,
        num_workers=num_workers,
        tokenize=tokenize,
        part=part,
    )
    taken = [next(batches) for _ in range(count)]
    batches.close()
    return taken


@pytest.mark.parametrize(("rank", "world_size"), [(-1, 1), (1, 1), (2, 2), (0, 0)])
def test_there_is_no_part_outside_of_the_work(rank, world_size):
    with pytest.raises(ValueError, match=f"rank {rank} is none of {world_size}"):
        Part(rank, world_size)


def test_one_process_without_groups_sees_the_same_order_as_ever():
    keys = list(itertools.islice(BatchOrder(Clips(grouped=False), 4, 9, 10), 20))
    for number, key in enumerate(keys, 10):
        permutation = numpy_generator(9, "clip_order", number // 12).permutation(49)  # 12 batches of 4
        expected = permutation[number % 12 * 4 : number % 12 * 4 + 4]
        assert (key.epoch, key.index_in_epoch) == (number // 12, number % 12)
        assert key.clip_indices == tuple(expected)


def test_without_groups_ranks_take_turns():
    permutation = numpy_generator(0, "clip_order", 3).permutation(11).tolist()
    parts = [ClipOrder(11, None, 0, Part(rank, 3)).epoch(3).tolist() for rank in range(3)]
    assert list(itertools.chain(*zip(*parts, strict=True))) == permutation[:9]


sizes_of_groups = st.lists(st.integers(0, 9), min_size=1, max_size=24)


@given(st.none() | sizes_of_groups, st.integers(0, 60), st.integers(1, 5), st.integers(0, 3), st.integers(0, 5))
def test_every_rank_shows_as_many_clips_and_none_twice(sizes, clips, world_size, seed, epoch):
    groups = None if sizes is None else in_groups(sizes)
    clips = clips if sizes is None else sum(sizes)
    count = clips_of_each_rank(clips, groups, world_size)
    if count == 0:
        return
    shown = [ClipOrder(clips, groups, seed, Part(rank, world_size)).epoch(epoch) for rank in range(world_size)]
    assert {len(order) for order in shown} == {count}
    together = numpy.concatenate(shown).tolist()
    assert len(set(together)) == len(together)
    assert set(together) <= set(range(clips))


@given(sizes_of_groups, st.integers(1, 5), st.integers(0, 3), st.integers(0, 5))
def test_every_group_is_read_by_one_rank_and_few_at_a_time(sizes, world_size, seed, epoch):
    groups = in_groups(sizes)
    if clips_of_each_rank(sum(sizes), groups, world_size) == 0:
        return
    group_of = {clip: number for number, group in enumerate(groups) for clip in group}
    readers = []
    for rank in range(world_size):
        opened = [group_of[clip] for clip in ClipOrder(sum(sizes), groups, seed, Part(rank, world_size)).epoch(epoch)]
        readers += set(opened)
        windows = []  # of groups: those of a window come together, and never again
        for number in dict.fromkeys(opened):
            first, last = opened.index(number), len(opened) - opened[::-1].index(number)
            windows.append((first, last))
        at_a_time = [sum(first <= place < last for first, last in windows) for place in range(len(opened))]
        assert max(at_a_time) <= WINDOW_GROUPS
    assert len(set(readers)) == len(readers)


@given(st.integers(1, 20), st.integers(1, 6), st.integers(1, 5))
def test_groups_of_one_size_lose_no_more_than_what_does_not_go_around(count, size, world_size):
    each = clips_of_each_rank(count * size, in_groups([size] * count), world_size)
    assert each == count // world_size * size


@given(sizes_of_groups)
def test_one_process_shows_all_clips_of_all_groups(sizes):
    assert clips_of_each_rank(sum(sizes), in_groups(sizes), 1) == sum(sizes)
    if sum(sizes):
        assert sorted(ClipOrder(sum(sizes), in_groups(sizes), 1, Part()).epoch(2)) == list(range(sum(sizes)))


def test_a_small_last_shard_costs_no_more_than_one_shard_a_rank():
    sizes = [100] * 31 + [1]
    assert clips_of_each_rank(sum(sizes), in_groups(sizes), 4) == 701  # of 775


def test_epochs_and_seeds_have_orders_of_their_own():
    def order(seed, epoch, rank=0):
        return ClipOrder(49, in_groups(SIZES), seed, Part(rank, 2)).epoch(epoch).tolist()

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(seed, epoch, rank)) for seed in (0, 1) for epoch in (0, 1) for rank in (0, 1)}) == 8
    groups_of_rank = [
        {clip // 10 for clip in ClipOrder(60, in_groups([10] * 6), 0, Part(0, 2)).epoch(e)} for e in range(9)
    ]
    assert len(set(map(frozenset, groups_of_rank))) > 4  # shards wander between the ranks


def test_what_is_left_over_is_seen_in_other_epochs():
    seen = Counter()
    for epoch in range(300):
        for rank in range(4):
            seen.update(ClipOrder(49, in_groups(SIZES), 0, Part(rank, 4)).epoch(epoch).tolist())
    each = clips_of_each_rank(49, in_groups(SIZES), 4)
    assert sum(seen.values()) == 4 * each * 300
    assert min(seen.values()) > 0.5 * max(seen.values())
    assert len(seen) == 49


def test_clips_of_a_window_are_mixed():
    order = ClipOrder(400, in_groups([100] * 4), 0, Part()).epoch(0)
    assert len({clip // 100 for clip in order[:20].tolist()}) == 4


@pytest.mark.parametrize("grouped", [True, False])
def test_two_ranks_with_two_workers_load_each_clip_once(tokenize, grouped):
    source = Clips(grouped=grouped)
    count = batches_per_epoch(source, 3, Part(0, 2))
    assert count == (
        7 if grouped else 8
    )  # by size: (2, 3) (4, 4) (5, 5) (5, 6) (7, 8), at least 2 + 4 + 5 + 5 + 7 = 23
    batches = [batch for rank in range(2) for batch in take(count, tokenize, Part(rank, 2), 2, source=source)]
    names = [name for batch in batches for name in batch.ids]
    assert {(batch.epoch, batch.index_in_epoch) for batch in batches} == {(0, index) for index in range(count)}
    assert len(names) == len(set(names)) == 2 * 3 * count
    assert len({process for batch in batches for process in loaded_by(batch)}) == 4
    if grouped:
        group_of = {f"0/{clip}": number for number, group in enumerate(source.groups()) for clip in group}
        of_rank = [
            {group_of[name] for batch in part for name in batch.ids} for part in (batches[:count], batches[count:])
        ]
        assert of_rank[0].isdisjoint(of_rank[1])


@pytest.mark.parametrize("rank", [0, 1])
def test_the_number_of_workers_changes_nothing_and_the_middle_is_the_tail(tokenize, rank):
    whole = [(batch.epoch, batch.index_in_epoch, batch.ids) for batch in take(18, tokenize, Part(rank, 2))]
    assert {epoch for epoch, _, _ in whole} == {0, 1, 2}
    for num_workers in (1, 3):
        part = take(9, tokenize, Part(rank, 2), num_workers, start_batch=9)
        assert [(batch.epoch, batch.index_in_epoch, batch.ids) for batch in part] == whole[9:]


def test_too_few_clips_for_the_processes_is_an_error_with_the_remedy():
    with pytest.raises(UserError, match=r"49 training clips for 13 processes, fewer than the 4 of one step \(BATCH"):
        batches_per_epoch(Clips(grouped=False), 4, Part(0, 13))
    with pytest.raises(UserError, match=r"49 training clips in 10 shards for 11 processes.*write more and smaller"):
        batches_per_epoch(Clips(), 1, Part(0, 11))
