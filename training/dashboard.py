"""The dashboard as the training loop sees it: written by the main process, and by no other."""

import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import nn

from common.settings import config_as_json
from compute.environment import describe_environment
from config import Config
from data.fingerspelling import FingerspellingSplits
from data.records import DataSplits
from distributed.gathering import GatheredCopies
from logging_system.cadence import Cadence, LoggingSettings, cadence_of
from logging_system.dispatcher import Dispatcher, build_dispatcher
from logging_system.records import (
    CheckpointRecord,
    EpochRecord,
    GeneratedSamples,
    NoiseVisualisation,
    RunInformation,
    StepRecord,
    ValidationRecord,
)
from logging_system.view import TrainingView
from measures.recogniser_training import build_recogniser
from sampling.sampler import ClipSampler, build_sampler
from training.learner import Learner
from training.learning_rate import LearningRateSchedule
from training.showcase import Showcase, SpellingTest
from training.stopping import StopRequest


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


class ShardedRunLog:
    """Tells a log what it is told, with the copies at hand that the main process's log looks at then."""

    def __init__(self, log: RunLog, copies: GatheredCopies, cadence: Cadence) -> None:
        """Make it.

        Args:
            log: the dashboard of the main process; of all others, one that writes nothing.
            copies: that are put together.
            cadence: of the dashboard. It tells all processes at which steps.
        """
        self._log = log
        self._copies = copies
        self._cadence = cadence

    def on_start(self) -> None:
        with self._copies.model.filled():
            self._log.on_start()

    def before_step(self, step: int, *, is_first: bool, is_last: bool) -> None:
        due = self._cadence.due(step, is_first=is_first, is_last=is_last)
        with self._if_due(due.diagnostics, self._copies.model.filled):
            self._log.before_step(step, is_first=is_first, is_last=is_last)

    def on_step(self, record: StepRecord) -> None:
        due = self._cadence.due(record.step, is_first=record.is_first, is_last=record.is_last)
        is_due = due.diagnostics and not record.is_interrupted
        with self._if_due(is_due, lambda: self._copies.model.filled(with_gradients=True)):
            self._log.on_step(record)

    def samples_are_due(self, record: StepRecord) -> bool:
        return self._log.samples_are_due(record)

    def on_samples(self, record: StepRecord) -> None:
        with self._copies.model.filled(), self._copies.average.filled():
            self._log.on_samples(record)

    def on_validation(self, record: ValidationRecord) -> None:
        self._log.on_validation(record)

    def on_epoch(self, record: EpochRecord) -> None:
        with self._if_due(self._cadence.epoch_due(record.epoch, is_last=record.is_last), self._copies.model.filled):
            self._log.on_epoch(record)

    def on_checkpoint(self, record: CheckpointRecord) -> None:
        self._log.on_checkpoint(record)

    def on_end(self) -> None:
        self._log.on_end()

    def flush(self) -> None:
        self._log.flush()

    def close(self, is_hurried: Callable[[], bool]) -> None:
        self._log.close(is_hurried)

    @staticmethod
    def _if_due(is_due: bool, copies: Callable[[], AbstractContextManager[None]]) -> AbstractContextManager[None]:
        return copies() if is_due else nullcontext()


@dataclass(frozen=True)
class TrainerView:
    """Read-only access to the trainer's parts."""

    run: RunInformation
    model: nn.Module
    ema_model: nn.Module
    schedule: LearningRateSchedule
    showcase: Showcase
    total_steps: int | None
    interruptible: Callable[[], AbstractContextManager[None]]  # in which a signal gives up what takes long

    def learning_rate_at(self, step: int) -> float | None:
        return self.schedule.planned_rate(step)

    def scheduler_state(self) -> Mapping[str, float]:
        return self.schedule.state()

    def generate_samples(self) -> GeneratedSamples:
        with self.interruptible():
            return self.showcase.generate(self.model, self.ema_model)

    def visualise_noise(self) -> NoiseVisualisation:
        with self.interruptible():
            return self.showcase.visualise_noise(self.ema_model)


def build_run_log(config: Config, run_folder: Path, learner: Learner, view: TrainerView | None) -> RunLog:
    """Build what the training loop tells of its steps; without a view, which the main process alone has, nothing."""
    settings = _logging_settings(config)
    cadence = cadence_of(settings)
    log: RunLog = NoDashboard(cadence)
    if view is not None:
        dispatcher = build_dispatcher(run_folder=run_folder, settings=settings, start_step=learner.start.step)
        log = Dashboard(dispatcher, view)
    return log if learner.copies is None else ShardedRunLog(log, learner.copies, cadence)


def build_view(
    learner: Learner, splits: DataSplits, differences: tuple[str, ...], argv: list[str], stop: StopRequest
) -> TrainerView:
    """Build what the dashboard may read. Nothing is written yet.

    Args:
        learner: what is trained.
        splits: the data.
        differences: from the checkpoint that the run resumes from, a sentence each.
        argv: the command line.
        stop: a signal gives up the sampling.
    """
    config, compute = learner.config, learner.compute
    sampler = build_sampler(config, learner.objective.schedule, learner.tokenizer, compute)
    peak = compute.peak_flops_per_second
    return TrainerView(
        run=RunInformation(
            config=config_as_json(config),
            environment=describe_environment(compute, argv),
            resume_differences=differences,
            start_step=learner.start.step,
            forward_flops=learner.forward_flops,
            peak_flops_per_second=None if peak is None else learner.processes.part.world_size * peak,
        ),
        model=learner.dashboard_model,
        ema_model=learner.dashboard_average,
        schedule=learner.schedule,
        showcase=Showcase(
            sampler=sampler,
            splits=splits,
            prompts=config.SAMPLE_PROMPTS or splits.default_prompts,
            validation_batch=learner.validation_batch,
            compute=compute,
            spelling=_spelling_test(learner, splits, sampler),
            frames_per_second=config.VIDEO_FRAMES_PER_SECOND,
            seed=config.SEED,
        ),
        total_steps=learner.limits.total_steps,
        interruptible=stop.interruptible,
    )


def _spelling_test(learner: Learner, splits: DataSplits, sampler: ClipSampler) -> SpellingTest | None:
    """Build it if there are letters to read and videos to read them from."""
    config = learner.config
    if not isinstance(splits, FingerspellingSplits) or not config.ENABLE_VIDEO_LOGGING or config.RECOGNISER_STEPS == 0:
        return None
    try:
        recogniser = build_recogniser(config, splits)
    except Exception as error:  # noqa: BLE001  # what watches a run must not end it
        print(f"warning: no recogniser, so no Letter_Error_Rate in this run: {error!r}", file=sys.stderr)
        return None
    return SpellingTest(
        recogniser=recogniser,
        sampler=sampler,
        split=splits.split,
        validation_batch=learner.validation_batch,
        clips_at_once=config.BATCH_SIZE,
        seed=config.SEED,
    )


def _logging_settings(config: Config) -> LoggingSettings:
    return LoggingSettings(
        log_every_steps=config.LOG_EVERY_STEPS,
        log_every_epochs=config.LOG_EVERY_EPOCHS,
        diagnostic_log_every_steps=config.DIAGNOSTIC_LOG_EVERY_STEPS,
        tensorboard_flush_every_steps=config.TENSORBOARD_FLUSH_EVERY_STEPS,
        sample_every_steps=config.SAMPLE_EVERY_STEPS,
        enable_gradient_histograms=config.ENABLE_GRADIENT_HISTOGRAMS,
        enable_parameter_tracking=config.ENABLE_PARAMETER_TRACKING,
        enable_video_logging=config.ENABLE_VIDEO_LOGGING,
        enable_noise_visualization=config.ENABLE_NOISE_VISUALIZATION,
        enable_performance_profiling=config.ENABLE_PERFORMANCE_PROFILING,
        system_sample_seconds=config.SYSTEM_SAMPLE_SECONDS,
        parameter_tracking_max_layers=config.PARAMETER_TRACKING_MAX_LAYERS,
        histogram_bins=config.HISTOGRAM_BINS,
    )
