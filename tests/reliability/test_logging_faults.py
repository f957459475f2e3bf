"""Faults of the disk, of a category and of the video encoder in whole runs: training neither stops nor changes."""

import threading
from collections import Counter

import pytest

from logging_system import dispatcher as dispatcher_module
from logging_system.categories import CATEGORIES
from logging_system.dispatcher import ERROR_FILE, Dispatcher
from logging_system.files import encoding_worker
from logging_system.files import writer as writer_module
from logging_system.files.encoding_worker import EncodingWorker
from tests.grids import mostly_slow

FAILURES = "05_Performance/Logging_Failures"
DROPPED = "05_Performance/Dropped_Videos"
HOOKS = (
    *("before_step", "on_start", "on_step", "on_samples", "on_validation", "on_checkpoint", "on_epoch", "on_end"),
    "close",
)
ONCE_A_RUN = ("on_start", "on_end", "close")
LAST_STEP = 4


def complaints(capsys):
    """Return what logging said on the console about faults."""
    lines = capsys.readouterr().err.replace("\r", "\n").splitlines()
    return [line[line.index("Logging: ") :] for line in lines if "Logging: " in line]


def gifs(run):
    return {point for point, content in run.pictures().items() if content.startswith(b"GIF")}


# --- The disk


@pytest.mark.parametrize("capacity", mostly_slow([300, 0, 20_000]))
def test_a_disk_that_is_full_for_a_while_costs_nothing(
    train, use_full_disk, capsys, assert_same_weights, assert_nothing_lost, capacity
):
    disk, _ = use_full_disk(capacity, patience=3)
    run = train()
    assert_same_weights(run)
    assert_nothing_lost(run)
    assert len(disk.refusals) == 3
    assert run.curve(FAILURES)[LAST_STEP] == 3
    said = complaints(capsys)
    assert len(said) == len(set(disk.refusals))  # one line a file
    assert all("No space left on device" in line and "Training goes on" in line for line in said)


@pytest.mark.slow
@pytest.mark.parametrize("capacity", mostly_slow([5_000, 0]))
def test_a_disk_that_stays_full_ends_nothing(train, use_full_disk, undisturbed, capsys, assert_same_weights, capacity):
    disk, writers = use_full_disk(capacity, patience=None)
    run = train()
    assert_same_weights(run)
    assert run.events().keys() <= undisturbed.events().keys()  # what fitted is readable
    assert bool(run.events()) is (capacity > 0)
    assert disk.written == capacity  # to the last byte; what was torn by that is cut off in the end
    assert sum(path.stat().st_size for path in set(disk.refusals)) <= capacity
    metrics = run.folder / "metrics.jsonl"
    assert metrics.read_bytes()[-1:] in (b"", b"\n")
    kinds = Counter("metrics_file" if path.name == "metrics.jsonl" else "event_file" for path in disk.refusals)
    assert writers[0].failures == kinds
    assert len(complaints(capsys)) == 2


@pytest.mark.slow
def test_a_real_full_disk(train, small_disk, tmp_path, monkeypatch, capsys, assert_same_weights, assert_nothing_lost):
    """Full from the end of step 1 to the end of step 3, with samples in between; checkpoints lie on another disk."""
    (small_disk / "run").mkdir()
    (tmp_path / "checkpoints").mkdir()
    (small_disk / "run" / "checkpoints").symlink_to(tmp_path / "checkpoints")
    ballast = small_disk / "ballast"
    on_step = Dispatcher.on_step

    def fill_and_free(self, record):
        on_step(self, record)
        if record.step == 1:
            with pytest.raises(OSError, match="No space left"):
                ballast.write_bytes(bytes(2**22))
        if record.step == 3:
            assert self._writer._worker.drain(lambda: 30)  # the samples of step 2 were tried while there was no space
            self._writer.flush()
            ballast.unlink()

    monkeypatch.setattr(Dispatcher, "on_step", fill_and_free)
    run = train("--resume", log_dir=small_disk)
    assert_same_weights(run)
    assert_nothing_lost(run)
    assert len(list((run.folder / "samples").glob("step_00000002_*.mp4"))) > 1
    said = complaints(capsys)
    assert len(said) == 3
    for name in ("tfevents", "metrics.jsonl", ".mp4"):
        assert sum(name in line for line in said) == 1
    failures = run.curve(FAILURES)
    assert failures[3] >= 2
    assert failures[4] > failures[3]  # the flush after step 3 was counted
    assert 1 not in failures


# --- A category


def sabotage(category, raised):
    """Let every hook that the category fills in raise from its second call on, or after the work of its only call."""

    class Sabotaged(category):
        def __init__(self, context):
            super().__init__(context)
            for hook in HOOKS:
                if hook in vars(category):
                    setattr(self, hook, fail_in(hook, getattr(self, hook)))

    def fail_in(hook, original):
        calls = []

        def failing(*arguments):
            calls.append(hook)
            if len(calls) == 1:
                original(*arguments)
            if hook in ONCE_A_RUN or len(calls) > 1:
                raised[category.name, hook] += 1
                raise RuntimeError(f"sabotaged {hook}")

        return failing

    return Sabotaged


@pytest.mark.parametrize("name", mostly_slow([category.name for category in CATEGORIES]))
def test_a_category_that_raises_harms_no_other(
    train, monkeypatch, capsys, assert_same_weights, assert_nothing_lost, name
):
    raised = Counter()
    sabotaged = tuple(sabotage(each, raised) if each.name == name else each for each in CATEGORIES)
    monkeypatch.setattr(dispatcher_module, "CATEGORIES", sabotaged)
    run = train()
    assert raised
    assert_same_weights(run)
    assert_nothing_lost(run, name)
    said = complaints(capsys)
    assert len(said) == len(raised)
    for _, hook in raised:
        expected = f"Logging: {name} failed in {hook} (RuntimeError: sabotaged {hook}). Training goes on"
        assert sum(line.startswith(expected) for line in said) == 1
    assert run.curve(FAILURES)[LAST_STEP] == sum(raised.values())
    assert (run.folder / ERROR_FILE).read_text().count("Traceback") == len(raised)


def test_all_fifteen_raise_in_the_middle(train, monkeypatch, capsys, assert_same_weights):
    raised = Counter()
    monkeypatch.setattr(dispatcher_module, "CATEGORIES", tuple(sabotage(each, raised) for each in CATEGORIES))
    run = train()
    assert {name for name, _ in raised} == {category.name for category in CATEGORIES}
    assert_same_weights(run)
    assert len(complaints(capsys)) == len(raised)
    assert run.curve(FAILURES)[LAST_STEP] == sum(raised.values())


@pytest.mark.slow
def test_all_fifteen_fail_to_start(train, monkeypatch, capsys, assert_same_weights):
    """What was to be prepared is missing then; whatever comes of it, training does not notice."""

    def refuse(self):
        with pytest.MonkeyPatch.context() as patch:
            for category in self._categories:
                patch.setattr(category, "on_start", broken)
            on_start(self)

    def broken():
        raise RuntimeError("no start")

    on_start = Dispatcher.on_start
    monkeypatch.setattr(Dispatcher, "on_start", refuse)
    run = train()
    assert_same_weights(run)
    said = complaints(capsys)
    assert sum("failed in on_start (RuntimeError: no start)" in line for line in said) == len(CATEGORIES)
    assert len(said) == len(set(said))
    assert run.curve(FAILURES)[LAST_STEP] >= len(CATEGORIES)
    assert set(run.curve("01_Training/Loss")) == {1, 2, 3, 4}


# --- The video encoder


@pytest.fixture
def quiet_threads(monkeypatch):
    """Python itself says nothing about a thread that SystemExit ends; pytest would."""
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)


@pytest.mark.slow
def test_an_encoder_that_kills_its_thread_costs_only_the_videos_it_dies_of(
    train, undisturbed, monkeypatch, capsys, assert_same_weights, quiet_threads
):
    calls, threads = [], set()
    encode = writer_module.encode_gif

    def dies_of_every_third(*arguments):
        calls.append(1)
        threads.add(threading.current_thread())
        if len(calls) % 3 == 0:
            raise SystemExit("killed")
        return encode(*arguments)

    monkeypatch.setattr(writer_module, "encode_gif", dies_of_every_third)
    run = train()
    deaths = len(calls) // 3
    assert deaths >= 2
    assert len(threads) >= deaths  # one after the other
    assert_same_weights(run)
    assert len(gifs(undisturbed) - gifs(run)) == deaths
    assert run.scalars().keys() >= undisturbed.scalars().keys()
    said = complaints(capsys)
    assert len(said) == 1
    assert "SystemExit('killed')" in said[0]
    assert run.curve(FAILURES)[LAST_STEP] == deaths


@pytest.mark.slow
def test_an_encoder_that_always_raises(train, undisturbed, monkeypatch, capsys, assert_same_weights):
    def fail(*arguments):
        raise RuntimeError("no encoder")

    monkeypatch.setattr(writer_module, "encode_gif", fail)
    run = train()
    assert_same_weights(run)
    videos = gifs(undisturbed)
    assert videos
    assert undisturbed.events().keys() - run.events().keys() == videos
    said = complaints(capsys)
    assert len(said) == 1
    assert "RuntimeError('no encoder')" in said[0]
    assert run.curve(FAILURES)[LAST_STEP] == 2 * len(videos)  # each is tried twice
    assert DROPPED not in {tag for tag, _ in run.scalars()}


@pytest.mark.slow
def test_an_encoder_that_hangs(train, undisturbed, monkeypatch, capsys, assert_same_weights):
    release, refused = threading.Event(), []
    submit = EncodingWorker.submit

    def watched(*arguments):
        taken = submit(*arguments)
        refused.extend([] if taken else [1])
        return taken

    monkeypatch.setattr(EncodingWorker, "submit", watched)
    monkeypatch.setattr(encoding_worker, "MAXIMUM_JOBS", 2)
    monkeypatch.setattr(writer_module, "_CLOSE_TIMEOUT_SECONDS", 0.5)
    monkeypatch.setattr(writer_module, "encode_gif", lambda *arguments: release.wait() and b"")
    try:
        run = train()
    finally:
        release.set()
    assert_same_weights(run)
    videos = gifs(undisturbed)
    assert gifs(run) == set()
    assert len(videos) - 3 <= len(refused) <= len(videos) - 2  # two wait, and one hangs unless it came too late
    assert run.curve(DROPPED)[LAST_STEP] == len(refused)
    assert run.curve(FAILURES) == {LAST_STEP: 1}  # the end that came too soon for them
    said = complaints(capsys)
    assert len(said) == 2
    assert "videos come faster than they can be encoded" in said[0]
    assert "still being encoded after" in said[1]
