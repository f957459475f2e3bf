import pytest

from logging_system.cadence import Cadence
from logging_system.category import Due


@pytest.fixture
def cadence():
    return Cadence(scalars_every=10, diagnostics_every=50, samples_every=100, flush_every=40, epochs_every=3)


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


def test_numbers_below_one_are_refused():
    with pytest.raises(ValueError, match="samples_every is 0"):
        Cadence(scalars_every=1, diagnostics_every=1, samples_every=0, flush_every=1, epochs_every=1)
