"""The dashboard's part of the composition root: what it may look at, and what writes it."""

import sys
from pathlib import Path

from common.settings import config_as_json
from config import Config
from data.fingerspelling import FingerspellingSplits
from data.records import Batch, DataSplits
from evaluation.recogniser import LetterRecogniser
from logging_system.cadence import cadence_of
from logging_system.dispatcher import build_dispatcher
from logging_system.records import RunInformation
from logging_system.settings import LoggingSettings
from models.tokens import Tokenizer
from training.build_learner import Learner
from training.build_model import build_sampler
from training.build_recogniser import build_recogniser
from training.device import ComputeDevice
from training.environment import describe_environment
from training.processes import Processes
from training.resume import ResumedConfig
from training.run_log import Dashboard, NoDashboard, RunLog
from training.sampling import ClipSampler
from training.sharded_log import ShardedRunLog
from training.showcase import Showcase
from training.signals import StopRequest
from training.spelling_test import SpellingTest
from training.view import TrainerView


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
    config: Config,
    learner: Learner,
    splits: DataSplits,
    tokenizer: Tokenizer,
    compute: ComputeDevice,
    resumed: ResumedConfig,
    argv: list[str],
    stop: StopRequest,
    processes: Processes,
) -> TrainerView:
    """Build what the dashboard may look at: as of now, nothing of it is written."""
    recogniser = _recogniser(config, splits)
    peak = compute.peak_flops_per_second
    sampler = build_sampler(config, learner.objective.schedule, tokenizer, compute)
    return TrainerView(
        run=RunInformation(
            config=config_as_json(config),
            environment=describe_environment(compute, argv),
            resume_differences=resumed.differences,
            start_step=learner.start.step,
            forward_flops=learner.forward_flops,
            peak_flops_per_second=None if peak is None else processes.part.world_size * peak,
        ),
        model=learner.shown,
        ema_model=learner.shown_average,
        schedule=learner.schedule,
        showcase=_showcase(config, splits, recogniser, learner.validation_batch, sampler, compute),
        total_steps=learner.limits.total_steps,
        interruptible=stop.interruptible,
    )


def _showcase(
    config: Config,
    splits: DataSplits,
    recogniser: LetterRecogniser | None,
    validation_batch: Batch,
    sampler: ClipSampler,
    compute: ComputeDevice,
) -> Showcase:
    return Showcase(
        sampler=sampler,
        splits=splits,
        prompts=config.SAMPLE_PROMPTS or splits.default_prompts,
        validation_batch=validation_batch,
        compute=compute,
        spelling=_spelling_test(config, splits, recogniser, validation_batch, sampler),
        frames_per_second=config.VIDEO_FRAMES_PER_SECOND,
        seed=config.SEED,
    )


def _recogniser(config: Config, splits: DataSplits) -> LetterRecogniser | None:
    """Build it where there are letters to read, and somebody to show the figures to."""
    if not isinstance(splits, FingerspellingSplits) or not config.ENABLE_VIDEO_LOGGING or config.RECOGNISER_STEPS == 0:
        return None
    try:
        return build_recogniser(config, splits)
    except Exception as error:  # noqa: BLE001  # what watches a run must not end it
        print(f"warning: no recogniser, so no Letter_Error_Rate in this run: {error!r}", file=sys.stderr)
        return None


def _spelling_test(
    config: Config,
    splits: DataSplits,
    recogniser: LetterRecogniser | None,
    validation_batch: Batch,
    sampler: ClipSampler,
) -> SpellingTest | None:
    if recogniser is None or not isinstance(splits, FingerspellingSplits):
        return None
    return SpellingTest(
        recogniser=recogniser,
        sampler=sampler,
        split=splits.split,
        validation_batch=validation_batch,
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
