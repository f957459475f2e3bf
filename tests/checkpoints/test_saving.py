"""What the loop is told of saves, and what console and dashboard are."""

from pathlib import Path

import pytest

from checkpoints.checkpoint import RunState
from checkpoints.saver import FailedCheckpoint, LastSaveFailed, Saver
from logging_system.records import CheckpointRecord

FULL = OSError(28, "No space left on device")
STATE = RunState(4, 16, 0)


class Rig(Saver):
    """Has ended the given saves, in this order."""

    def __init__(self, *outcomes: CheckpointRecord | FailedCheckpoint, last_step: int | None = 0) -> None:
        super().__init__()
        self._ended += outcomes
        self.last_step = last_step
        self.saves = 0
        self.said: list[str] = []
        self.records: list[CheckpointRecord] = []
        self.report_to(self.said.append, self.records.append)

    def save(self, state: RunState, *, wait: bool) -> None:
        self.saves += 1


def saved(step: int) -> CheckpointRecord:
    return CheckpointRecord(step, Path(f"step_{step}"), 1000, 0.25, 1.5)


def test_a_last_save_that_works_at_the_second_attempt_is_no_failure() -> None:
    rig = Rig(FailedCheckpoint(4, FULL), saved(4))
    rig.save_last(STATE)
    assert rig.said == [
        "warning: the checkpoint of step 4 cannot be written: [Errno 28] No space left on device",
        "Step 4: checkpoint step_4",
    ]
    assert rig.records == [CheckpointRecord(4, Path("step_4"), 1000, 0.25, 1.5)]


def test_a_last_save_that_fails_says_where_a_resume_would_begin() -> None:
    rig = Rig(saved(2), FailedCheckpoint(4, FULL), last_step=2)
    with pytest.raises(LastSaveFailed, match=r"step 4 cannot be written: .*\. The last checkpoint is of step 2\."):
        rig.save_last(STATE)
    assert rig.said == ["Step 2: checkpoint step_2"]
    with pytest.raises(LastSaveFailed, match="There is no checkpoint yet"):
        Rig(FailedCheckpoint(4, FULL)).save_last(STATE)


def test_a_save_on_the_way_that_fails_is_a_warning() -> None:
    rig = Rig(FailedCheckpoint(2, FULL))
    rig.begin(STATE)
    assert rig.said == [
        "warning: the checkpoint of step 2 cannot be written: [Errno 28] No space left on device; training goes on"
    ]
    assert rig.records == []


@pytest.mark.parametrize("needs_others", [True, False])
def test_a_process_that_gives_up_saves_only_where_it_needs_no_other(needs_others: bool) -> None:
    rig = Rig()
    rig.needs_others = needs_others
    rig.save_last(STATE)
    assert rig.saves == 1
    rig.settle()
    rig.save_last(STATE)
    assert rig.saves == (1 if needs_others else 2)


def test_a_process_that_does_not_write_does_not_say_that_there_is_nothing() -> None:
    assert Rig(last_step=None).last_checkpoint() == "The main process knows which checkpoint is the last."
