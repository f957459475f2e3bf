"""Passes every record to the categories that are enabled, when it is due, and keeps their faults from training."""

import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from common.interruption import Interrupted
from logging_system.cadence import Cadence, LoggingSettings, cadence_of
from logging_system.category import Category, Due
from logging_system.clock import LoggingClock
from logging_system.console import report as report_on_console
from logging_system.files.rewind import rewind
from logging_system.files.writer import Writer
from logging_system.records import CheckpointRecord, EpochRecord, StepRecord, ValidationRecord
from logging_system.registry import CATEGORIES, CategoryContext, CategorySpec
from logging_system.view import TrainingView

ERROR_FILE = "logging_errors.log"
FAILURES_TAG = "05_Performance/Logging_Failures"
DROPPED_TAG = "05_Performance/Dropped_Videos"
DROPPED_DESCRIPTION = (
    "Videos of this launch that are missing because they came faster than they could be encoded. Count; absent while "
    "it is 0."
)
FAILURES_DESCRIPTION = (
    "How often a category raised an error or a file or video could not be written, since this process started. "
    f"Count; absent while it is 0. {ERROR_FILE} in the run folder holds the details."
)


class Dispatcher:
    """The trainer's only contact with logging. No method raises because of a category, the disk or an encoder.

    A category that raises is reported once for each of its hooks on the console, with the traceback in
    ``logging_errors.log``; it is called again next time, for the cause may pass.

    Args:
        specifications: the table of categories; only those that ``settings`` enables are built.
        settings: the logging constants.
        run_folder: where the run lives.
        writer: gets the points.
        report: takes one line for the console.
    """

    def __init__(
        self,
        specifications: Sequence[CategorySpec],
        *,
        settings: LoggingSettings,
        run_folder: Path,
        writer: Writer,
        report: Callable[[str], None] = report_on_console,
    ) -> None:
        self.clock = LoggingClock()
        self._cadence: Cadence = cadence_of(settings)
        self._run_folder = run_folder
        self._writer = writer
        self._report = report
        self._failures: Counter[tuple[str, str]] = Counter()
        self._shows_failures = settings.enable_performance_profiling
        self._last_step = self._last_counted_step = 0
        self._categories: list[tuple[CategorySpec, Category]] = []
        context = CategoryContext(settings, self.clock, run_folder)
        for specification in specifications:
            if specification.is_enabled(settings):
                self._build(specification, context)

    @property
    def failures(self) -> Mapping[tuple[str, str], int]:
        """How often each (category, hook) raised."""
        return MappingProxyType(dict(self._failures))

    def before_step(self, step: int, view: TrainingView, *, is_first: bool, is_last: bool) -> None:
        """Call before optimizer step ``step`` starts; ``is_last`` as far as it is known by then."""
        due = self._cadence.due(step, is_first=is_first, is_last=is_last)
        if due.diagnostics:
            self._each("before_step", lambda category: category.before_step(step, due, view))

    def on_start(self, view: TrainingView) -> None:
        """Call once before the first step; what is known then reaches the files at once."""
        self._each("on_start", lambda category: category.on_start(view, self._writer))
        self.flush()

    def on_step(self, record: StepRecord, view: TrainingView) -> None:
        """Call after every optimizer step."""
        due = self._cadence.due(record.step, is_first=record.is_first, is_last=record.is_last)
        if record.is_interrupted:
            due = Due(scalars=True, diagnostics=False)
        self._each("on_step", lambda category: category.on_step(record, due, view, self._writer))
        self._last_step = record.step
        if due.scalars and not record.is_last and not record.is_interrupted:
            self._write_counters(record.step)
        if self._cadence.flush_due(record.step, is_first=record.is_first, is_last=record.is_last):
            self.flush()

    def samples_are_due(self, record: StepRecord) -> bool:
        """Say whether `on_samples` is to be called for this step."""
        return not record.is_interrupted and self._cadence.samples_due(record.step, is_last=record.is_last)

    def on_samples(self, record: StepRecord, view: TrainingView) -> None:
        """Call after the rest of a step's logging, and its checkpoint: making videos takes long."""
        self._each("on_samples", lambda category: category.on_samples(record, view, self._writer), samples=True)

    def on_validation(self, record: ValidationRecord, view: TrainingView) -> None:
        """Call after every validation."""
        self._each("on_validation", lambda category: category.on_validation(record, view, self._writer))

    def on_epoch(self, record: EpochRecord, view: TrainingView) -> None:
        """Call at the end of every epoch, and for the part of one at which a run stops."""
        if self._cadence.epoch_due(record.epoch, is_last=record.is_last):
            self._writer.mark_epoch(record.step, is_partial=record.is_partial)
            self._each("on_epoch", lambda category: category.on_epoch(record, view, self._writer))

    def on_checkpoint(self, record: CheckpointRecord, view: TrainingView) -> None:
        """Call when a checkpoint has reached the disk."""
        self._each("on_checkpoint", lambda category: category.on_checkpoint(record, view, self._writer))

    def on_end(self, view: TrainingView) -> None:
        """Call once when the run ends, also when it is interrupted."""
        self._each("on_end", lambda category: category.on_end(view, self._writer))
        self.flush()

    def flush(self) -> None:
        """Bring what was logged to the files: the trainer calls this at checkpoints and signals."""
        with self.clock.measure():
            self._writer.flush()

    def close(self, is_hurried: Callable[[], bool] = lambda: False) -> None:
        """Stop the categories' threads, finish the videos and close the files. May be called twice.

        Args:
            is_hurried: says, also meanwhile, that nobody waits for videos that take longer than a moment.
        """
        self._each("close", lambda category: category.close())
        with self.clock.measure(sampling=True):  # waits for videos above all
            self._writer.finish_videos(is_hurried)
            # A tag gets one point a step, and the last step's counts what its videos and the end of the run did.
            if self._last_step > self._last_counted_step:
                self._write_counters(self._last_step)
            self._writer.close()

    def _build(self, specification: CategorySpec, context: CategoryContext) -> None:
        try:
            self._categories.append((specification, specification.build(context)))
        except Exception as error:  # noqa: BLE001  a category must not keep a run from starting
            self._note_failure(specification.name, "build", error)

    def _each(self, hook: str, call: Callable[[Category], None], *, samples: bool = False) -> None:
        for specification, category in self._categories:
            try:
                with self.clock.measure(sampling=samples and specification.makes_samples):
                    call(category)
            except Interrupted:  # a signal came while samples were made; the training loop sees it next
                continue
            except Exception as error:  # noqa: BLE001  whatever a category does must not end training
                self._note_failure(specification.name, hook, error)

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
        count = sum(self._failures.values()) + sum(self._writer.failures.values())
        self._last_counted_step = step
        if count and self._shows_failures:
            self._writer.scalar(FAILURES_TAG, count, step, FAILURES_DESCRIPTION)
        if self._writer.dropped_videos and self._shows_failures:
            self._writer.scalar(DROPPED_TAG, self._writer.dropped_videos, step, DROPPED_DESCRIPTION)


def build_dispatcher(*, run_folder: Path, settings: LoggingSettings, start_step: int) -> Dispatcher:
    """Return the logging system of a run, with all fifteen categories that ``settings`` enables.

    Whatever an earlier launch logged beyond ``start_step`` is taken back first (see ``event_files.rewind``).

    Args:
        run_folder: created if need be.
        settings: the logging constants.
        start_step: 0, or the step of the checkpoint that the run resumes from.
    """
    run_folder.mkdir(parents=True, exist_ok=True)
    first_new_step = start_step + 1 if start_step else 0
    try:
        rewound = rewind(run_folder, first_new_step)
        if rewound.lines:
            report_on_console(
                f"Logging: {rewound.lines} points that will be written anew after step {start_step} were taken out; "
                f"{rewound.backup_folder} keeps them."
            )
    except OSError as error:
        report_on_console(f"Logging: old points beyond step {start_step} could not be taken back ({error}).")
    writer = Writer(run_folder, first_new_step=first_new_step)
    return Dispatcher(CATEGORIES, settings=settings, run_folder=run_folder, writer=writer)
