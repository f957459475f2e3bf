"""Saving beside training: the copy is of the moment, one save at a time, and a failure is not lost."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load
from torch import nn

from checkpoints import saver as module
from checkpoints.checkpoint import Retention, RunState, TrainingState, list_checkpoints
from checkpoints.saver import CheckpointSaver, FailedCheckpoint
from config import Config
from data.order import Part
from distributed.processes import Processes
from logging_system.records import CheckpointRecord
from tests.held_clock import HeldClock
from training.optimizer import build_adamw, optimizer_tensors

COPYING_SECONDS = 1.0
WRITING_SECONDS = 5.0


def at(step: int) -> RunState:
    return RunState(step, 4 * step, 0, 0.5, 0.5)


def describe(of: RunState) -> TrainingState:
    return TrainingState(**vars(of), config={}, config_file={}, symbols=("A",), schedule={})


class Rig:
    """A saver of one layer, whose writing can be held up or made to fail, and a clock that only it moves."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *, in_background: bool = True) -> None:
        self.model = nn.Linear(2, 2)
        self.checkpoints = folder / "checkpoints"
        self.clock = HeldClock()
        self.may_write = threading.Event()
        self.error: OSError | None = None
        self.threads: list[threading.Thread] = []
        optimizer = build_adamw(Config(LEARNING_RATE=0.1, WEIGHT_DECAY=0.0), self.model)
        for parameter in self.model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        self._optimizer = optimizer
        self._average = nn.Linear(2, 2)
        self.saver = CheckpointSaver(
            checkpoints=self.checkpoints,
            describe=describe,
            tensors=self._tensors,
            retention=Retention(9),
            in_background=in_background,
            saved_step=0,
            processes=Processes(),
        )
        monkeypatch.setattr(module, "save_checkpoint", self._held_up(module.save_checkpoint))
        monkeypatch.setattr(module, "time", self.clock)

    def _tensors(self) -> dict[str, dict[str, torch.Tensor]]:
        self.clock.now += COPYING_SECONDS
        return {
            "model": self.model.state_dict(),
            "ema": self._average.state_dict(),
            "optimizer": optimizer_tensors(self._optimizer, self.model),
        }

    def _held_up(self, original: Callable[..., Path]) -> Callable[..., Path]:
        def save(*arguments: object) -> Path:
            self.threads.append(threading.current_thread())
            if threading.current_thread() is not threading.main_thread():
                assert self.may_write.wait(60)
            self.clock.now += WRITING_SECONDS
            if self.error is not None:
                raise self.error
            return original(*arguments)

        return save

    def write_once_waited_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Hold the writing up until somebody waits for it."""
        wait = self.saver.wait

        def release_and_wait() -> None:
            self.may_write.set()
            wait()

        monkeypatch.setattr(self.saver, "wait", release_and_wait)

    def weight_on_disk(self, step: int) -> torch.Tensor:
        return load((self.checkpoints / f"step_{step:08d}" / "model.safetensors").read_bytes())["weight"]


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(tmp_path, monkeypatch)


def test_what_is_written_is_the_state_of_the_moment_of_saving(rig: Rig) -> None:
    before = rig.model.weight.detach().clone()
    rig.saver.save(at(1), wait=False)
    assert rig.saver.collect() == []  # it is still being written
    with torch.no_grad():
        rig.model.weight += 1  # training goes on
    rig.may_write.set()
    rig.saver.close()
    (saved,) = rig.saver.collect()
    assert isinstance(saved, CheckpointRecord)
    assert torch.equal(rig.weight_on_disk(1), before)
    assert (saved.stall_seconds, saved.write_seconds) == (COPYING_SECONDS, COPYING_SECONDS + WRITING_SECONDS)
    assert saved.size_bytes == sum(file.stat().st_size for file in saved.folder.iterdir())
    assert rig.threads[0] is not threading.main_thread()


def test_the_next_save_waits_for_the_one_before_and_the_last_one_for_itself(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.saver.save(at(1), wait=False)
    rig.write_once_waited_for(monkeypatch)
    rig.saver.save(at(2), wait=True)
    assert [folder.name for folder in list_checkpoints(rig.checkpoints)] == ["step_00000002", "step_00000001"]
    assert [type(outcome) for outcome in rig.saver.collect()] == [CheckpointRecord, CheckpointRecord]
    assert rig.threads[1] is threading.main_thread()  # no copy is needed where nothing changes the weights


def test_a_step_is_saved_once(rig: Rig) -> None:
    rig.may_write.set()
    rig.saver.save(at(0), wait=True)  # the one that was resumed from
    assert rig.threads == []
    rig.saver.save(at(1), wait=False)
    rig.saver.save(at(1), wait=True)
    assert len(rig.threads) == 1
    assert len(list_checkpoints(rig.checkpoints)) == 1  # and it is there


def test_a_failure_comes_back_and_the_step_can_be_saved_again(rig: Rig) -> None:
    rig.error = OSError(28, "No space left on device")
    rig.may_write.set()
    rig.saver.save(at(1), wait=False)
    rig.saver.save(at(1), wait=True)
    failures = rig.saver.collect()
    assert [(type(each), each.step) for each in failures] == [(FailedCheckpoint, 1)] * 2
    rig.error = None
    rig.saver.save(at(1), wait=True)
    assert isinstance(rig.saver.collect()[0], CheckpointRecord)


def test_without_room_for_a_copy_training_waits(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SPARE_MEMORY", 1e15)
    rig.saver.save(at(1), wait=False)
    (saved,) = rig.saver.collect()
    assert isinstance(saved, CheckpointRecord)
    assert saved.stall_seconds == saved.write_seconds == COPYING_SECONDS + WRITING_SECONDS
    assert rig.threads == [threading.main_thread()]


def test_what_training_leaves_alone_is_not_copied_once_more(tmp_path: Path) -> None:
    copies = {name: {"weight": torch.ones(2)} for name in ("model", "ema", "optimizer")}
    written = []
    saver = CheckpointSaver(
        checkpoints=tmp_path,
        describe=describe,
        tensors=lambda: {},
        retention=Retention(1),
        in_background=True,
        saved_step=0,
        processes=Processes(Part(0, 2)),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "gather_to_main", lambda tensors: copies)
        patch.setattr(module, "save_checkpoint", lambda *arguments: written.append(arguments[2]) or tmp_path)
        saver.save(at(1), wait=False)
        saver.close()
    assert written == [copies]
    assert written[0] is copies


def test_it_waits_too_where_that_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(tmp_path, monkeypatch, in_background=False)
    rig.saver.save(at(1), wait=False)
    assert rig.threads == [threading.main_thread()]
    assert len(rig.saver.collect()) == 1


def test_a_copy_that_does_not_fit_and_a_fault_in_the_other_thread_lose_nothing(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, "_row_major", lambda tensor: torch.empty(2**50))  # fails as it does in earnest
        rig.saver.save(at(1), wait=False)
    assert isinstance(rig.saver.collect()[0], CheckpointRecord)
    rig.error = RuntimeError("something that nobody thought of")  # type: ignore[assignment]
    rig.may_write.set()
    rig.saver.save(at(2), wait=False)
    rig.saver.wait()
    assert isinstance(rig.saver.collect()[0], FailedCheckpoint)
    rig.error = None
    rig.saver.save(at(2), wait=True)
    assert rig.saver.last_step == 2


def test_the_stall_includes_the_wait_for_the_save_before(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.saver.save(at(1), wait=False)
    rig.write_once_waited_for(monkeypatch)
    rig.saver.save(at(2), wait=False)
    rig.saver.close()
    first, second = rig.saver.collect()
    assert first.stall_seconds == COPYING_SECONDS
    assert second.stall_seconds == WRITING_SECONDS + COPYING_SECONDS
