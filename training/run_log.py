"""The dashboard as the training loop sees it: written by the main process, and by no other."""

from collections.abc import Callable
from typing import Protocol

from logging_system.cadence import Cadence
from logging_system.dispatcher import Dispatcher
from logging_system.records import CheckpointRecord, EpochRecord, StepRecord, ValidationRecord
from logging_system.view import TrainingView


class RunLog(Protocol):
    """What the loop tells, each with the meaning that it has in `logging_system.dispatcher.Dispatcher`."""

    def on_start(self) -> None: ...
    def before_step(self, step: int, *, is_first: bool, is_last: bool) -> None: ...
    def on_step(self, record: StepRecord) -> None: ...
    def samples_are_due(self, record: StepRecord) -> bool: ...
    def on_samples(self, record: StepRecord) -> None: ...
    def on_validation(self, record: ValidationRecord) -> None: ...
    def on_epoch(self, record: EpochRecord) -> None: ...
    def on_checkpoint(self, record: CheckpointRecord) -> None: ...
    def on_end(self) -> None: ...
    def flush(self) -> None: ...
    def close(self, is_hurried: Callable[[], bool]) -> None: ...


class Dashboard:
    """Passes everything on to the dispatcher, with the view that categories may take."""

    def __init__(self, dispatcher: Dispatcher, view: TrainingView) -> None:
        self._dispatcher = dispatcher
        self._view = view

    def on_start(self) -> None:
        self._dispatcher.on_start(self._view)

    def before_step(self, step: int, *, is_first: bool, is_last: bool) -> None:
        self._dispatcher.before_step(step, self._view, is_first=is_first, is_last=is_last)

    def on_step(self, record: StepRecord) -> None:
        self._dispatcher.on_step(record, self._view)

    def samples_are_due(self, record: StepRecord) -> bool:
        return self._dispatcher.samples_are_due(record)

    def on_samples(self, record: StepRecord) -> None:
        self._dispatcher.on_samples(record, self._view)

    def on_validation(self, record: ValidationRecord) -> None:
        self._dispatcher.on_validation(record, self._view)

    def on_epoch(self, record: EpochRecord) -> None:
        self._dispatcher.on_epoch(record, self._view)

    def on_checkpoint(self, record: CheckpointRecord) -> None:
        self._dispatcher.on_checkpoint(record, self._view)

    def on_end(self) -> None:
        self._dispatcher.on_end(self._view)

    def flush(self) -> None:
        self._dispatcher.flush()

    def close(self, is_hurried: Callable[[], bool]) -> None:
        self._dispatcher.close(is_hurried)


class NoDashboard:
    """Of every process but the main one: it writes nothing, and knows when the others wait for the main one."""

    def __init__(self, cadence: Cadence) -> None:
        self._cadence = cadence

    def on_start(self) -> None:
        pass

    def before_step(self, step: int, *, is_first: bool, is_last: bool) -> None:
        pass

    def on_step(self, record: StepRecord) -> None:
        pass

    def samples_are_due(self, record: StepRecord) -> bool:
        return not record.is_interrupted and self._cadence.samples_due(record.step, is_last=record.is_last)

    def on_samples(self, record: StepRecord) -> None:
        pass

    def on_validation(self, record: ValidationRecord) -> None:
        pass

    def on_epoch(self, record: EpochRecord) -> None:
        pass

    def on_checkpoint(self, record: CheckpointRecord) -> None:
        pass

    def on_end(self) -> None:
        pass

    def flush(self) -> None:
        pass

    def close(self, is_hurried: Callable[[], bool]) -> None:
        pass
