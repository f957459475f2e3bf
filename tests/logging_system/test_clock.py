import time

import pytest

from logging_system.clock import LoggingClock


def test_logging_and_sampling_are_kept_apart():
    clock = LoggingClock()
    with clock.measure():
        time.sleep(0.02)
    with clock.measure(sampling=True):
        time.sleep(0.05)
    reading = clock.snapshot()
    assert 0.02 <= reading.logging_seconds < 0.05 <= reading.sampling_seconds
    assert clock.snapshot() == reading  # reading does not reset


def test_time_counts_also_when_the_block_raises():
    clock = LoggingClock()

    def sleep_and_fail():
        time.sleep(0.01)
        raise RuntimeError

    with pytest.raises(RuntimeError), clock.measure():
        sleep_and_fail()
    assert clock.snapshot().logging_seconds >= 0.01
