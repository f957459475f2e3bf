"""The training loop: does steps, and everything that is due between them."""

import contextlib
import itertools
import math
import time
from collections.abc import Generator
from dataclasses import dataclass, field, fields, replace

from checkpoints.checkpoint import RunState
from checkpoints.saver import LastSaveFailed, Saver
from common.errors import UserError
from common.interruption import Interrupted
from compute.memory import first_line, is_out_of_memory, out_of_memory_advice
from data.batches import BatchOrder
from data.records import Batch
from distributed.processes import PEER_LOST, PeerLost, peer_lost
from distributed.rank_times import RankTimes
from logging_system.dispatcher import RunLog
from logging_system.records import EpochRecord, StepRecord, StepResult, ValidationRecord
from training.announce import ProgressBar
from training.learner import Learner
from training.optimizer import set_learning_rate
from training.planning import StepPlanner
from training.skipped import SkippedSteps, TooManySkippedSteps
from training.stopping import Ending, EndOfRun, StopRequest, interrupted_with_peers
from training.validation import Validator


@dataclass
class _EpochSoFar:
    """The part of the current epoch that this process has done."""

    epoch: int = 0  # of its steps
    steps: int = 0
    clips: int = 0
    frames: int = 0
    started: float = field(default_factory=time.perf_counter)


class TrainingLoop:
    """Runs steps until a limit or a signal ends them, and saves a checkpoint of the last one."""

    def __init__(
        self,
        learner: Learner,
        *,
        order: BatchOrder,
        batches: Generator[Batch, None, None],
        validator: Validator,
        log: RunLog,
        saver: Saver,
        skipped_steps: SkippedSteps,
        stop: StopRequest,
        planner: StepPlanner,
    ) -> None:
        self._learner = learner
        self._config = learner.config
        self._processes = learner.processes
        self._step = learner.step
        self._following = itertools.islice(order, 1, None)  # what comes after the next batch
        self._batches = batches
        self._validator = validator
        self._log = log
        self._saver = saver
        self._skipped_steps = skipped_steps
        self._stop = stop
        self._planner = planner
        self._end_of_run = EndOfRun(learner.limits, stop, learner.processes, learner.compute)
        self._cadence = log.cadence
        self._rank_times = RankTimes(learner.processes)
        self._state = learner.start
        self._epoch = _EpochSoFar()
        self._save_is_due = False  # stays set while a checkpoint that was due cannot be saved

    def run(self) -> int:
        """Train. Return the exit code: 0 at a limit, 128 + signal number if a signal ended the run.

        Raises:
            UserError: MAX_SKIPPED_STEPS_IN_A_ROW steps were not finite, a clip can no longer be loaded, the memory is
                too small, or the last checkpoint cannot be written.
            PeerLost: another process has ended.
        """
        self._progress = ProgressBar(self._learner.start.step, self._learner.limits, is_shown=self._processes.is_main)
        self._saver.report_to(self._progress.write, self._log.on_checkpoint)
        with contextlib.ExitStack() as opened:
            opened.callback(self._batches.close)
            opened.callback(lambda: self._log.close(lambda: self._stop.ending is not None))
            opened.callback(self._saver.close)
            opened.callback(self._progress.close)
            with interrupted_with_peers(self._stop):
                self._log.on_start()
                self._processes.wait()
            try:
                ending = self._train()
            finally:  # also after a failure: then the closing verdict matters most
                self._log.on_end()
        if self._state.step:
            print(f"Stopped at step {self._state.step}: {ending.reason}.")
        else:
            print("Stopped before the first step, so there is nothing to go on from.")
        return ending.exit_code

    def _train(self) -> Ending:
        """Do steps until the run ends; return why it does."""
        self._epoch = _EpochSoFar()
        ending = self._end_of_run.start(self._state.step)
        try:
            if ending is None and self._state.validation_is_due:  # a signal ended the last launch before it
                self._log.on_validation(self._validate(on_cadence=True))
            if ending is None:
                self._plan_if_due()
            while ending is None:
                ending = self._advance()
        except Interrupted:  # only raised while nothing is half done
            ending = self._end_after_signal()
        except Exception as error:
            self._save_after_failure(error)
            if isinstance(error, TooManySkippedSteps):
                raise UserError(f"{error} {self._saver.last_checkpoint()}") from error
            if is_out_of_memory(error):
                raise UserError(f"{out_of_memory_advice(error)} {self._saver.last_checkpoint()}") from error
            if peer_lost(error):
                raise PeerLost(f"{PEER_LOST} ({first_line(error)}). {self._saver.last_checkpoint()}") from error
            raise
        self._log.flush()
        if self._stop.ending is not None and not ending.is_interruption:
            return Ending(f"{ending.reason}; a signal cut the closing round short", self._stop.signal_number)
        return ending

    def _advance(self) -> Ending | None:
        """Do one step and everything that is due after it; return why the run ends here, or None.

        Raises:
            Interrupted: a signal came before the step began.
        """
        record, ending = self._next_step()
        with self._planner.aside():
            validation = self._validation_after(record)
        if ending is None:  # a signal may have come during validation
            ending = self._end_of_run.between_steps()
            record = replace(record, is_interrupted=ending is not None)
        self._report(record, validation, is_ending=ending is not None)
        if self._epoch_is_complete or ending is not None:
            self._end_epoch(is_last=ending is not None)
        if ending is None:
            self._plan_if_due()
        self._save_is_due |= record.step % self._cadence.save_every_steps == 0
        if ending is not None:
            self._save_last()  # before the samples, which may take long, or fail
        elif self._save_is_due and not self._skipped_steps.last_was_skipped():
            self._log.flush()  # no checkpoint is ahead of its curves
            self._saver.begin(self._state_to_save())
            self._save_is_due = False
        with self._planner.aside():
            self._make_samples(record)
        self._saver.report()
        if ending is None and self._end_of_run.between_steps() is not None:  # a signal came during sampling or saving
            ending = self._end_after_signal()
        return ending

    def _next_step(self) -> tuple[StepRecord, Ending | None]:
        """Do one step; return its record, and why the run ends after it, or None."""
        wait_started = time.perf_counter()
        batch = self._next_batch()
        self._stop.has_stepped = True
        data_seconds = time.perf_counter() - wait_started
        step = self._state.step + 1
        rate = self._learner.schedule.rate_for(step)
        set_learning_rate(self._learner.optimizer, rate)
        is_first = step == self._learner.start.step + 1
        self._log.before_step(step, is_first=is_first, is_last=step == self._learner.limits.total_steps)
        step_started = time.perf_counter()
        following = next(self._following)
        clips, (frames, *size) = batch.clips_in_step, batch.clips_BTHWC.shape[1:]
        self._step.draw_ahead(step + 1, (len(following.clips), following.frames, *size))
        outcome = self._step.run(step, batch, self._end_of_run.request())
        self._state = replace(
            self._state, step=step, samples_seen=self._state.samples_seen + clips, validation_loss=None
        )
        self._epoch.epoch = batch.epoch
        self._epoch.steps += 1
        self._epoch.clips += clips
        self._epoch.frames += clips * frames
        ending = self._end_of_run.after(step, outcome.request)
        is_early_point = self._log.early_point_is_due()
        is_shown = is_early_point or self._progress.line_is_due
        needs_results = self._cadence.needs_results(step) or self._planner.needs_results(step)
        if is_shown or is_first or self._epoch_is_complete or ending is not None or needs_results:
            # The device is behind the host by now. Its remaining work belongs to the steps so far, not to the logging,
            # validation or saving that would otherwise wait for it.
            self._learner.compute.wait()
        self._planner.on_step(step)
        seconds = data_seconds + time.perf_counter() - step_started
        self._rank_times.add(data_seconds, outcome.own_work)
        self._skipped_steps.add(step, batch, outcome.skipped, outcome.fault)
        is_interrupted = ending is not None and ending.is_interruption
        record = StepRecord(
            **{each.name: getattr(outcome, each.name) for each in fields(StepResult)},
            step=step,
            is_first=is_first,
            is_last=ending is not None and not is_interrupted,
            is_early_point=is_early_point,
            is_interrupted=is_interrupted,
            epoch=batch.epoch,
            clips_in_step=clips,
            frames_in_step=clips * frames,
            samples_seen=self._state.samples_seen,
            learning_rates={group["name"]: rate for group in self._learner.optimizer.param_groups},
            data_seconds=data_seconds,
            step_seconds=seconds,
            rank_seconds=self._rank_times.compare() if self._is_reported(is_ending=ending is not None) else (),
        )
        return record, ending

    def _plan_if_due(self) -> None:
        """Plan the last step if it is time for that, and save it at once; all get the main process's plan."""
        if self._state.step != self._planner.after_step:
            return
        planned = self._planner.plan(self._end_of_run.seconds_left) if self._processes.is_main else None
        limits = self._learner.limits
        limits.planned_steps = self._processes.from_main(planned)
        if limits.plan is not None:
            self._progress.write(f"Step {self._state.step}: {limits.plan}.")
            self._save_is_due = True

    def _next_batch(self) -> Batch:
        try:
            with self._interruptible():
                return next(self._batches)
        except (RuntimeError, ConnectionError) as error:
            # PyTorch's words for a worker that died; or it died while this process was fetching a batch from it.
            if isinstance(error, ConnectionError) or str(error).startswith("DataLoader worker"):
                raise UserError(f"a loader worker died: {error}. Lower NUM_WORKERS if memory ran out.") from error
            raise

    def _interruptible(self) -> contextlib.AbstractContextManager[None]:
        """Return a context that a signal interrupts, unless other processes would wait for this one."""
        return contextlib.nullcontext() if self._processes.are_several else self._stop.interruptible()

    def _validation_after(self, record: StepRecord) -> ValidationRecord | None:
        """Validate if it is due; return None if it is not, or if a signal interrupted it."""
        on_cadence = record.step % self._cadence.validate_every_steps == 0
        if not on_cadence and not record.is_last:
            return None
        # If a signal comes first, the resumed run makes up for it.
        self._state = replace(self._state, validation_is_due=on_cadence)
        try:
            return self._validate(on_cadence=on_cadence)
        except Interrupted:
            return None

    def _validate(self, *, on_cadence: bool) -> ValidationRecord:
        with self._interruptible():
            record = self._validator.run(self._state.step, self._learner.ema.model, self._state.best_validation_loss)
        self._state = replace(self._state, validation_is_due=False, validation_loss=record.loss)
        if on_cadence:  # the closing validation depends on where a run stopped, so it must not change a resumed run
            self._learner.schedule.on_validation(record.loss)
            best = record.best_loss if math.isfinite(record.best_loss) else None
            self._state = replace(self._state, best_validation_loss=best)
        line = f"Step {record.step}: validation loss {record.loss:.4f}"
        line += f"; without caption {record.loss_null - record.loss:+.4f}"
        if record.loss_shuffled is not None:
            line += f", with another clip's caption {record.loss_shuffled - record.loss:+.4f}"
        if record.gap_shuffled_interval is not None:
            low, high = record.gap_shuffled_interval
            line += f" (95 % interval {low:+.4f} to {high:+.4f})"
        if record.trained_loss is not None and record.trained_loss_shuffled is not None:
            line += f"; of training clips {record.trained_loss_shuffled - record.trained_loss:+.4f}"
        self._progress.write(line)
        return record

    def _is_reported(self, *, is_ending: bool) -> bool:
        return is_ending or self._state.step % self._cadence.log_every_steps == 0

    def _report(self, record: StepRecord, validation: ValidationRecord | None, *, is_ending: bool) -> None:
        self._progress.advance()
        is_reported = self._is_reported(is_ending=is_ending)
        if is_reported or record.is_early_point or self._progress.line_is_due:  # reading the loss waits for the device
            rate = next(iter(record.learning_rates.values()))
            self._progress.show(record.loss.item(), rate, is_ending=is_ending)
        if self._skipped_steps.are_too_many:
            record = replace(record, is_interrupted=True)
        self._log.on_step(record)
        if validation is not None:
            self._log.on_validation(validation)
        self._skipped_steps.check()  # after logging the step, which the verdict on a failed run needs

    @property
    def _epoch_is_complete(self) -> bool:
        """Whether the last step was that of an epoch, too."""
        return self._state.step == self._learner.counts.until_end_of(self._epoch.epoch)

    def _end_epoch(self, *, is_last: bool) -> None:
        epoch, is_partial = self._epoch, not self._epoch_is_complete
        self._epoch = _EpochSoFar()
        record = EpochRecord(
            epoch=epoch.epoch + 1,
            step=self._state.step,
            optimizer_steps=epoch.steps,
            clips=epoch.clips,
            frames=epoch.frames,
            seconds=self._epoch.started - epoch.started,
            learning_rate=self._learner.optimizer.param_groups[0]["lr"],
            is_partial=is_partial,
            is_last=is_last,
        )
        self._log.on_epoch(record)

    def _make_samples(self, record: StepRecord) -> None:
        if not self._log.samples_are_due(record):
            return
        if self._config.ENABLE_VIDEO_LOGGING or self._config.ENABLE_NOISE_VISUALIZATION:
            self._progress.write(f"Step {record.step}: making sample videos ...")
        self._log.on_samples(record)
        self._processes.wait()  # for the main process, which makes them

    def _end_after_signal(self) -> Ending:
        """End the run for a signal that came after the last step was logged."""
        ending = self._stop.ending
        assert ending is not None
        if self._epoch.steps:
            self._end_epoch(is_last=True)
        self._save_last()
        return ending

    def _save_after_failure(self, error: Exception) -> None:
        """Save the steps since the last checkpoint, unless the weights cannot be trusted."""
        try:
            self._saver.settle()
            if not isinstance(error, TooManySkippedSteps | LastSaveFailed) and not self._step.is_updating:
                self._save_last()
        except Exception as second:  # noqa: BLE001  the first error is the one to report
            self._progress.write(f"warning: nor could a checkpoint be made: {second}")

    def _save_last(self) -> None:
        self._log.flush()
        self._saver.save_last(self._state_to_save())

    def _state_to_save(self) -> RunState:
        return replace(self._state, skipped_steps=self._skipped_steps.total())
