"""Passes every record to the enabled categories, when it is due, and keeps their faults from training."""

import math
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from common.console import counted
from common.interruption import Interrupted
from config import Config
from logging_system.cadence import SECONDS_UNTIL_SEEN, Cadence, Due, LoggingClock
from logging_system.categories import CATEGORIES
from logging_system.categories.c05_performance import Performance
from logging_system.category import Category, CategoryContext
from logging_system.files.rewind import rewind
from logging_system.files.writer import Writer, report_on_console
from logging_system.records import CheckpointRecord, EpochRecord, StepRecord, TrainingView, ValidationRecord

ERROR_FILE = "logging_errors.log"


class WeightCopies(Protocol):
    """Copies of a divided model, which all processes fill together for the main one to look at."""

    def of_model(self, *, with_gradients: bool = False) -> AbstractContextManager[None]: ...
    def of_both(self) -> AbstractContextManager[None]: ...


class RunLog:
    """What the training loop tells, on every process. This base class has no categories, and so writes nothing.

    All processes but the main one use it as it is: they know when the main one is busy with samples, and help to fill
    the copies of a divided model.

    Args:
        cadence: when something is due.
        copies: filled while the categories look at weights; None where the model is not divided.
    """

    def __init__(self, cadence: Cadence, copies: WeightCopies | None = None) -> None:
        self.cadence = cadence
        self._copies = copies

    def on_start(self) -> None:
        """Call once before the first step; what is known then reaches the files at once."""
        with self._weights():
            self._each("on_start", lambda category: category.on_start())
        self.flush()

    def before_step(self, step: int, *, is_first: bool, is_last: bool) -> None:
        """Call before optimizer step ``step`` starts; ``is_last`` as far as it is known by then."""
        if self.cadence.due(step, is_first=is_first, is_last=is_last).diagnostics:
            with self._weights():
                self._each("before_step", lambda category: category.before_step(step))

    def early_point_is_due(self) -> bool:
        """Return whether the step that is being done is to be told as `StepRecord.is_early_point`."""
        return False

    def on_step(self, record: StepRecord) -> None:
        """Call after every optimizer step."""
        due = self.cadence.due(record.step, is_first=record.is_first, is_last=record.is_last)
        if record.is_interrupted:
            due = Due(scalars=True, diagnostics=False)
        with self._weights(with_gradients=True) if due.diagnostics else nullcontext():
            self._each("on_step", lambda category: category.on_step(record, due))

    def samples_are_due(self, record: StepRecord) -> bool:
        """Return whether `on_samples` is to be called for this step."""
        return not record.is_interrupted and self.cadence.samples_due(record.step, is_last=record.is_last)

    def on_samples(self, record: StepRecord) -> None:
        """Call after the rest of a step's logging, and its checkpoint: making videos takes long."""
        with nullcontext() if self._copies is None else self._copies.of_both():
            self._each("on_samples", lambda category: category.on_samples(record))

    def on_validation(self, record: ValidationRecord) -> None:
        """Call after every validation."""
        self._each("on_validation", lambda category: category.on_validation(record))

    def on_epoch(self, record: EpochRecord) -> None:
        """Call at the end of every epoch, and for the part of one at which a run stops."""
        if self.cadence.epoch_due(record.epoch, is_last=record.is_last):
            with self._weights():
                self._each("on_epoch", lambda category: category.on_epoch(record))

    def on_checkpoint(self, record: CheckpointRecord) -> None:
        """Call when a checkpoint has reached the disk."""
        self._each("on_checkpoint", lambda category: category.on_checkpoint(record))

    def on_end(self) -> None:
        """Call once when the run ends, also when it is interrupted."""
        self._each("on_end", lambda category: category.on_end())
        self.flush()

    def flush(self) -> None:
        """Bring what was logged to the files. Call at checkpoints and signals."""

    def close(self, is_hurried: Callable[[], bool] = lambda: False) -> None:
        """Stop the categories' threads, finish the videos and close the files. May be called twice.

        `is_hurried` says, also meanwhile, that nobody waits for videos that take longer than a moment.
        """

    def _weights(self, *, with_gradients: bool = False) -> AbstractContextManager[None]:
        return nullcontext() if self._copies is None else self._copies.of_model(with_gradients=with_gradients)

    def _each(self, hook: str, call: Callable[[Category], None]) -> None:
        """Call a hook of all categories."""


class Dispatcher(RunLog):
    """The log of the main process. No method raises because of a category, the disk or an encoder.

    A category that raises is reported once for each of its hooks on the console, with the traceback in
    ``logging_errors.log``; it is called again next time, for the cause may pass.

    Of ``categories``, those that ``config`` enables are built; ``report`` takes one line for the console.
    """

    def __init__(
        self,
        categories: Sequence[type[Category]],
        *,
        config: Config,
        run_folder: Path,
        view: TrainingView,
        writer: Writer,
        copies: WeightCopies | None = None,
        report: Callable[[str], None] = report_on_console,
    ) -> None:
        super().__init__(Cadence.from_config(config), copies)
        self.clock = LoggingClock()
        self._run_folder = run_folder
        self._writer = writer
        self._report = report
        self._failures: Counter[tuple[str, str]] = Counter()
        self._shows_failures = config.ENABLE_PERFORMANCE_PROFILING
        self._last_step = self._last_counted_step = 0
        self._next_early_point = -math.inf  # by `time.monotonic`, as is the next one
        self._next_flush = time.monotonic() + SECONDS_UNTIL_SEEN
        self._categories: list[Category] = []
        context = CategoryContext(config, view, writer, self.clock, run_folder)
        for category in categories:
            if category.is_enabled(config):
                try:
                    self._categories.append(category(context))
                except Exception as error:  # noqa: BLE001  a category must not keep a run from starting
                    self._note_failure(category.name, "build", error)

    @property
    def failures(self) -> Mapping[tuple[str, str], int]:
        """How often each (category, hook) raised."""
        return MappingProxyType(dict(self._failures))

    def early_point_is_due(self) -> bool:
        return time.monotonic() >= self._next_early_point

    def on_step(self, record: StepRecord) -> None:
        super().on_step(record)
        is_first, is_last = record.is_first, record.is_last
        self._last_step = record.step
        due = self.cadence.due(record.step, is_first=is_first, is_last=is_last)
        if due.scalars and not is_last and not record.is_interrupted:
            self._write_counters(record.step)
        if due.scalars:  # from now on, LOG_EVERY_STEPS decides alone
            self._next_early_point = math.inf
        elif record.is_early_point:
            self._next_early_point = time.monotonic() + SECONDS_UNTIL_SEEN
        is_time = time.monotonic() >= self._next_flush
        if is_time or self.cadence.flush_due(record.step, is_first=is_first, is_last=is_last):
            self.flush()

    def on_epoch(self, record: EpochRecord) -> None:
        if self.cadence.epoch_due(record.epoch, is_last=record.is_last):
            self._writer.mark_epoch(record.step, is_partial=record.is_partial)
        super().on_epoch(record)

    def flush(self) -> None:
        with self.clock.measure():
            self._writer.flush()
        self._next_flush = time.monotonic() + SECONDS_UNTIL_SEEN

    def close(self, is_hurried: Callable[[], bool] = lambda: False) -> None:
        self._each("close", lambda category: category.close())
        with self.clock.measure(sampling=True):  # waits for videos above all
            self._writer.finish_videos(is_hurried)
            # A tag gets one point a step, and the last step's counts what its videos and the end of the run did.
            if self._last_step > self._last_counted_step:
                self._write_counters(self._last_step)
            self._writer.close()

    def _each(self, hook: str, call: Callable[[Category], None]) -> None:
        for category in self._categories:
            try:
                with self.clock.measure(sampling=hook == "on_samples" and category.makes_samples):
                    call(category)
            except Interrupted:  # a signal came while samples were made; the training loop sees it next
                continue
            except Exception as error:  # noqa: BLE001  whatever a category does must not end training
                self._note_failure(category.name, hook, error)

    def _note_failure(self, name: str, hook: str, error: Exception) -> None:
        self._failures[name, hook] += 1
        if self._failures[name, hook] > 1:
            return
        self._report(
            f"Logging: {name} failed in {hook} ({type(error).__name__}: {error}). Training goes on; the traceback is "
            f"in {self._run_folder / ERROR_FILE}. (Reported once.)"
        )
        try:
            with open(self._run_folder / ERROR_FILE, "a", encoding="utf-8") as file:
                file.write(f"{name} in {hook}\n{''.join(traceback.format_exception(error))}\n")
        except OSError as disk_error:
            self._report(f"Logging: {ERROR_FILE} could not be written ({disk_error}).")

    def _write_counters(self, step: int) -> None:
        failures = sum(self._failures.values()) + sum(self._writer.failures.values())
        self._last_counted_step = step
        for key, count in (("Logging_Failures", failures), ("Dropped_Videos", self._writer.dropped_videos)):
            if count and self._shows_failures:
                self._writer.scalar(f"{Performance.name}/{key}", count, step, Performance.tags[key].description)


def build_dispatcher(
    config: Config, run_folder: Path, view: TrainingView, start_step: int, copies: WeightCopies | None
) -> Dispatcher:
    """Return the log of a run's main process, with all of the fifteen categories that ``config`` enables.

    Whatever an earlier launch logged beyond ``start_step``, which is 0 or the step of the checkpoint that the run
    resumes from, is taken back first (see ``files/rewind.py``). ``run_folder`` is created if need be.
    """
    run_folder.mkdir(parents=True, exist_ok=True)
    first_new_step = start_step + 1 if start_step else 0
    try:
        rewound = rewind(run_folder, first_new_step)
        if rewound.lines:
            report_on_console(
                f"Logging: {counted(rewound.lines, 'point')} of unfinished epochs, openings and steps after "
                f"{start_step} will be written anew; {rewound.backup_folder} keeps the old ones."
            )
    except OSError as error:
        report_on_console(f"Logging: old points beyond step {start_step} could not be taken back ({error}).")
    writer = Writer(run_folder, first_new_step=first_new_step)
    return Dispatcher(CATEGORIES, config=config, run_folder=run_folder, view=view, writer=writer, copies=copies)
