import itertools
import os
from collections import Counter
from dataclasses import replace

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.randomness import numpy_generator
from config import Config
from data.batches import BatchOrder, training_batches
from data.build import inspect_data
from data.cache import ClipCache
from data.clip_set import InspectedClips
from data.formats import folder
from data.inspection import ClipReader
from data.order import BatchCounts, Part, epoch_order
from data.records import ClipRow
from data.shards import write_shards

SIZES = [5, 3, 8, 4, 4, 6, 2, 7, 5, 5]  # of ten shards: 49 clips


def in_groups(sizes):
    ends = list(itertools.accumulate(sizes))
    return [list(range(end - size, end)) for size, end in zip(sizes, ends, strict=True)]


class Clips:
    """Clips in shards, of one frame if their lengths are not given; the pixels tell which process loaded which clip."""

    def __init__(self, sizes=SIZES, grouped=True, lengths=None):
        self.size = sum(sizes)
        self.sizes = sizes if grouped else None
        self.frames = numpy.ones(self.size, numpy.int64) if lengths is None else numpy.array(lengths)

    def __len__(self):
        return self.size

    def row(self, epoch, index):
        return ClipRow(f"{epoch}/{index}", f"clip {index}", int(self.frames[index]), self.frames[index] / 12)

    def lengths(self):
        return self.frames

    def groups(self):
        return None if self.sizes is None else in_groups(self.sizes)

    def load(self, row):
        frame = numpy.frombuffer(os.getpid().to_bytes(12, "little"), numpy.uint8).reshape(1, 2, 2, 3)
        return frame.repeat(row.frames, axis=0)


def loaded_by(batch):
    """Return the id of the process that loaded each clip of a batch."""
    return [int.from_bytes(bytes(clip[0].flatten().tolist()), "little") for clip in batch.clips_BTHWC]


def take(count, tokenize, part, num_workers=0, start_batch=0, source=None, frames_in_batch=6):
    source = Clips() if source is None else source
    order = BatchOrder(source, frames_in_batch, 5, start_batch, part)
    batches = training_batches(source, order, num_workers=num_workers, tokenize=tokenize)
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


def keys_of(source, frames_in_batch, count, part=None, start_batch=0):
    return list(itertools.islice(BatchOrder(source, frames_in_batch, 5, start_batch, part or Part()), count))


def of_all_ranks(source, frames_in_batch, world_size, count):
    """Return the batches of all ranks as one, clip by clip of each rank in turn."""
    ranks = [keys_of(source, frames_in_batch, count, Part(rank, world_size)) for rank in range(world_size)]
    together = []
    for keys in zip(*ranks, strict=True):
        clips = [None] * sum(len(key.clips) for key in keys)
        for rank, key in enumerate(keys):
            assert replace(key, clips=()) == replace(keys[0], clips=())
            assert key.clips_in_step == len(clips)
            clips[rank::world_size] = key.clips
        together.append(replace(keys[0], clips=tuple(clips)))
    return together


def order_of(groups, seed, epoch, in_batch=64):
    """Return the order of an epoch of clips of one length."""
    lengths = numpy.ones(sum(map(len, groups)), numpy.int64)
    return epoch_order(lengths, groups, BatchCounts(lengths, in_batch), seed, epoch)


@pytest.mark.parametrize(("rank", "world_size"), [(-1, 1), (1, 1), (2, 2), (0, 0)])
def test_there_is_no_part_outside_of_the_work(rank, world_size):
    with pytest.raises(ValueError, match=f"rank {rank} is none of {world_size}"):
        Part(rank, world_size)


def test_one_process_without_groups_takes_the_clips_of_each_permutation_in_order():
    stream = [(epoch, index) for epoch in range(3) for index in numpy_generator(5, "clip_order", epoch).permutation(49)]
    keys = keys_of(Clips(grouped=False), 4, 30, start_batch=3)
    for number, key in enumerate(keys, 3):
        epoch, ends = (number * 4 + 3) // 49, [0, 49 // 4, 98 // 4]
        assert (key.epoch, key.index_in_epoch) == (epoch, number - ends[epoch])
        assert (key.clips, key.frames, key.clips_in_step) == (tuple(stream[number * 4 : number * 4 + 4]), 1, 4)


def test_ranks_take_the_clips_of_a_batch_in_turn_and_the_first_have_those_left_over():
    permutation = numpy_generator(5, "clip_order", 0).permutation(11).tolist()
    parts = [keys_of(Clips([11], grouped=False), 8, 1, Part(rank, 3))[0] for rank in range(3)]
    assert [[index for _, index in part.clips] for part in parts] == [permutation[rank:8:3] for rank in range(3)]
    assert {part.clips_in_step for part in parts} == {8}


sizes_of_groups = st.lists(st.integers(0, 40), min_size=1, max_size=40).filter(any)


BUDGET = 96
LENGTHS = (4, 8, 12, 16, 20, 28, 32, 96)  # of clips; 20 and 28 do not divide the budget


@st.composite
def mixed_clips(draw):
    """Clips of several lengths; of some there are fewer than fill a batch."""
    sizes = draw(sizes_of_groups)
    lengths = draw(st.lists(st.sampled_from(LENGTHS), min_size=sum(sizes), max_size=sum(sizes)))
    return Clips(sizes, grouped=draw(st.booleans()), lengths=lengths)


@given(mixed_clips(), st.integers(0, 3), st.integers(0, 5))
def test_an_epoch_shows_every_clip_of_every_group_once(source, seed, epoch):
    counts = BatchCounts(source.lengths(), BUDGET)
    order = epoch_order(source.lengths(), source.groups(), counts, seed, epoch)
    assert order.dtype == numpy.int64
    assert sorted(order.tolist()) == list(range(len(source)))


@given(mixed_clips())
def test_every_batch_is_full_of_one_length_and_every_clip_comes_once_an_epoch(source):
    epochs = 3
    counts = BatchCounts(source.lengths(), BUDGET)
    rarest = max(-(-counts.in_batch(frames) // clips) for frames, clips in counts.clips_of.items())
    keys = keys_of(source, BUDGET, counts.until_end_of(epochs + rarest))
    shown = Counter()
    for key in keys:
        assert {source.frames[index] for _, index in key.clips} == {key.frames}
        assert len(key.clips) == BUDGET // key.frames
        assert key.epoch == max(epoch for epoch, _ in key.clips)
        shown.update(key.clips)
    assert set(shown.values()) == {1}
    assert {(epoch, index) for epoch in range(epochs) for index in range(len(source))} <= shown.keys()


@given(mixed_clips(), st.integers(1, 12))
def test_batches_are_counted_as_they_come(source, epochs):
    counts = BatchCounts(source.lengths(), BUDGET)
    waiting, complete = Counter(), []
    assert counts.until_end_of(-1) == 0
    for epoch in range(epochs):
        assert {frames: clips for frames, clips in counts.left_before(epoch).items() if clips} == +waiting
        for frames in source.lengths().tolist():
            waiting[frames] += 1
            if waiting[frames] == BUDGET // frames:
                complete.append((epoch, frames))
                waiting[frames] = 0
        assert counts.until_end_of(epoch) == len(complete)
    assert [counts.epoch_of(batch) for batch in range(len(complete))] == [epoch for epoch, _ in complete]
    keys = keys_of(source, BUDGET, len(complete))
    assert sorted((key.epoch, key.frames) for key in keys) == sorted(complete)
    firsts = [counts.until_end_of(epoch - 1) for epoch, _ in complete]
    assert [key.index_in_epoch for key in keys] == [number - first for number, first in enumerate(firsts)]


def test_averages_are_those_of_many_batches():
    source = Clips([50], grouped=False, lengths=[4, 12, 12, 28, 32] * 10)
    counts = BatchCounts(source.lengths(), BUDGET)
    keys = keys_of(source, BUDGET, counts.until_end_of(23))  # when 24 * 10 clips of each length have been shown
    assert counts.left_before(24) == dict.fromkeys((4, 12, 28, 32), 0)
    assert counts.clips_on_average == pytest.approx(numpy.mean([key.clips_in_step for key in keys]))
    assert counts.frames_on_average == pytest.approx(numpy.mean([key.clips_in_step * key.frames for key in keys]))
    assert counts.most_frames(1) == 96
    assert counts.most_frames(2) == 2 * 32  # of three clips
    assert counts.most_frames(3) == 36  # of the eight clips of 12 frames, one part has three


@pytest.mark.parametrize("longest", [4, 32, 64, 96, 500])
@pytest.mark.parametrize("clips", [1, 2, 3, 4, 5, 6, 7, 8, 32])
def test_steps_of_all_lengths_have_nearly_as_many_frames(longest, clips):
    """With a budget of n of the longest clips, the largest step has less than 1 / n more frames than the smallest."""
    lengths = numpy.arange(4, longest + 1, 4)
    counts = BatchCounts(lengths, clips * longest)
    frames = [counts.in_batch(length) * length for length in lengths.tolist()]
    assert max(frames) == clips * longest
    assert clips * max(frames) < (clips + 1) * min(frames)


def test_with_five_clips_of_eight_seconds_steps_differ_by_less_than_15_percent():
    lengths = numpy.arange(12, 97, 4)  # 1 to 8 seconds of 12 frames
    for clips in range(5, 40):
        counts = BatchCounts(lengths, clips * 96)
        frames = [counts.in_batch(length) * length for length in lengths.tolist()]
        assert max(frames) <= 1.15 * min(frames)


@given(mixed_clips(), st.integers(1, 9), st.integers(1, 12))
def test_any_number_of_ranks_shows_the_same_clips_at_every_step(source, world_size, count):
    frames = world_size * 96
    assert of_all_ranks(source, frames, world_size, count) == keys_of(source, frames, count)


@given(mixed_clips(), st.integers(1, 4), st.integers(0, 12))
def test_every_rank_goes_on_where_it_stopped(source, world_size, start):
    part, frames = Part(world_size - 1, world_size), world_size * 96
    whole = keys_of(source, frames, start + 4, part)
    assert keys_of(source, frames, 4, part, start_batch=start) == whole[start:]


@pytest.mark.parametrize("grouped", [True, False])
def test_a_start_at_an_epochs_end_or_after_epochs_without_a_batch_is_exact(grouped):
    """Of the only clip of 4 frames, a batch comes every 24 epochs; of the five of 32 frames, one or two each epoch."""
    source = Clips([4, 2], grouped, lengths=[32, 32, 4, 32, 32, 32])
    counts = BatchCounts(source.lengths(), BUDGET)
    whole = keys_of(source, BUDGET, 100)
    starts = sorted({counts.until_end_of(epoch) for epoch in range(50)})
    assert len({key.epoch for key in whole if key.frames == 4}) == 2
    for start in starts:
        assert keys_of(source, BUDGET, 5, start_batch=start) == whole[start : start + 5]


def test_few_clips_wait_for_epochs_until_they_fill_a_batch():
    keys = keys_of(Clips([3], grouped=False), 8, 3)
    assert [(key.epoch, key.index_in_epoch) for key in keys] == [(2, 0), (5, 0), (7, 0)]
    shown = Counter(clip for key in keys for clip in key.clips)
    assert shown == Counter((epoch, index) for epoch in range(8) for index in range(3))


@given(sizes_of_groups, st.sampled_from([1, 2, 4, 8, 16, 32, 64]), st.integers(0, 3))
def test_only_groups_at_the_borders_are_shared_by_ranks_of_a_power_of_two(sizes, world_size, seed):
    groups = in_groups(sizes)
    order = order_of(groups, seed, 0)
    readers = [number for rank in range(world_size) for number in set(groups_of(order[rank::world_size], groups))]
    assert len(readers) <= sum(size > 0 for size in sizes) + world_size - 1


@pytest.mark.parametrize("world_size", [2, 4, 8])
def test_of_many_shards_each_rank_reads_its_share(world_size):
    groups = in_groups([17] * 250)
    order = order_of(groups, 3, 1)
    for rank in range(world_size):
        assert len(set(groups_of(order[rank::world_size], groups))) <= 250 / world_size + 2


@pytest.mark.parametrize("world_size", [2, 4, 8])
def test_of_shards_of_clips_of_all_lengths_each_rank_reads_about_its_share(world_size):
    lengths = numpy_generator(0, "lengths").choice(LENGTHS[:-1], 250 * 17)
    source, shard_of = Clips([17] * 250, lengths=lengths), groups_of(numpy.arange(250 * 17), in_groups([17] * 250))
    for rank in range(world_size):
        keys = keys_of(source, world_size * 2 * 32, 150, Part(rank, world_size))
        read = {(epoch, shard_of[index]) for key in keys for epoch, index in key.clips if epoch == 0}
        assert sum(1 for key in keys if key.epoch == 0) > 100
        assert len(read) <= 1.75 * 250 / world_size  # ends of all lengths lie near each other, not together


@given(sizes_of_groups, st.integers(0, 3))
def test_each_of_64_ranks_reads_one_group_after_the_other(sizes, seed):
    groups = in_groups(sizes)
    order = order_of(groups, seed, 0)
    read = sum(stretches(groups_of(order[rank::64], groups)) for rank in range(64))
    assert read <= sum(size > 0 for size in sizes) + 63


def test_128_ranks_share_each_shard_by_two():
    groups = in_groups([128] * 64)
    order = order_of(groups, 0, 0, in_batch=128)
    readers = Counter(number for rank in range(128) for number in set(groups_of(order[rank::128], groups)))
    assert readers == dict.fromkeys(range(64), 2)


@pytest.mark.parametrize(("shards", "expected"), [(4, 4), (10, 7), (64, 8), (1000, 8)])
def test_a_batch_of_eight_mixes_shards(shards, expected):
    groups = in_groups([30] * shards)
    order = order_of(groups, 0, 0, in_batch=8)
    assert len(set(groups_of(order[:64], groups))) >= 0.9 * min(shards, 64)  # and eight batches mix as many again
    numbers = groups_of(order, groups)
    mixed = [len(set(numbers[first : first + 8])) for first in range(0, len(numbers), 8)]
    assert sum(mixed) / len(mixed) >= expected - 0.1
    assert sorted(mixed)[len(mixed) // 10] >= expected - 1


def test_the_clips_of_a_shard_are_shuffled():
    order = order_of(in_groups([400]), 0, 0)
    assert abs(numpy.corrcoef(order, numpy.arange(400))[0, 1]) < 0.2  # four times the deviation of a random order
    assert stretches((numpy.diff(order[5::64]) > 0).tolist()) > 1


def test_epochs_and_seeds_have_orders_of_their_own():
    groups = in_groups([10] * 6)
    orders = [order_of(groups, seed, epoch) for seed in (0, 1) for epoch in range(4)]
    assert order_of(groups, 1, 3).tolist() == orders[-1].tolist()
    assert len({tuple(order.tolist()) for order in orders}) == 8
    of_rank = {frozenset(groups_of(order_of(groups, 0, epoch)[::2], groups)) for epoch in range(9)}
    assert len(of_rank) > 4  # shards wander between the ranks


@pytest.mark.parametrize("grouped", [True, False])
def test_two_ranks_with_two_workers_load_each_clip_once(tokenize, grouped):
    source = Clips(grouped=grouped)
    batches = [batch for rank in range(2) for batch in take(8, tokenize, Part(rank, 2), 2, source=source)]
    names = [name for batch in batches for name in batch.ids]
    assert {(batch.epoch, batch.index_in_epoch) for batch in batches} == {(0, index) for index in range(8)}
    assert len(names) == len(set(names)) == 48  # of 49
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
    constants = {
        "DATA_ROOT": out,
        "CACHE_DIR": tmp_path / "cache",
        "MAX_FRAMES": 4,
        "IMAGE_SIZE": (16, 16),
        "CLIP_TIMING": "stretched",
    }
    inspection, reader = inspect_data(Config.model_construct(**constants))
    assert inspection.unusable == ()
    empty_cache = ClipCache(tmp_path / "empty", 50_000_000)
    return InspectedClips(ClipReader(reader.root, reader.shape, empty_cache), inspection.usable)


def test_two_ranks_with_two_workers_read_real_shards_as_one_process_does(tokenize, shards):
    ranks = [take(4, tokenize, Part(rank, 2), 2, source=shards, frames_in_batch=24) for rank in range(2)]
    whole = take(4, tokenize, Part(), source=shards, frames_in_batch=24)
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
