import itertools
import os
from collections import Counter

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import UserError
from common.randomness import numpy_generator
from config import Config
from data.batches import BatchOrder, batches_per_epoch, training_batches
from data.build import inspect_data
from data.cache import ClipCache
from data.clip_set import InspectedClips
from data.formats import folder
from data.inspection import ClipReader
from data.order import Part, epoch_order
from data.records import ClipRow
from data.shards import write_shards

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
        Clips() if source is None else source,
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


def groups_of(order, groups):
    """Return the number of the group that each clip of an order is in."""
    group_of = {clip: number for number, group in enumerate(groups) for clip in group}
    return [group_of[clip] for clip in order.tolist()]


def stretches(numbers):
    """Return how often another number than the one before comes."""
    return sum(1 for _ in itertools.groupby(numbers))


def batches_of(source, batch_size, part, count, seed=5, start_batch=0):
    keys = itertools.islice(BatchOrder(source, batch_size, seed, start_batch, part), count)
    return [(key.epoch, key.index_in_epoch, key.clip_indices) for key in keys]


def of_all_ranks(source, batch_size, world_size, count):
    """Return the batches of all ranks as one, clip by clip of each rank in turn."""
    ranks = [batches_of(source, batch_size, Part(rank, world_size), count) for rank in range(world_size)]
    together = []
    for batches in zip(*ranks, strict=True):
        assert len({(epoch, index) for epoch, index, _ in batches}) == 1
        clips = itertools.chain(*zip(*(clips for _, _, clips in batches), strict=True))
        together.append((*batches[0][:2], tuple(clips)))
    return together


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


def test_ranks_take_the_clips_of_an_epoch_in_turn():
    permutation = numpy_generator(5, "clip_order", 0).permutation(11).tolist()
    parts = [batches_of(Clips([11], grouped=False), 3, Part(rank, 3), 1)[0][2] for rank in range(3)]
    assert parts == [tuple(permutation[rank:9:3]) for rank in range(3)]


sizes_of_groups = st.lists(st.integers(0, 40), min_size=1, max_size=40).filter(any)


@given(sizes_of_groups, st.integers(0, 3), st.integers(0, 5))
def test_an_epoch_shows_every_clip_of_every_group_once(sizes, seed, epoch):
    order = epoch_order(sum(sizes), in_groups(sizes), seed, epoch)
    assert order.dtype == numpy.int64
    assert sorted(order.tolist()) == list(range(sum(sizes)))


@st.composite
def shared_work(draw):
    """Clips, the clips of a step of all ranks together, and a number of ranks that divides them."""
    source = Clips(draw(sizes_of_groups), grouped=draw(st.booleans()))
    world_size = draw(st.integers(1, min(9, len(source))))
    return source, world_size * draw(st.integers(1, len(source) // world_size)), world_size


@given(shared_work(), st.integers(1, 7))
def test_any_number_of_ranks_shows_the_same_clips_at_every_step(work, count):
    source, step, world_size = work
    assert of_all_ranks(source, step // world_size, world_size, count) == batches_of(source, step, Part(), count)


@given(shared_work())
def test_no_rank_shows_a_clip_that_another_has_shown_in_the_epoch(work):
    source, step, world_size = work
    count = batches_per_epoch(source, step // world_size, Part(0, world_size))
    assert count == len(source) // step
    shown = Counter()
    for rank in range(world_size):
        for epoch, index, clips in batches_of(source, step // world_size, Part(rank, world_size), count):
            assert epoch == 0
            assert 0 <= index < count
            shown.update(clips)
    assert set(shown.values()) == {1}
    assert len(shown) == len(source) - len(source) % step  # all, where the last step is full
    assert shown.keys() <= set(range(len(source)))


@given(shared_work(), st.integers(0, 12))
def test_every_rank_goes_on_where_it_stopped(work, start):
    source, step, world_size = work
    part = Part(world_size - 1, world_size)
    whole = batches_of(source, step // world_size, part, start + 4)
    assert batches_of(source, step // world_size, part, 4, start_batch=start) == whole[start:]


@given(sizes_of_groups, st.sampled_from([1, 2, 4, 8, 16, 32, 64]), st.integers(0, 3))
def test_only_groups_at_the_borders_are_shared_by_ranks_of_a_power_of_two(sizes, world_size, seed):
    groups = in_groups(sizes)
    order = epoch_order(sum(sizes), groups, seed, 0)
    readers = [
        number for rank in range(world_size) for number in set(groups_of(Part(rank, world_size).of(order), groups))
    ]
    assert len(readers) <= sum(size > 0 for size in sizes) + world_size - 1


@pytest.mark.parametrize("world_size", [2, 4, 8])
def test_of_many_shards_each_rank_reads_its_share(world_size):
    groups = in_groups([17] * 250)
    order = epoch_order(250 * 17, groups, 3, 1)
    for rank in range(world_size):
        assert len(set(groups_of(Part(rank, world_size).of(order), groups))) <= 250 / world_size + 2


@given(sizes_of_groups, st.integers(0, 3))
def test_each_of_64_ranks_reads_one_group_after_the_other(sizes, seed):
    groups = in_groups(sizes)
    order = epoch_order(sum(sizes), groups, seed, 0)
    read = sum(stretches(groups_of(Part(rank, 64).of(order), groups)) for rank in range(64))
    assert read <= sum(size > 0 for size in sizes) + 63


def test_128_ranks_share_each_shard_by_two():
    groups = in_groups([128] * 64)
    order = epoch_order(64 * 128, groups, 0, 0)
    readers = Counter(number for rank in range(128) for number in set(groups_of(Part(rank, 128).of(order), groups)))
    assert readers == dict.fromkeys(range(64), 2)


@pytest.mark.parametrize(("shards", "expected"), [(4, 4), (10, 7), (64, 8), (1000, 8)])
def test_a_batch_of_eight_mixes_shards(shards, expected):
    groups = in_groups([30] * shards)
    order = epoch_order(30 * shards, groups, 0, 0)
    numbers = groups_of(order, groups)
    mixed = [len(set(numbers[first : first + 8])) for first in range(0, len(numbers), 8)]
    assert sum(mixed) / len(mixed) >= expected - 0.1
    assert sorted(mixed)[len(mixed) // 10] >= expected - 1


def test_the_clips_of_a_shard_are_shuffled():
    order = epoch_order(400, in_groups([400]), 0, 0)
    assert abs(numpy.corrcoef(order, numpy.arange(400))[0, 1]) < 0.2  # four times the deviation of a random order
    assert stretches((numpy.diff(Part(5, 64).of(order)) > 0).tolist()) > 1


def test_epochs_and_seeds_have_orders_of_their_own():
    groups = in_groups([10] * 6)
    orders = [epoch_order(60, groups, seed, epoch) for seed in (0, 1) for epoch in range(4)]
    assert epoch_order(60, groups, 1, 3).tolist() == orders[-1].tolist()
    assert len({tuple(order.tolist()) for order in orders}) == 8
    of_rank = {frozenset(groups_of(Part(0, 2).of(epoch_order(60, groups, 0, epoch)), groups)) for epoch in range(9)}
    assert len(of_rank) > 4  # shards wander between the ranks


def test_what_is_left_over_is_seen_in_other_epochs():
    seen = Counter()
    for epoch in range(400):
        seen.update(epoch_order(49, in_groups(SIZES), 0, epoch)[:40].tolist())
    assert len(seen) == 49
    assert min(seen.values()) > 0.75 * 400 * 40 / 49
    assert max(seen.values()) < 1.25 * 400 * 40 / 49


@pytest.mark.parametrize("grouped", [True, False])
def test_two_ranks_with_two_workers_load_each_clip_once(tokenize, grouped):
    source = Clips(grouped=grouped)
    count = batches_per_epoch(source, 3, Part(0, 2))
    assert count == 8  # of 2 * 3 of 49 clips
    batches = [batch for rank in range(2) for batch in take(count, tokenize, Part(rank, 2), 2, source=source)]
    names = [name for batch in batches for name in batch.ids]
    assert {(batch.epoch, batch.index_in_epoch) for batch in batches} == {(0, index) for index in range(count)}
    assert len(names) == len(set(names)) == 48
    assert len({process for batch in batches for process in loaded_by(batch)}) == 4


@pytest.fixture
def shards(tmp_path, write_video):
    """Clips in shards; the caption of each is its mean shade of grey. Nothing is in the cache."""
    videos, out = tmp_path / "videos", tmp_path / "shards"
    videos.mkdir()
    for shade in range(10, 250, 10):
        frames = [numpy.full((16, 16, 3), value, numpy.uint8) for value in (shade - 2, shade + 2)]
        write_video(videos / f"{shade}.gif", numpy.stack(frames))
        (videos / f"{shade}.txt").write_text(str(shade))
    report = write_shards(folder.FORMAT.read(videos), out, shard_bytes=20_000, seed=0)
    assert (report.clips, report.shards) == (24, 8)
    constants = {"DATA_ROOT": out, "CACHE_DIR": tmp_path / "cache", "MAX_FRAMES": 2, "IMAGE_SIZE": 16}
    inspection, reader = inspect_data(Config.model_construct(**constants))
    assert inspection.unusable == ()
    empty_cache = ClipCache(tmp_path / "empty", 50_000_000)
    return InspectedClips(ClipReader(reader.root, reader.shape, empty_cache), inspection.usable)


def test_two_ranks_with_two_workers_read_real_shards_as_one_process_does(tokenize, shards):
    ranks = [take(4, tokenize, Part(rank, 2), 2, source=shards, batch_size=3) for rank in range(2)]
    whole = take(4, tokenize, Part(), source=shards, batch_size=6)
    for expected, first, second in zip(whole, *ranks, strict=True):
        together = itertools.chain(*zip(first.ids, second.ids, strict=True))
        assert tuple(together) == expected.ids
    for batch in itertools.chain(whole, *ranks):
        shade = ((batch.video_BCTHW + 1) * 127.5).mean((1, 2, 3, 4))
        assert shade.tolist() == pytest.approx(list(map(int, batch.captions)), abs=1.5)
    read = [{name.split("/")[0] for batch in batches for name in batch.ids} for batches in ranks]
    assert len(read[0] | read[1]) == 8
    assert len(read[0] & read[1]) <= 1


@pytest.mark.parametrize("rank", [0, 1])
def test_the_number_of_workers_changes_nothing_and_the_middle_is_the_tail(tokenize, rank):
    whole = [(batch.epoch, batch.index_in_epoch, batch.ids) for batch in take(18, tokenize, Part(rank, 2))]
    assert {epoch for epoch, _, _ in whole} == {0, 1, 2}
    for num_workers in (1, 3):
        part = take(9, tokenize, Part(rank, 2), num_workers, start_batch=9)
        assert [(batch.epoch, batch.index_in_epoch, batch.ids) for batch in part] == whole[9:]


@pytest.mark.parametrize("grouped", [True, False])
def test_too_few_clips_for_the_processes_is_an_error_with_the_remedy(grouped):
    assert batches_per_epoch(Clips(grouped=grouped), 4, Part(0, 12)) == 1
    with pytest.raises(UserError) as caught:
        batches_per_epoch(Clips(grouped=grouped), 4, Part(0, 13))
    assert str(caught.value) == (
        "There are 49 training clips, fewer than the 52 of one step (BATCH_SIZE * GRADIENT_ACCUMULATION_STEPS * 13 "
        "processes): add clips, start fewer processes or lower these, such as --batch-size 1 "
        "--gradient-accumulation-steps 3."
    )
    with pytest.raises(UserError, match=r"processes\): add clips, start fewer processes or lower these\.$"):
        batches_per_epoch(Clips(grouped=grouped), 1, Part(0, 50))
