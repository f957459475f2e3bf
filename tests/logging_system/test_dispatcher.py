"""The dispatcher with small categories of its own; the fifteen real ones have their own tests."""

from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import numpy
import pytest

from common.interruption import Interrupted
from config import Config
from logging_system import cadence as cadence_module
from logging_system import dispatcher as dispatcher_module
from logging_system.cadence import Cadence, Due
from logging_system.category import Category
from logging_system.dispatcher import ERROR_FILE, Dispatcher, RunLog, build_dispatcher
from logging_system.doctor.rules_machine import DROPPED_TAG, FAILURES_TAG
from logging_system.files import writer as writer_module
from logging_system.files.encoding_worker import EncodingWorker
from logging_system.files.writer import Writer
from tests.held_clock import HeldClock

CONFIG = Config(
    LOG_EVERY_STEPS=2,
    LOG_EVERY_EPOCHS=2,
    DIAGNOSTIC_LOG_EVERY_STEPS=4,
    TENSORBOARD_FLUSH_EVERY_STEPS=5,
    SAMPLE_EVERY_STEPS=6,
)
BROKEN = RuntimeError("broken")
NOTHING = Due(scalars=False, diagnostics=False)


class Recorder(Category):
    """Notes every call, takes a second by its clock, and raises in the hooks it is told to."""

    def __init__(self, fails_in=(), error=BROKEN, clock=None):
        self.calls = []
        self.fails_in, self.error, self.clock = fails_in, error, clock or HeldClock()

    def _note(self, hook, *details):
        self.calls.append((hook, *details))
        self.clock.now += 1.0
        if hook in self.fails_in:
            raise self.error

    def before_step(self, step):
        self._note("before_step", step)

    def on_start(self):
        self._note("on_start")

    def on_step(self, record, due):
        self.writer.scalar("01_Recorder/Step", record.step, record.step)
        self._note("on_step", record.step, due)

    def on_samples(self, record):
        self._note("on_samples", record.step)

    def on_validation(self, record):
        self._note("on_validation", record.step)

    def on_checkpoint(self, record):
        self._note("on_checkpoint", record.step)

    def on_epoch(self, record):
        self.writer.scalar("03_Epoch_Summary/Step", record.step, record.epoch)
        self._note("on_epoch", record.epoch)

    def on_end(self):
        self._note("on_end")

    def close(self):
        self._note("close")


def step_record(step, **flags):
    absent = dict.fromkeys(("is_first", "is_last", "is_interrupted", "is_early_point"), False)
    return SimpleNamespace(step=step, **{**absent, **flags})


def epoch_record(epoch, step, is_partial=False, is_last=False):
    return SimpleNamespace(epoch=epoch, step=step, is_partial=is_partial, is_last=is_last)


def declared(name, category, makes_samples=False):
    """Return a class of categories whose only instance is `category`."""

    class Declared(Category):
        def __new__(cls, context):
            category.name, category.makes_samples, category.writer = name, makes_samples, context.writer
            return category

    return Declared


@pytest.fixture
def make(tmp_path, disk):
    made = []

    def build(*categories, config=CONFIG, makes_samples=False):
        messages = []
        writer = Writer(tmp_path, report=messages.append, open_file=disk.open)
        kinds = [declared(f"Category_{n}", category, makes_samples) for n, category in enumerate(categories)]
        dispatcher = Dispatcher(
            kinds, config=config, run_folder=tmp_path, view=None, writer=writer, report=messages.append
        )
        made.append(dispatcher)
        return dispatcher, messages

    yield build
    for dispatcher in made:
        dispatcher.close()


def test_a_step_at_which_a_signal_ends_the_run_brings_scalars_alone(make):
    category = Recorder()
    dispatcher, _ = make(category)
    for step in (7, 12):  # 12 is on the cadence of samples and diagnostics
        dispatcher.on_step(step_record(step, is_interrupted=True))
        assert not dispatcher.samples_are_due(step_record(step, is_interrupted=True))
    scalars = replace(NOTHING, scalars=True)
    assert category.calls == [("on_step", 7, scalars), ("on_step", 12, scalars)]


def test_samples_that_a_signal_interrupts_are_no_failure_and_the_others_get_the_step(make):
    interrupted, healthy = Recorder(), Recorder()

    def on_samples(record):
        raise Interrupted(15)

    interrupted.on_samples = on_samples
    dispatcher, messages = make(interrupted, healthy)
    dispatcher.on_samples(step_record(1))
    assert healthy.calls == [("on_samples", 1)]
    assert dispatcher.failures == {}
    assert messages == []


class Copies:
    """Notes what is filled, and what is looked at meanwhile."""

    def __init__(self):
        self.filled = []

    @contextmanager
    def of_model(self, *, with_gradients=False):
        self.filled.append("gradients" if with_gradients else "model")
        yield

    @contextmanager
    def of_both(self):
        self.filled.append("both")
        yield


def drive(log):
    log.on_start()
    for step in range(1, 7):
        log.before_step(step, is_first=step == 1, is_last=False)
        log.on_step(step_record(step, is_first=step == 1, is_interrupted=step == 6))
    log.on_samples(step_record(6))
    log.on_validation(SimpleNamespace(step=6))
    log.on_checkpoint(SimpleNamespace(step=6))
    log.on_epoch(epoch_record(1, 6))
    log.on_epoch(epoch_record(2, 6))
    log.on_end()
    log.close()


def test_all_processes_fill_the_copies_of_a_divided_model_at_the_same_looks(tmp_path):
    """Otherwise one would wait for the others for ever."""
    main, other = Copies(), Copies()
    drive(Dispatcher([], config=CONFIG, run_folder=tmp_path, view=None, writer=Writer(tmp_path), copies=main))
    drive(RunLog(Cadence.from_config(CONFIG), other))
    assert main.filled == other.filled
    assert main.filled == ["model", "model", "gradients", "model", "gradients", "both", "model"]


def test_a_log_without_categories_knows_when_samples_are_due(tmp_path):
    log = RunLog(Cadence.from_config(CONFIG))
    drive(log)
    assert [step for step in range(1, 14) if log.samples_are_due(step_record(step))] == [6, 12]
    assert log.samples_are_due(step_record(5, is_last=True))
    assert not log.samples_are_due(step_record(6, is_interrupted=True))
    assert list(tmp_path.iterdir()) == []


def test_every_hook_is_passed_on_when_it_is_due(make):
    category = Recorder()
    dispatcher, _ = make(category)
    dispatcher.on_start()
    for step in range(1, 7):
        dispatcher.before_step(step, is_first=step == 1, is_last=False)
        record = step_record(step, is_first=step == 1)
        dispatcher.on_step(record)
        if dispatcher.samples_are_due(record):
            dispatcher.on_samples(record)
    dispatcher.on_validation(SimpleNamespace(step=6))
    dispatcher.on_checkpoint(SimpleNamespace(step=5))
    for epoch in (1, 2, 3):
        dispatcher.on_epoch(epoch_record(epoch, 6, is_last=epoch == 3))
    dispatcher.on_end()
    dispatcher.close()
    scalars = replace(NOTHING, scalars=True)
    assert category.calls == [
        ("on_start",),
        ("before_step", 1),
        ("on_step", 1, replace(NOTHING, diagnostics=True)),
        ("on_step", 2, scalars),
        ("on_step", 3, NOTHING),
        ("before_step", 4),
        ("on_step", 4, replace(scalars, diagnostics=True)),
        ("on_step", 5, NOTHING),
        ("on_step", 6, scalars),
        ("on_samples", 6),
        ("on_validation", 6),
        ("on_checkpoint", 5),
        ("on_epoch", 2),
        ("on_epoch", 3),
        ("on_end",),
        ("close",),
    ]


def test_only_enabled_categories_are_built(tmp_path):
    class Switched(Category):
        name = "x"

        def __init__(self, context):
            raise AssertionError("must not be built")

        @classmethod
        def is_enabled(cls, config):
            return config.ENABLE_VIDEO_LOGGING

    config = CONFIG.model_copy(update={"ENABLE_VIDEO_LOGGING": False})
    dispatcher = Dispatcher([Switched], config=config, run_folder=tmp_path, view=None, writer=Writer(tmp_path))
    assert dispatcher.failures == {}
    dispatcher.close()


@pytest.mark.parametrize(
    "hook",
    [
        "before_step",
        "on_start",
        "on_step",
        "on_samples",
        "on_validation",
        "on_checkpoint",
        "on_epoch",
        "on_end",
        "close",
    ],
)
def test_category_that_raises_harms_neither_training_nor_the_others(make, hook, tmp_path):
    broken, healthy = Recorder(fails_in=[hook]), Recorder()
    dispatcher, messages = make(broken, healthy)
    dispatcher.on_start()
    for step in (1, 2, 3, 4):
        dispatcher.before_step(step, is_first=step == 1, is_last=False)
        dispatcher.on_step(step_record(step, is_first=step == 1))
        dispatcher.on_samples(SimpleNamespace(step=step))
        dispatcher.on_validation(SimpleNamespace(step=step))
        dispatcher.on_checkpoint(SimpleNamespace(step=step))
        dispatcher.on_epoch(epoch_record(step * 2, step))
    dispatcher.on_end()
    dispatcher.close()
    assert broken.calls == healthy.calls  # it is called again although it failed before
    assert dispatcher.failures == {("Category_0", hook): sum(call[0] == hook for call in broken.calls)}
    assert len(messages) == 1
    assert "Category_0" in messages[0]
    assert hook in messages[0]
    assert "broken" in messages[0]
    assert (tmp_path / ERROR_FILE).read_text().count("Traceback") == 1


def test_failures_are_counted_in_the_dashboard(make, tmp_path, accumulate):
    dispatcher, _ = make(Recorder(fails_in=["on_step"]))
    for step in range(1, 5):
        dispatcher.on_step(step_record(step))
    dispatcher.close()
    assert [(point.step, point.value) for point in accumulate(tmp_path).Scalars(FAILURES_TAG)] == [(2, 2), (4, 4)]


def test_failures_of_the_disk_are_counted_too(make, tmp_path, accumulate, disk):
    dispatcher, messages = make(Recorder())
    disk.is_full = True
    for step in range(1, 6):
        dispatcher.on_step(step_record(step))
    disk.is_full = False
    dispatcher.on_step(step_record(6))
    dispatcher.close()
    run = accumulate(tmp_path)
    assert [(point.step, point.value) for point in run.Scalars(FAILURES_TAG)] == [(6, 2)]  # both files, once
    assert [point.step for point in run.Scalars("01_Recorder/Step")] == list(range(1, 7))
    assert len(messages) == 2


def test_dropped_videos_are_counted_in_the_dashboard(make, tmp_path, accumulate, monkeypatch):
    dispatcher, messages = make(Recorder())
    answers = iter([True, False, False])
    monkeypatch.setattr(EncodingWorker, "submit", lambda *arguments: next(answers))
    clip = numpy.zeros((2, 4, 4, 3), dtype=numpy.uint8)
    for step in range(1, 5):
        if step in (1, 2, 3):
            dispatcher._writer.video("12/clip", clip, step, 8.0)
        dispatcher.on_step(step_record(step))
    dispatcher.close()
    assert [(point.step, point.value) for point in accumulate(tmp_path).Scalars(DROPPED_TAG)] == [(2, 1), (4, 2)]
    assert FAILURES_TAG not in accumulate(tmp_path).Tags()["scalars"]
    assert len(messages) == 1


def test_the_last_point_counts_what_the_last_videos_and_the_end_of_the_run_did(make, tmp_path, accumulate, monkeypatch):
    """It waits for them: a tag gets one point a step."""
    category = Recorder(fails_in=["on_epoch", "on_end", "close"])
    dispatcher, _ = make(category)

    def fail(*arguments):
        raise RuntimeError("no encoder")

    monkeypatch.setattr(writer_module, "encode_gif", fail)
    for step in range(1, 4):
        dispatcher.on_step(step_record(step, is_last=step == 3))
    dispatcher._writer.video("12/clip", numpy.zeros((2, 4, 4, 3), dtype=numpy.uint8), 3, 8.0)
    dispatcher.on_epoch(epoch_record(1, 3, is_last=True))
    dispatcher.on_end()
    dispatcher.close()
    dispatcher.close()
    points = accumulate(tmp_path).Scalars(FAILURES_TAG)
    assert [(point.step, point.value) for point in points] == [(3, 5)]  # three hooks, and a video tried twice


def test_without_failures_there_is_no_such_tag(make, tmp_path, accumulate):
    dispatcher, _ = make(Recorder())
    dispatcher.on_step(step_record(2))
    dispatcher.close()
    assert accumulate(tmp_path).Tags()["scalars"] == ["01_Recorder/Step"]


def test_switched_off_performance_category_stays_silent_about_failures(make, tmp_path, accumulate):
    config = CONFIG.model_copy(update={"ENABLE_PERFORMANCE_PROFILING": False})
    dispatcher, messages = make(Recorder(fails_in=["on_step"]), config=config)
    dispatcher.on_step(step_record(2))
    dispatcher.close()
    assert accumulate(tmp_path).Tags()["scalars"] == ["01_Recorder/Step"]
    assert len(messages) == 1


def test_category_that_cannot_be_built_is_left_out(tmp_path):
    class Unbuildable(Category):
        name = "x"

        def __init__(self, context):
            raise RuntimeError("no such device")

    messages = []
    dispatcher = Dispatcher(
        [Unbuildable],
        config=CONFIG,
        run_folder=tmp_path,
        view=None,
        writer=Writer(tmp_path),
        report=messages.append,
    )
    dispatcher.on_step(step_record(2))
    dispatcher.close()
    assert dispatcher.failures == {("x", "build"): 1}
    assert "no such device" in messages[0]


def test_interrupt_is_not_swallowed(make):
    dispatcher, _ = make(Recorder(fails_in=["on_step"], error=KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        dispatcher.on_step(step_record(1))


@pytest.fixture
def time(monkeypatch):
    held = HeldClock()
    monkeypatch.setattr(dispatcher_module, "time", held)
    return held


def test_files_are_flushed_at_their_cadence(make, tmp_path, read_metrics, time):
    dispatcher, _ = make(Recorder())
    on_disk = {}
    for step in range(1, 12):
        dispatcher.on_step(step_record(step, is_first=step == 1))
        on_disk[step] = len(read_metrics(tmp_path))
    assert on_disk == {1: 1, 2: 1, 3: 1, 4: 1, 5: 5, 6: 5, 7: 5, 8: 5, 9: 5, 10: 10, 11: 10}
    dispatcher.flush()
    assert len(read_metrics(tmp_path)) == 11


def test_files_are_flushed_after_ten_seconds_however_long_the_cadence_is(make, tmp_path, read_metrics, time):
    dispatcher, _ = make(Recorder(), config=CONFIG.model_copy(update={"TENSORBOARD_FLUSH_EVERY_STEPS": 10**9}))
    on_disk = {}
    for step in range(1, 10):
        time.now += 4.0
        dispatcher.on_step(step_record(step, is_first=step == 1))
        on_disk[step] = len(read_metrics(tmp_path))
    assert on_disk == {1: 1, 2: 1, 3: 1, 4: 4, 5: 4, 6: 4, 7: 7, 8: 7, 9: 7}  # 12 seconds apart


@pytest.mark.parametrize(
    ("seconds_a_step", "log_every_steps", "expected"),
    [
        (3.0, 10**9, [1, 5, 9, 13]),  # the first one, then what is 10 seconds later or more
        (0.01, 10**9, [1]),
        (20.0, 10**9, list(range(1, 15))),
        (6.0, 4, [1, 3]),  # after step 4, LOG_EVERY_STEPS decides alone
        (6.0, 1, [1]),  # which is on the cadence, too
    ],
)
def test_early_points_come_by_time_until_the_first_one_on_the_cadence(
    make, time, seconds_a_step, log_every_steps, expected
):
    dispatcher, _ = make(config=CONFIG.model_copy(update={"LOG_EVERY_STEPS": log_every_steps}))
    other = RunLog(dispatcher.cadence)
    early = []
    for step in range(1, 15):
        time.now += seconds_a_step
        is_early_point = dispatcher.early_point_is_due()
        assert not other.early_point_is_due()  # only the main process writes
        dispatcher.on_step(step_record(step, is_first=step == 1, is_early_point=is_early_point))
        if is_early_point:
            early.append(step)
    assert early == expected


@pytest.mark.parametrize(
    ("makes_samples", "hook", "is_sampling"),
    [(True, "on_samples", True), (True, "on_step", False), (False, "on_samples", False)],
)
def test_time_of_sampling_is_kept_apart(make, monkeypatch, makes_samples, hook, is_sampling):
    clock = HeldClock()
    monkeypatch.setattr(cadence_module, "time", clock)
    dispatcher, _ = make(Recorder(clock=clock), makes_samples=makes_samples)
    getattr(dispatcher, hook)(step_record(6))
    reading = dispatcher.clock
    assert (reading.sampling_seconds, reading.logging_seconds) == ((1.0, 0.0) if is_sampling else (0.0, 1.0))


def test_resume_takes_back_what_lies_beyond_the_checkpoint(tmp_path, accumulate, capsys):
    writer = Writer(tmp_path)
    for step in range(1, 9):
        writer.scalar("01_Training/Loss", step, step)
    writer.close()
    build_dispatcher(CONFIG, tmp_path, None, 5, None).close()
    assert [point.step for point in accumulate(tmp_path).Scalars("01_Training/Loss")] == [1, 2, 3, 4, 5]
    assert "3 points of unfinished epochs, openings and steps after 5 will be written anew" in capsys.readouterr().err


def test_run_that_starts_over_takes_everything_back(tmp_path, accumulate):
    writer = Writer(tmp_path)
    writer.scalar("01_Training/Loss", 1.0, 0)
    writer.close()
    build_dispatcher(CONFIG, tmp_path, None, 0, None).close()
    assert "01_Training/Loss" not in accumulate(tmp_path).Tags()["scalars"]
