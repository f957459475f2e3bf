"""The training loop: which of its parts is due when."""

import contextlib
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from common.errors import UserError
from data.records import Batch
from logging_system.dispatcher import Dispatcher
from logging_system.records import EpochRecord, StepRecord, ValidationRecord
from training.ending import Ending
from training.learning_rate import LearningRateSchedule
from training.optimizer import set_learning_rate
from training.progress import ProgressBar, StartingPoint, StoppingLimits
from training.signals import StopRequest
from training.step import StepOutcome, TrainStep
from training.validation import Validator
from training.view import TrainerView


@dataclass(frozen=True)
class LoopCadence:
    """Every how many optimizer steps, each at least 1; all but `report_every` also happen at the last step."""

    validate_every: int
    save_every: int
    report_every: int
    sample_every: int
    diagnose_every: int

    def looks_at(self, step: int) -> bool:
        """Say whether something after this step asks the device for a result, and would wait for it."""
        return any(step % every == 0 for every in vars(self).values())


Save = Callable[[int, int, int, float | None], Path]
"""(step, samples seen, skipped steps, best validation loss) to the folder of the checkpoint written."""


class TrainingLoop:
    """Runs steps until a limit or a signal ends them, and always ends with a checkpoint."""

    def __init__(
        self,
        *,
        step: TrainStep,
        batches: Generator[Batch, None, None],
        steps_per_epoch: int,
        limits: StoppingLimits,
        cadence: LoopCadence,
        schedule: LearningRateSchedule,
        optimizer: torch.optim.AdamW,
        validator: Validator,
        dispatcher: Dispatcher,
        view: TrainerView,
        save: Save,
        start: StartingPoint,
        wait_for_device: Callable[[], None],
        max_skipped_in_a_row: int,
        makes_samples: bool,
    ) -> None:
        self._step = step
        self._batches = batches
        self._steps_per_epoch = steps_per_epoch
        self._limits = limits
        self._cadence = cadence
        self._schedule = schedule
        self._optimizer = optimizer
        self._validator = validator
        self._dispatcher = dispatcher
        self._view = view
        self._save = save
        self._start = start
        self._wait_for_device = wait_for_device
        self._makes_samples = makes_samples
        self._position = _Position(start.step, start.samples_seen)
        self._skips = _SkipCounter(start.skipped_steps, max_skipped_in_a_row)

    def run(self) -> int:
        """Train; return the exit code: 0 at a limit, 128 + signal number where a signal ended the run.

        Raises:
            UserError: MAX_SKIPPED_STEPS_IN_A_ROW steps were not finite, a clip can no longer be loaded, or the last
                checkpoint cannot be written.
        """
        self._progress = ProgressBar(self._start.step, self._limits.total_steps)
        with StopRequest() as stop, contextlib.closing(self._batches), contextlib.closing(self._dispatcher):
            try:
                self._dispatcher.on_start(self._view)
                try:
                    ending = self._train(stop)
                finally:  # also where the run is given up: then the closing verdict matters most
                    self._dispatcher.on_end(self._view)
            finally:
                self._progress.close()
        print(f"Stopped at step {self._position.step}: {ending.reason}.")
        return ending.exit_code

    def _train(self, stop: StopRequest) -> Ending:
        """Do steps until one is the last; return why it was."""
        started = self._position.epoch_started = time.perf_counter()
        ending = self._limits.reached(self._position.step, started)
        while ending is None:
            record, ending = self._next_step(started, stop)
            on_cadence = record.step % self._cadence.validate_every == 0
            validation = self._validate(record.step, on_cadence) if on_cadence or record.is_last else None
            if ending is not None:
                self._checkpoint(final=True)  # durable first: the closing round may take long, or fail
            self._log(record, validation, is_ending=ending is not None)
            if record.step % self._steps_per_epoch == 0 or ending is not None:
                self._end_epoch(record, is_last=ending is not None)
            if ending is None and record.step % self._cadence.save_every == 0:
                self._checkpoint(final=False)
            if ending is None and stop.ending is not None:  # it came while validating, sampling or saving
                ending = stop.ending
                self._checkpoint(final=True)
        self._dispatcher.flush()
        return ending

    def _next_step(self, started: float, stop: StopRequest) -> tuple[StepRecord, Ending | None]:
        """Do one step; return it, and why the run ends with it if it does."""
        position = self._position
        wait_started = time.perf_counter()
        batch = self._next_batch()
        data_seconds = time.perf_counter() - wait_started
        position.step += 1
        rate = self._schedule.rate_for(position.step)
        set_learning_rate(self._optimizer, rate)
        is_first = position.step == self._start.step + 1
        self._dispatcher.before_step(
            position.step, self._view, is_first=is_first, is_last=position.step == self._limits.total_steps
        )
        step_started = time.perf_counter()
        outcome = self._step.run(position.step, batch)
        ending = stop.ending or self._limits.reached(position.step, started)
        ends_epoch = position.step % self._steps_per_epoch == 0
        if is_first or ends_epoch or ending is not None or self._cadence.looks_at(position.step):
            # A GPU is behind the host by now. What it still has to do belongs to the steps since the last look, and not
            # to the logging, validation or saving that would otherwise wait for it.
            self._wait_for_device()
        seconds = data_seconds + time.perf_counter() - step_started
        self._skips.add(outcome.skipped)
        position.count(batch.video_BCTHW.shape[0])
        return self._record(batch, outcome, rate, data_seconds, seconds, ending), ending

    def _next_batch(self) -> Batch:
        try:
            return next(self._batches)
        except (UserError, RuntimeError) as error:
            if self._position.step > self._start.step:
                self._checkpoint(final=False)
            if isinstance(error, UserError):
                raise
            raise UserError(f"a loader worker died: {error}. Lower NUM_WORKERS if memory ran out.") from error

    def _record(
        self,
        batch: Batch,
        outcome: StepOutcome,
        rate: float,
        data_seconds: float,
        seconds: float,
        ending: Ending | None,
    ) -> StepRecord:
        clips, _, frames = batch.video_BCTHW.shape[:3]
        return StepRecord(
            step=self._position.step,
            is_first=self._position.step == self._start.step + 1,
            is_last=ending is not None and not ending.is_interruption,
            is_interrupted=ending is not None and ending.is_interruption,
            epoch=batch.epoch,
            clips_in_step=clips,
            frames_in_step=clips * frames,
            samples_seen=self._position.samples_seen,
            loss=outcome.loss,
            gradient_norm=outcome.gradient_norm,
            gradient_norm_clipped=outcome.gradient_norm_clipped,
            skipped=outcome.skipped,
            learning_rates={str(group["name"]): rate for group in self._optimizer.param_groups},
            samples=outcome.samples,
            tensors=outcome.tensors,
            data_seconds=data_seconds,
            step_seconds=seconds,
            clip_ids=batch.ids,
        )

    def _log(self, record: StepRecord, validation: ValidationRecord | None, *, is_ending: bool) -> None:
        self._progress.advance()
        reports = is_ending or record.step % self._cadence.report_every == 0
        if reports:  # looking at the loss waits for the device
            self._progress.show(record.loss.item(), next(iter(record.learning_rates.values())))
        samples_due = record.is_last or (record.step % self._cadence.sample_every == 0 and not record.is_interrupted)
        if self._makes_samples and samples_due:
            self._progress.say(f"Step {record.step}: making sample videos ...")
        self._dispatcher.on_step(record, self._view)
        if reports:
            self._skips.check(record.step)  # after the step is logged: the verdict on a run that is given up needs it
        if validation is not None:
            self._dispatcher.on_validation(validation, self._view)

    def _validate(self, step: int, on_cadence: bool) -> ValidationRecord:
        record = self._validator.run(step, self._view.ema_model)
        if on_cadence:  # the closing one depends on where a run was stopped, and must not change a resumed run
            self._schedule.on_validation(record.loss)
        line = f"Step {step}: validation loss {record.loss:.4f}; without caption {record.loss_null - record.loss:+.4f}"
        if record.loss_shuffled is not None:
            line += f", with another clip's caption {record.loss_shuffled - record.loss:+.4f}"
        if record.gap_shuffled_interval is not None:
            low, high = record.gap_shuffled_interval
            line += f" (95 % interval {low:+.4f} to {high:+.4f})"
        self._progress.say(line)
        return record

    def _end_epoch(self, record: StepRecord, *, is_last: bool) -> None:
        position, now = self._position, time.perf_counter()
        epoch_record = EpochRecord(
            epoch=(record.step - 1) // self._steps_per_epoch + 1,
            step=record.step,
            optimizer_steps=position.epoch_steps,
            clips=position.epoch_clips,
            seconds=now - position.epoch_started,
            learning_rate=next(iter(record.learning_rates.values())),
            is_partial=record.step % self._steps_per_epoch != 0,
            is_last=is_last,
        )
        self._dispatcher.on_epoch(epoch_record, self._view)
        position.epoch_steps, position.epoch_clips, position.epoch_started = 0, 0, now

    def _checkpoint(self, *, final: bool) -> None:
        position = self._position
        try:
            folder = self._save(position.step, position.samples_seen, self._skips.total(), self._validator.best_loss)
        except OSError as error:
            message = f"the checkpoint of step {position.step} cannot be written: {error}; earlier ones are intact"
            if final:
                raise UserError(message) from error
            self._progress.say(f"warning: {message}; training goes on")
            return
        self._dispatcher.flush()
        self._progress.say(f"Step {position.step}: checkpoint {folder}")


@dataclass
class _Position:
    """How far the run is, and how far its current epoch within this process."""

    step: int
    samples_seen: int
    epoch_steps: int = 0
    epoch_clips: int = 0
    epoch_started: float = 0.0

    def count(self, clips: int) -> None:
        self.samples_seen += clips
        self.epoch_clips += clips
        self.epoch_steps += 1


class _SkipCounter:
    """Counts skipped steps on the device; the host looks only when asked."""

    def __init__(self, already_skipped: int, limit_in_a_row: int) -> None:
        self._already_skipped = already_skipped
        self._limit = limit_in_a_row
        self._skipped: Tensor | None = None
        self._in_a_row: Tensor | None = None

    def add(self, skipped: Tensor) -> None:
        one = skipped.to(torch.int32)
        self._skipped = one if self._skipped is None else self._skipped + one
        self._in_a_row = one if self._in_a_row is None else (self._in_a_row + 1) * one

    def total(self) -> int:
        return self._already_skipped + (0 if self._skipped is None else int(self._skipped.item()))

    def check(self, step: int) -> None:
        in_a_row = 0 if self._in_a_row is None else int(self._in_a_row.item())
        if in_a_row >= self._limit:
            raise UserError(
                f"the loss or its gradient was not finite in the last {in_a_row} steps up to step {step} "
                f"(MAX_SKIPPED_STEPS_IN_A_ROW is {self._limit}). They changed no weight, and the last checkpoint is "
                f"intact. Lower LEARNING_RATE, or look for broken clips."
            )
