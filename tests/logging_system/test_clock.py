import pytest

from logging_system import clock as module
from logging_system.clock import LoggingClock
from tests.held_clock import HeldClock


@pytest.fixture
def time(monkeypatch):
    held = HeldClock()
    monkeypatch.setattr(module, "time", held)
    return held


def test_logging_and_sampling_are_kept_apart(time):
    clock = LoggingClock()
    with clock.measure():
        time.now += 0.25
    with clock.measure(sampling=True):
        time.now += 0.5
    reading = clock.snapshot()
    assert (reading.logging_seconds, reading.sampling_seconds) == (0.25, 0.5)
    assert clock.snapshot() == reading  # reading does not reset


def test_time_counts_also_when_the_block_raises(time):
    clock = LoggingClock()

    def work_and_fail():
        time.now += 0.25
        raise RuntimeError

    with pytest.raises(RuntimeError), clock.measure():
        work_and_fail()
    assert clock.snapshot().logging_seconds == 0.25
