"""Each category with a model and records on a CUDA device that is only imagined: nothing is on the wrong device."""

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from logging_system.categories import CATEGORIES
from logging_system.records import StepRecord
from logging_system.statistics import system
from tests.dashboard_tags import tags_of

STEPS = 4


def moved(record: Any, device: str) -> Any:
    """The same record with all its tensors on the device."""
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(record):
        value = vars(record)[field.name]
        if isinstance(value, Tensor):
            changes[field.name] = value.to(device)
        elif dataclasses.is_dataclass(value):
            changes[field.name] = moved(value, device)
    return dataclasses.replace(record, **changes)


def records(make: SimpleNamespace, device: str) -> list[StepRecord]:
    def record(step: int) -> StepRecord:
        return make.record(step, is_first=step == 1, is_early_point=step == 1, is_last=step == STEPS)

    return [moved(record(step), device) for step in range(1, STEPS + 1)]


def log_on(device: str, session: Callable[..., Any], make: SimpleNamespace, *names: str) -> Any:
    """Let the categories log some steps; return what they wrote. A category that fails fails the test."""
    view = make.view(model=make.network().to(device))
    assert {parameter.device for parameter in view.model.parameters()} == {torch.device(device)}
    running = session(*names, view=view, log_every_steps=2, diagnostic_log_every_steps=2, sample_every_steps=2)
    for record in records(make, device):
        flags = {"is_first": record.is_first, "is_last": record.is_last}
        running.dispatcher.before_step(record.step, **flags)
        for parameter in view.model.parameters():
            parameter.grad = torch.ones_like(parameter)
        running.step(record)
    running.dispatcher.on_validation(make.validation(STEPS))
    running.dispatcher.on_checkpoint(make.checkpoint(STEPS))
    running.dispatcher.on_epoch(make.epoch(1, STEPS, is_partial=True, is_last=True))
    return running.finish()


@pytest.fixture(autouse=True)
def no_gpu_readings(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an imagined GPU holds cannot be read; `statistics/test_system.py` reads made-up ones."""
    monkeypatch.setattr(system, "CudaReadings", lambda *_: system.DeviceReadings())
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
@pytest.mark.parametrize("name", [spec.name for spec in CATEGORIES])
def test_a_category_logs_from_a_device_all_that_it_logs_from_the_cpu(
    name: str, session: Callable[..., Any], make: SimpleNamespace, imagined_cuda: Any
) -> None:
    reader = log_on(imagined_cuda.name, session, make, name)
    table = tags_of(name)
    written = {tag.split("/")[0] for tag in reader.all_tags}
    assert written == {name}
    exact = {tag for tag, meaning in table.items() if "{" not in tag and not meaning.absent_when}
    assert exact <= reader.all_tags


FROM_THE_DEVICE = {"01", "02", "06", "07", "09", "10", "11"}


@pytest.mark.parametrize("name", [spec.name for spec in CATEGORIES if spec.name[:2] in FROM_THE_DEVICE])
def test_a_step_without_anything_due_moves_nothing_to_the_host(
    name: str, session: Callable[..., Any], make: SimpleNamespace, imagined_cuda: Any
) -> None:
    view = make.view(model=make.network().to(imagined_cuda.name))
    running = session(name, view=view, log_every_steps=50, diagnostic_log_every_steps=50, sample_every_steps=50)
    flags = dict.fromkeys(("is_first", "is_early_point", "is_last"), False)
    quiet = [dataclasses.replace(record, **flags) for record in records(make, imagined_cuda.name)]
    before = imagined_cuda.transfers
    for record in quiet:
        running.dispatcher.before_step(record.step, is_first=False, is_last=False)
        running.step(record)
    assert not running.dispatcher.failures, running.messages
    assert imagined_cuda.transfers == before
    running.step(moved(make.record(5, is_last=True), imagined_cuda.name))
    assert not running.dispatcher.failures, running.messages
    assert imagined_cuda.transfers > before or name[:2] in {"09", "10"}
    running.finish()
