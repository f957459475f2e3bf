import os
import signal

import pytest

from common.interruption import STOPPING_SIGNALS, Interrupted, signals_raise


@pytest.mark.parametrize("number", STOPPING_SIGNALS, ids=lambda number: number.name)
def test_the_first_signal_raises_and_the_next_ones_wait_for_the_cleaning_up(number):
    handlers = {each: signal.getsignal(each) for each in STOPPING_SIGNALS}
    done = []

    def work():
        try:
            os.kill(os.getpid(), number)
            done.append("went on")
        finally:
            for another in STOPPING_SIGNALS:
                os.kill(os.getpid(), another)
            done.append("cleaned up")

    with pytest.raises(Interrupted) as raised, signals_raise():
        work()
    assert done == ["cleaned up"]
    assert raised.value.signal_number == number
    assert {each: signal.getsignal(each) for each in STOPPING_SIGNALS} == handlers


def test_a_signal_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with signals_raise():
            os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
