import pytest

from config import Config
from logging_system import cadence as cadence_module
from logging_system.cadence import Cadence, Due, LoggingClock
from tests.held_clock import HeldClock


@pytest.fixture
def cadence():
    constants = {"LOG_EVERY_STEPS": 10, "LOG_EVERY_EPOCHS": 3, "DIAGNOSTIC_LOG_EVERY_STEPS": 50}
    return Cadence.from_config(
        Config(**constants, TENSORBOARD_FLUSH_EVERY_STEPS=40, SAMPLE_EVERY_STEPS=100, VALIDATE_EVERY_STEPS=30)
    )


@pytest.mark.parametrize(
    ("step", "is_first", "is_last", "expected"),
    [
        (1, False, False, Due(scalars=False, diagnostics=False)),
        (1, True, False, Due(scalars=False, diagnostics=True)),
        (1, True, True, Due(scalars=True, diagnostics=True)),
        (7, False, True, Due(scalars=True, diagnostics=True)),
        (30, False, False, Due(scalars=True, diagnostics=False)),
        (50, False, False, Due(scalars=True, diagnostics=True)),
        (53, True, False, Due(scalars=False, diagnostics=True)),
        (200, False, False, Due(scalars=True, diagnostics=True)),
    ],
)
def test_due(cadence, step, is_first, is_last, expected):
    assert cadence.due(step, is_first=is_first, is_last=is_last) == expected


def test_samples(cadence):
    assert [step for step in range(1, 251) if cadence.samples_due(step, is_last=step == 233)] == [100, 200, 233]


def test_flushes(cadence):
    due = [step for step in range(1, 101) if cadence.flush_due(step, is_first=step == 1, is_last=step == 97)]
    assert due == [1, 40, 80, 97]


def test_epochs(cadence):
    assert [epoch for epoch in range(1, 9) if cadence.epoch_due(epoch, is_last=epoch == 8)] == [3, 6, 8]


def test_results_are_needed_where_something_is_due(cadence):
    needed = [step for step in range(1, 61) if cadence.needs_results(step)]
    assert needed == [10, 20, 30, 40, 50, 60]
    assert not cadence.needs_results(3)  # an epoch's number, not a step's


def test_each_field_has_the_value_of_its_constant(cadence):
    assert cadence == Cadence(
        log_every_steps=10,
        log_every_epochs=3,
        diagnostic_log_every_steps=50,
        tensorboard_flush_every_steps=40,
        sample_every_steps=100,
        validate_every_steps=30,
        save_every_steps=Config().SAVE_EVERY_STEPS,
    )


def test_numbers_below_one_are_refused(cadence):
    with pytest.raises(ValueError, match="sample_every_steps is 0"):
        Cadence(**{**vars(cadence), "sample_every_steps": 0})


@pytest.fixture
def time(monkeypatch):
    held = HeldClock()
    monkeypatch.setattr(cadence_module, "time", held)
    return held


def test_logging_and_sampling_are_kept_apart(time):
    clock = LoggingClock()
    with clock.measure():
        time.now += 0.25
    with clock.measure(sampling=True):
        time.now += 0.5
    assert (clock.logging_seconds, clock.sampling_seconds) == (0.25, 0.5)


def test_time_counts_also_when_the_block_raises(time):
    clock = LoggingClock()

    def work_and_fail():
        time.now += 0.25
        raise RuntimeError

    with pytest.raises(RuntimeError), clock.measure():
        work_and_fail()
    assert clock.logging_seconds == 0.25
