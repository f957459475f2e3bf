"""What the table of categories says about each category."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from logging_system.category import Category
from logging_system.clock import LoggingClock
from logging_system.settings import LoggingSettings
from logging_system.tags import Tag


@dataclass(frozen=True)
class CategoryContext:
    """What a category may be built from."""

    settings: LoggingSettings
    clock: LoggingClock
    run_folder: Path


@dataclass(frozen=True)
class CategorySpec:
    """One row of the table: the category's name, its switch, its cadence and every tag it may write.

    ``tags`` maps each tag, or pattern of tags, to its description (see :mod:`logging_system.tags`).
    """

    name: str  # the TensorBoard group, such as "01_Training"
    build: Callable[[CategoryContext], Category]
    is_enabled: Callable[[LoggingSettings], bool] = lambda settings: True
    makes_samples: bool = False  # True: its time at sampling steps is sampling, not ordinary logging
    cadence: str = ""  # for people: when its points appear
    tags: Mapping[str, Tag] = field(default_factory=dict)
