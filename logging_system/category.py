"""The shape of a category: when it is due, and which hooks it may fill in."""

from dataclasses import dataclass
from typing import ClassVar

from logging_system.files.writer import Writer
from logging_system.records import CheckpointRecord, EpochRecord, StepRecord, ValidationRecord
from logging_system.view import TrainingView


@dataclass(frozen=True)
class Due:
    """Which cadences fall on a step. The dispatcher alone works this out (see `cadence.py`)."""

    scalars: bool  # every LOG_EVERY_STEPS, and the last step
    diagnostics: bool  # every DIAGNOSTIC_LOG_EVERY_STEPS, the first and the last step


class Category:
    """Base class: every hook does nothing. A category overrides those it needs.

    Hooks must not change the model, must not draw from a global random generator, and must leave out a metric that is
    unavailable instead of writing 0. Device tensors cross to the host only when something is due.
    """

    name: ClassVar[str]  # the TensorBoard group, such as "01_Training"

    def before_step(self, step: int, due: Due, view: TrainingView) -> None:
        """Called before optimizer step `step` starts, only when that step's diagnostics are due."""

    def on_start(self, view: TrainingView, writer: Writer) -> None:
        """Called once before the first step of the process."""

    def on_step(self, record: StepRecord, due: Due, view: TrainingView, writer: Writer) -> None:
        """Called after every optimizer step."""

    def on_samples(self, record: StepRecord, view: TrainingView, writer: Writer) -> None:
        """Called every SAMPLE_EVERY_STEPS and at the last step, when all else of the step is logged."""

    def on_validation(self, record: ValidationRecord, view: TrainingView, writer: Writer) -> None:
        """Called after every validation."""

    def on_epoch(self, record: EpochRecord, view: TrainingView, writer: Writer) -> None:
        """Called at the end of every LOG_EVERY_EPOCHS-th epoch, and for the part of an epoch that ends a run."""

    def on_checkpoint(self, record: CheckpointRecord, view: TrainingView, writer: Writer) -> None:
        """Called for every checkpoint that has reached the disk; the steps after its own may have gone on."""

    def on_end(self, view: TrainingView, writer: Writer) -> None:
        """Called once when the run ends, also when it is interrupted."""

    def close(self) -> None:
        """Release threads and the like."""
