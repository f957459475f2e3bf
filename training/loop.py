"""The training loop: which of its parts is due when."""

import contextlib
import math
import time
from collections.abc import Callable, Generator
from dataclasses import replace

import torch
from torch import nn

from checkpoints.saver import LastSaveFailed, Saver, Saving
from common.errors import UserError
from common.interruption import Interrupted
from compute.memory import first_line, is_out_of_memory, out_of_memory_advice
from data.records import Batch
from distributed.processes import PEER_LOST, PeerLost, Processes, peer_lost
from distributed.rank_times import RankTimes
from logging_system.cadence import Cadence
from logging_system.dispatcher import RunLog
from logging_system.records import EpochRecord, StepRecord, ValidationRecord
from training.learning_rate import LearningRateSchedule
from training.optimizer import set_learning_rate
from training.progress import Position, ProgressBar, StartingPoint
from training.skipped import SkippedSteps, TooManySkippedSteps
from training.step import StepOutcome, TrainStep
from training.stopping import Ending, EndOfRun, StopRequest, ending_together
from training.validation import Validator


class TrainingLoop:
    """Runs steps until a limit or a signal ends them, and ends with a checkpoint of the last one."""

    def __init__(
        self,
        *,
        step: TrainStep,
        batches: Generator[Batch, None, None],
        steps_per_epoch: int,
        total_steps: int | None,
        end_of_run: EndOfRun,
        cadence: Cadence,
        schedule: LearningRateSchedule,
        optimizer: torch.optim.Optimizer,
        validator: Validator,
        ema_model: nn.Module,
        log: RunLog,
        processes: Processes,
        saver: Saver,
        skipped_steps: SkippedSteps,
        stop: StopRequest,
        start: StartingPoint,
        wait_for_device: Callable[[], None],
        makes_samples: bool,
    ) -> None:
        self._step = step
        self._batches = batches
        self._steps_per_epoch = steps_per_epoch
        self._total_steps = total_steps
        self._end_of_run = end_of_run
        self._cadence = cadence
        self._schedule = schedule
        self._optimizer = optimizer
        self._validator = validator
        self._ema_model = ema_model
        self._log = log
        self._processes = processes
        self._rank_times = RankTimes(processes)
        self._saver = saver
        self._skipped_steps = skipped_steps
        self._stop = stop
        self._start = start
        self._wait_for_device = wait_for_device
        self._makes_samples = makes_samples
        self._position = Position(start.step, start.samples_seen, start.validation_is_due, start.best_validation_loss)

    def run(self) -> int:
        """Train; return the exit code: 0 at a limit, 128 + signal number where a signal ended the run.

        Raises:
            UserError: MAX_SKIPPED_STEPS_IN_A_ROW steps were not finite, a clip can no longer be loaded, the memory is
                too small, or the last checkpoint cannot be written.
        """
        self._progress = ProgressBar(self._start.step, self._total_steps, is_shown=self._processes.is_main)
        self._saving = Saving(self._saver, self._progress.say, self._log.on_checkpoint)
        with contextlib.ExitStack() as opened:
            opened.callback(self._batches.close)
            opened.callback(lambda: self._log.close(lambda: self._stop.ending is not None))
            opened.callback(self._saver.close)
            opened.callback(self._progress.close)
            with ending_together(self._stop):
                self._log.on_start()
                self._processes.wait()
            try:
                ending = self._train()
            finally:  # also where the run is given up: then the closing verdict matters most
                self._log.on_end()
        if self._position.step:
            print(f"Stopped at step {self._position.step}: {ending.reason}.")
        else:
            print("Stopped before the first step, so there is nothing to go on from.")
        return ending.exit_code

    def _train(self) -> Ending:
        """Do steps until one is the last; return why it was."""
        self._position.epoch_started = time.perf_counter()
        ending = self._end_of_run.start(self._position.step)
        try:
            if ending is None and self._position.validation_is_due:
                self._catch_up_on_validation()
            while ending is None:
                ending = self._advance()
        except Interrupted:  # raised where nothing is half done
            ending = self._end_between_steps()
        except Exception as error:
            self._save_what_there_is(error)
            if isinstance(error, TooManySkippedSteps):
                raise UserError(f"{error} {self._saving.last_checkpoint()}") from error
            if is_out_of_memory(error):
                raise UserError(f"{out_of_memory_advice(error)} {self._saving.last_checkpoint()}") from error
            if peer_lost(error):
                raise PeerLost(f"{PEER_LOST} ({first_line(error)}). {self._saving.last_checkpoint()}") from error
            raise
        self._log.flush()
        if self._stop.ending is not None and not ending.is_interruption:
            return Ending(f"{ending.reason}; a signal cut the closing round short", self._stop.signal_number)
        return ending

    def _advance(self) -> Ending | None:
        """Do one step and all that is due with it; return why the run ends here if it does.

        Raises:
            Interrupted: a signal came before the step began.
        """
        record, ending = self._next_step()
        validation = self._validation_after(record)
        if ending is None:  # one that came while validating
            ending = self._end_of_run.between_steps()
            record = replace(record, is_interrupted=ending is not None)
        self._report(record, validation, is_ending=ending is not None)
        if record.step % self._steps_per_epoch == 0 or ending is not None:
            self._end_epoch(is_last=ending is not None)
        self._position.save_is_due |= record.step % self._cadence.save_every_steps == 0
        if ending is not None:
            self._finish_checkpoint()  # before the samples, which may take long, or fail
        elif self._position.save_is_due and not self._skipped_steps.end_in_one():
            self._log.flush()  # no checkpoint is ahead of its curves
            self._saving.begin(self._position.progress(self._skipped_steps.total()))
            self._position.save_is_due = False
        self._make_samples(record)
        self._saving.report()
        if ending is None and self._end_of_run.between_steps() is not None:  # it came while sampling or saving
            ending = self._end_between_steps()
        return ending

    def _end_between_steps(self) -> Ending:
        """End the run for a signal that came when the last step was logged already."""
        ending = self._stop.ending
        assert ending is not None
        if self._position.epoch_steps:
            self._end_epoch(is_last=True)
        self._finish_checkpoint()
        return ending

    def _next_step(self) -> tuple[StepRecord, Ending | None]:
        """Do one step; return it, and why the run ends with it if it does."""
        position = self._position
        wait_started = time.perf_counter()
        batch = self._next_batch()
        data_seconds = time.perf_counter() - wait_started
        step = position.step + 1
        rate = self._schedule.rate_for(step)
        set_learning_rate(self._optimizer, rate)
        is_first = step == self._start.step + 1
        self._log.before_step(step, is_first=is_first, is_last=step == self._total_steps)
        step_started = time.perf_counter()
        outcome = self._step.run(step, batch, self._end_of_run.request())
        position.count_step(self._clips_in_step(batch), rate)
        ending = self._end_of_run.after(step, outcome.request)
        ends_epoch = step % self._steps_per_epoch == 0
        if is_first or ends_epoch or ending is not None or self._cadence.needs_results(step):
            # A GPU is behind the host by now. What it still has to do belongs to the steps since the last look, and not
            # to the logging, validation or saving that would otherwise wait for it.
            self._wait_for_device()
        seconds = data_seconds + time.perf_counter() - step_started
        self._rank_times.add(data_seconds, outcome.own_work)
        self._skipped_steps.add(step, batch, outcome.skipped, outcome.fault)
        return self._record(batch, outcome, rate, data_seconds, seconds, ending), ending

    def _given_up_at_a_signal(self) -> contextlib.AbstractContextManager[None]:
        """Return the context for what is given up when a signal comes; not by one of several, who wait for it."""
        return contextlib.nullcontext() if self._processes.are_several else self._stop.interruptible()

    def _next_batch(self) -> Batch:
        try:
            with self._given_up_at_a_signal():
                return next(self._batches)
        except RuntimeError as error:
            if str(error).startswith("DataLoader worker"):  # PyTorch's words for one that is gone
                raise UserError(f"a loader worker died: {error}. Lower NUM_WORKERS if memory ran out.") from error
            raise

    def _record(
        self,
        batch: Batch,
        outcome: StepOutcome,
        rate: float,
        data_seconds: float,
        seconds: float,
        ending: Ending | None,
    ) -> StepRecord:
        clips, frames = self._clips_in_step(batch), batch.video_BCTHW.shape[2]
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
            overflowed=outcome.overflowed,
            learning_rates={str(group["name"]): rate for group in self._optimizer.param_groups},
            samples=outcome.samples,
            tensors=outcome.tensors,
            data_seconds=data_seconds,
            step_seconds=seconds,
            rank_seconds=self._rank_times.compare() if self._is_reported(is_ending=ending is not None) else (),
            loss_scale=outcome.loss_scale,
        )

    def _clips_in_step(self, batch: Batch) -> int:
        """Return how many clips all processes together do in one step."""
        return self._processes.part.world_size * batch.video_BCTHW.shape[0]

    def _is_reported(self, *, is_ending: bool) -> bool:
        return is_ending or self._position.step % self._cadence.log_every_steps == 0

    def _report(self, record: StepRecord, validation: ValidationRecord | None, *, is_ending: bool) -> None:
        self._progress.advance()
        if self._is_reported(is_ending=is_ending):  # looking at the loss waits for the device
            self._progress.show(record.loss.item(), next(iter(record.learning_rates.values())))
        if self._skipped_steps.are_too_many:
            record = replace(record, is_interrupted=True)
        self._log.on_step(record)
        if validation is not None:
            self._log.on_validation(validation)
        self._skipped_steps.check()  # after the step is logged: the verdict on a run that is given up needs it

    def _make_samples(self, record: StepRecord) -> None:
        if not self._log.samples_are_due(record):
            return
        if self._makes_samples:
            self._progress.say(f"Step {record.step}: making sample videos ...")
        self._log.on_samples(record)
        self._processes.wait()  # for the main one, which alone makes them

    def _validation_after(self, record: StepRecord) -> ValidationRecord | None:
        """Validate if it is the time to; None if it is not, or a signal came meanwhile."""
        on_cadence = record.step % self._cadence.validate_every_steps == 0
        if not on_cadence and not record.is_last:
            return None
        self._position.validation_is_due = on_cadence  # a resumed run makes up for it where a signal comes first
        try:
            return self._validate(record.step, on_cadence)
        except Interrupted:
            return None

    def _catch_up_on_validation(self) -> None:
        validation = self._validate(self._position.step, on_cadence=True)
        self._log.on_validation(validation)

    def _validate(self, step: int, on_cadence: bool) -> ValidationRecord:
        with self._given_up_at_a_signal():
            record = self._validator.run(step, self._ema_model, self._position.best_validation_loss)
        self._position.validation_is_due = False
        self._position.validation = record
        if on_cadence:  # the closing one depends on where a run was stopped, and must not change a resumed run
            self._schedule.on_validation(record.loss)
            self._position.best_validation_loss = record.best_loss if math.isfinite(record.best_loss) else None
        line = f"Step {step}: validation loss {record.loss:.4f}; without caption {record.loss_null - record.loss:+.4f}"
        if record.loss_shuffled is not None:
            line += f", with another clip's caption {record.loss_shuffled - record.loss:+.4f}"
        if record.gap_shuffled_interval is not None:
            low, high = record.gap_shuffled_interval
            line += f" (95 % interval {low:+.4f} to {high:+.4f})"
        if record.trained_loss is not None and record.trained_loss_shuffled is not None:
            line += f"; of training clips {record.trained_loss_shuffled - record.trained_loss:+.4f}"
        self._progress.say(line)
        return record

    def _end_epoch(self, *, is_last: bool) -> None:
        position, now = self._position, time.perf_counter()
        epoch_record = EpochRecord(
            epoch=(position.step - 1) // self._steps_per_epoch + 1,
            step=position.step,
            optimizer_steps=position.epoch_steps,
            clips=position.epoch_clips,
            seconds=now - position.epoch_started,
            learning_rate=position.learning_rate,
            is_partial=position.step % self._steps_per_epoch != 0,
            is_last=is_last,
        )
        self._log.on_epoch(epoch_record)
        position.start_epoch(now)

    def _finish_checkpoint(self) -> None:
        self._log.flush()
        self._saving.finish(self._position.progress(self._skipped_steps.total()))

    def _save_what_there_is(self, error: Exception) -> None:
        """Before the run is given up: save the steps since the last checkpoint, where the weights are to be trusted."""
        try:
            self._saving.settle()
            if not isinstance(error, TooManySkippedSteps | LastSaveFailed) and not self._step.is_updating:
                self._finish_checkpoint()
        except Exception as second:  # noqa: BLE001  the first error is the one to report
            self._progress.say(f"warning: nor could a checkpoint be made: {second}")
