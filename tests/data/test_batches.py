import fcntl
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from common.errors import UserError
from data.batches import BatchOrder, load_batch, training_batches
from data.records import ClipRow, as_video
from tests.waiting import wait_until


class NumberedClips:
    """Each clip's pixels tell its epoch and number. Of two frames, unless said otherwise."""

    def __init__(self, size=10, broken=(), frames=(2,)):
        self.size = size
        self.broken = broken
        self.frames = numpy.resize(frames, size)

    def __len__(self):
        return self.size

    def row(self, epoch, index):
        frames = int(self.frames[index])
        return ClipRow(f"{epoch}/{index}", f"clip {index}", frames, frames / 12)

    def lengths(self):
        return self.frames

    def groups(self):
        return None

    def load(self, row):
        epoch, index = map(int, row.id.split("/"))
        if index in self.broken:
            raise UserError(f"clip {index} has gone")
        clip = numpy.zeros((row.frames, 4, 4, 3), numpy.uint8)
        clip[..., 0], clip[..., 1], clip[..., 2] = epoch, index, 255
        return clip


def take(count, tokenize, start_batch=0, num_workers=0, seed=0, source=None, frames=8):
    source = NumberedClips() if source is None else source
    order = BatchOrder(source, frames, seed, start_batch)
    batches = training_batches(source, order, num_workers=num_workers, tokenize=tokenize)
    taken = [next(batches) for _ in range(count)]
    batches.close()
    return taken


def test_a_batch_holds_what_it_says(tokenize):
    rows = [ClipRow("2/7", "seven", 2, 0.25), ClipRow("0/1", "one", 2, 0.125)]
    batch = load_batch(NumberedClips(), rows, tokenize, epoch=2, index=5)
    assert batch.clips_BTHWC.dtype == torch.uint8
    assert batch.video_BCTHW.shape == (2, 3, 2, 4, 4)
    assert batch.video_BCTHW.dtype == torch.float32
    expected = torch.tensor([[2, 7, 255], [0, 1, 255]]) / 127.5 - 1
    assert torch.allclose(batch.video_BCTHW[:, :, 1, 2, 3], expected)
    assert batch.tokens_BL[1].tolist() == [ord("o"), ord("n"), ord("e"), 0, 0]
    assert (batch.captions, batch.ids) == (("seven", "one"), ("2/7", "0/1"))
    assert (batch.epoch, batch.index_in_epoch, batch.clips_in_step) == (2, 5, 2)
    assert torch.equal(batch.seconds_B, torch.tensor([0.25, 0.125]))


def test_every_clip_comes_once_an_epoch_and_what_is_left_begins_the_next(tokenize):
    batches = take(5, tokenize)
    assert [(batch.epoch, batch.index_in_epoch) for batch in batches] == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
    shown = [name.split("/") for batch in batches for name in batch.ids]
    assert [epoch for epoch, _ in shown] == 10 * ["0"] + 10 * ["1"]
    first, second = ([index for _, index in part] for part in (shown[:10], shown[10:]))
    assert sorted(first) == sorted(second) == sorted(map(str, range(10)))
    assert first != second


def test_clips_of_each_length_have_batches_of_their_own_with_as_many_frames(tokenize):
    source = NumberedClips(16, frames=(4, 8, 8, 12))
    batches = take(10, tokenize, source=source, frames=25)
    assert {batch.clips_BTHWC.shape[:2] for batch in batches} == {(6, 4), (3, 8), (2, 12)}
    for batch in batches:
        assert (batch.seconds_B == batch.clips_BTHWC.shape[1] / 12).all()
        names = [tuple(map(int, name.split("/"))) for name in batch.ids]
        assert torch.equal(batch.clips_BTHWC[:, -1, 3, 3, :2], torch.tensor(names, dtype=torch.uint8))


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_a_resumed_order_is_exact_for_any_number_of_workers(tokenize, num_workers):
    source = NumberedClips(frames=(2, 2, 8, 2, 4))
    whole = take(7, tokenize, source=source)
    assert len({batch.clips_BTHWC.shape for batch in whole}) == 3
    resumed = take(4, tokenize, start_batch=3, num_workers=num_workers, source=source)
    for expected, batch in zip(whole[3:], resumed, strict=True):
        assert (batch.ids, batch.epoch, batch.index_in_epoch) == (expected.ids, expected.epoch, expected.index_in_epoch)
        assert torch.equal(batch.video_BCTHW, expected.video_BCTHW)
        assert torch.equal(batch.tokens_BL, expected.tokens_BL)


def test_the_order_depends_on_the_seed(tokenize):
    assert take(1, tokenize)[0].ids != take(1, tokenize, seed=1)[0].ids


@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_global_generators_are_left_alone(tokenize, num_workers):
    before = torch.get_rng_state(), numpy.random.get_state()[1].tolist()
    take(2, tokenize, num_workers=num_workers)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert numpy.random.get_state()[1].tolist() == before[1]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_lost_clip_is_reported_without_a_workers_traceback(tokenize, num_workers):
    with pytest.raises(UserError) as caught:
        take(2, tokenize, num_workers=num_workers, source=NumberedClips(8, broken=(5,)))
    assert str(caught.value) == "clip 5 has gone"


PROGRAM = """
    import fcntl, os, sys, time
    import numpy, torch
    from data.batches import BatchOrder, training_batches
    from data.records import ClipRow

    class Clips:
        def __len__(self):
            return 8
        def row(self, epoch, index):
            return ClipRow(f"{epoch}/{index}", "a", 1, 0.1)
        def lengths(self):
            return numpy.ones(8, numpy.int64)
        def groups(self):
            return None
        def load(self, row):
            return numpy.full((1, 2, 2, 3), os.getpid() % 200, numpy.uint8)

    lock = open(sys.argv[1], "w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    batches = training_batches(Clips(), BatchOrder(Clips(), 2, 0, 0), num_workers=2,
                               tokenize=lambda captions: torch.zeros(len(captions), 1, dtype=torch.int64))
    for _ in range(2):  # one of each worker, so that both have started
        next(batches)
    children = open(f"/proc/self/task/{os.getpid()}/children").read()
    print(children, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def trainer(tmp_path):
    """A process that holds a lock and has two loader workers; yields it, its workers' ids and the lock file."""
    if sys.platform != "linux":
        pytest.skip("reads /proc")
    lock = tmp_path / "lock"
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(lock)]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.PIPE, text=True)
    workers = [int(number) for number in process.stdout.readline().split()]
    yield process, workers, lock
    process.kill()
    process.wait()


def is_alive(process_id):
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def ignored_signals(process_id):
    status = Path(f"/proc/{process_id}/status").read_text()
    (mask,) = (int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigIgn:"))
    return {number for number in signal.Signals if mask >> (number - 1) & 1}


def test_workers_die_with_a_killed_parent_and_keep_no_lock(trainer):
    process, workers, lock = trainer
    assert len(workers) == 2
    assert all(map(is_alive, workers))
    process.kill()
    process.wait()
    with open(lock, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # at once, although the workers may still be alive
    wait_until(lambda: not any(map(is_alive, workers)))


def test_workers_leave_signals_to_the_parent(trainer):
    _, workers, _ = trainer
    for worker in workers:
        os.kill(worker, signal.SIGINT)
        os.kill(worker, signal.SIGTERM)
        assert ignored_signals(worker) >= {signal.SIGINT, signal.SIGTERM}
    assert all(map(is_alive, workers))


def test_closing_ends_the_workers(tokenize):
    if sys.platform != "linux":
        pytest.skip("reads /proc")
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    before = set(children.read_text().split())
    order = BatchOrder(NumberedClips(), 8, 0, 0)
    batches = training_batches(NumberedClips(), order, num_workers=2, tokenize=tokenize)
    next(batches)
    workers = set(children.read_text().split()) - before
    assert len(workers) == 2
    batches.close()
    assert not any(is_alive(int(worker)) for worker in workers)


def test_pixels_become_the_numbers_that_division_gives_and_lie_in_order():
    clips = torch.arange(256, dtype=torch.uint8).view(1, 4, 8, 8, 1).expand(1, 4, 8, 8, 3)
    video = as_video(clips)
    expected = (numpy.arange(256, dtype=numpy.float32) / numpy.float32(127.5) - numpy.float32(1)).reshape(4, 8, 8)
    assert (video.numpy() == expected[None, None]).all()
    assert video.shape == (1, 3, 4, 8, 8)
    assert video.is_contiguous()


class Divisors(TorchDispatchMode):
    """Notes the device of everything that something is divided by."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in (torch.ops.aten.div, torch.ops.aten.div_):
            self.found.append(args[1].device.type if isinstance(args[1], torch.Tensor) else "number")
        return func(*args, **(kwargs or {}))


def test_on_a_device_clips_are_divided_by_a_tensor_there_and_nobody_waits(imagined_cuda):
    """CUDA would multiply by the reciprocal of a number, which rounds otherwise."""
    clips = torch.zeros(2, 4, 8, 8, 3, dtype=torch.uint8).to(imagined_cuda.name)
    with Divisors() as divisors:
        video = as_video(clips)
    assert divisors.found == ["cuda"]
    assert (video.device.type, video.dtype, video.shape) == ("cuda", torch.float32, (2, 3, 4, 8, 8))
    assert imagined_cuda.transfers == 0
