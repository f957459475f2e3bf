"""The shape of a category: what it declares, which hooks it may fill in, and how it writes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, TypeVar

import numpy

from config import Config
from logging_system.cadence import Due, LoggingClock
from logging_system.files.writer import Writer
from logging_system.records import CheckpointRecord, EpochRecord, StepRecord, TrainingView, ValidationRecord
from logging_system.statistics.layers import LayerPlan, plan_layers

Content = TypeVar("Content")

# When the points of a category appear, in words.
SCALARS = "every LOG_EVERY_STEPS steps, and the last step"
VALIDATIONS = f"{SCALARS}; every validation"
DIAGNOSTICS = "every DIAGNOSTIC_LOG_EVERY_STEPS steps, the first and the last step of a launch"
SAMPLES = "every SAMPLE_EVERY_STEPS steps, and the last step"
EPOCHS = "every LOG_EVERY_EPOCHS epochs, and the part of one with which a run ends; the x axis is the epoch"
START = "the start of a launch"


@dataclass(frozen=True)
class Tag:
    """What a tag means. Its key in a category's table is the tag without the category's name, such as ``"Loss"``.

    The key may be a pattern with names in braces, for tags of each layer, block or prompt: ``"{layer}/Mean"``.
    """

    description: str  # what it is, its unit, how to read it; TensorBoard shows it next to the chart
    absent_when: str = ""  # why a run may lack it; empty for a tag that every run with the category has


@dataclass(frozen=True)
class CategoryContext:
    """What a category works with. None of it changes during a run."""

    config: Config
    view: TrainingView
    writer: Writer
    clock: LoggingClock
    run_folder: Path


class Category:
    """Base class: every hook does nothing. A category overrides those it needs.

    Hooks must not change the model, must not draw from a global random generator, and must leave out a metric that is
    unavailable instead of writing 0. Device tensors cross to the host only when something is due.
    """

    name: ClassVar[str]  # the TensorBoard group, such as "01_Training"
    cadence: ClassVar[str]  # for people: when its points appear
    tags: ClassVar[Mapping[str, Tag]]  # all that it may write
    makes_samples: ClassVar[bool] = False  # True: its time in `on_samples` is sampling, not ordinary logging

    def __init__(self, context: CategoryContext) -> None:
        self.config = context.config
        self.view = context.view
        self.writer = context.writer

    @staticmethod
    def is_enabled(config: Config) -> bool:
        """Return whether a run with these constants has the category."""
        return True

    @cached_property
    def layer_plan(self) -> LayerPlan:
        """The parts of the network that have tags of their own."""
        return plan_layers(self.view.model, self.config.PARAMETER_TRACKING_MAX_LAYERS)

    def before_step(self, step: int) -> None:
        """Called before optimizer step `step` starts, only when that step's diagnostics are due."""

    def on_start(self) -> None:
        """Called once before the first step of the process."""

    def on_step(self, record: StepRecord, due: Due) -> None:
        """Called after every optimizer step."""

    def on_samples(self, record: StepRecord) -> None:
        """Called every SAMPLE_EVERY_STEPS and at the last step, when all else of the step is logged."""

    def on_validation(self, record: ValidationRecord) -> None:
        """Called after every validation."""

    def on_epoch(self, record: EpochRecord) -> None:
        """Called at the end of every LOG_EVERY_EPOCHS-th epoch, and for the part of an epoch that ends a run."""

    def on_checkpoint(self, record: CheckpointRecord) -> None:
        """Called for every checkpoint that has reached the disk; later steps may have been done meanwhile."""

    def on_end(self) -> None:
        """Called once when the run ends, also when it is interrupted."""

    def close(self) -> None:
        """Release threads and the like."""

    def scalars(self, values: Mapping[str, float], step: int, /, **names: str | int) -> None:
        """Write `values`, by key of the category's table, at `step`; `names` fill the braces of patterns.

        Raises:
            KeyError: a key is missing from the table, or a name from `names`.
        """
        for key, value in values.items():
            self.write(self.writer.scalar, key, value, step, **names)

    def write(
        self,
        method: Callable[[str, Content, int, str], None],
        key: str,
        content: Content,
        step: int,
        /,
        **names: str | int,
    ) -> None:
        """Call a `method` of the writer (scalar, histogram, image, text) with the full tag and its description."""
        method(self.full_tag(key, **names), content, step, self.tags[key].description)

    def video(
        self, key: str, video_THWC: numpy.ndarray, step: int, frames_per_second: float, file_name: str | None = None
    ) -> None:
        """Write a clip (see `Writer.video`) with the full tag and its description."""
        meaning = self.tags[key].description
        self.writer.video(self.full_tag(key), video_THWC, step, frames_per_second, file_name, description=meaning)

    def full_tag(self, key: str, /, **names: str | int) -> str:
        """Return the tag as TensorBoard shows it, such as ``"01_Training/Loss"``."""
        return f"{self.name}/{key.format(**names)}"
