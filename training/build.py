"""The composition root: reads the config, builds every part, and puts them together."""

import dataclasses
import sys
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path

from common.errors import UserError
from common.settings import LoadedSettings, config_as_json
from config import Config
from data.batches import batches_per_epoch, training_batches
from data.fingerspelling import FingerspellingSplits
from data.records import Batch, ClipSource, DataSplits
from evaluation.recogniser import LetterRecogniser
from logging_system.dispatcher import Dispatcher, build_dispatcher
from logging_system.records import RunInformation
from logging_system.settings import LoggingSettings
from models.tokens import Tokenizer, shown_symbols
from training.announce import announce, announce_estimate
from training.build_data import build_data
from training.build_learner import Learner, build_learner, clips_a_step, stopping_limits
from training.build_model import build_sampler, build_tokenizer
from training.build_recogniser import build_recogniser
from training.build_step import build_train_step
from training.checkpoint import Checkpoint, Retention, TrainingState, remove_old, set_aside_newer
from training.checkpoint_saver import CheckpointSaver, RunProgress
from training.device import ComputeDevice, choose_device
from training.environment import describe_environment
from training.loop import LoopCadence, TrainingLoop
from training.resume import ResumedConfig, config_for_resume
from training.resumed_data import compare_data
from training.run_folder import RunFolder, open_run_folder
from training.sampling import ClipSampler
from training.showcase import Showcase
from training.signals import StopRequest
from training.skipped_batches import SkippedBatches
from training.skipped_steps import SkippedSteps
from training.spelling_test import SpellingTest
from training.validation import Validator, wrong_tokens
from training.view import TrainerView


def build_training(
    loaded: LoadedSettings[Config], argv: list[str], stop: StopRequest, held: ExitStack
) -> TrainingLoop | None:
    """Build everything that a run needs; None where a resumed run has no step left to do, and nothing was touched.

    Args:
        loaded: the config, and where its values come from.
        argv: the command line, for the log.
        stop: tells of signals; one that comes while this builds gives it up.
        held: keeps the lock of the run folder; close it when the training has ended.

    Raises:
        UserError: something about the config, the data, the run folder or the device cannot work.
        Interrupted: a signal came.
    """
    with stop.interruptible():  # so far nothing is written but the lock
        compute = choose_device(loaded.config.DEVICE, loaded.config.MIXED_PRECISION)
        # Before the run folder is made: what cannot work leaves nothing behind.
        splits = None if loaded.resume else _open_data(loaded.config)
        folder, checkpoint = held.enter_context(
            open_run_folder(loaded.config.LOG_DIR, loaded.config.EXPERIMENT_NAME, resume=loaded.resume)
        )
        resumed = config_for_resume(loaded, checkpoint)
        config = resumed.config
        splits = splits if splits is not None else _open_data(config)
        report = dict(splits.report)
        if checkpoint is not None:
            comparison = compare_data(folder.path / "split.json", report)
            resumed = resumed.with_differences(comparison.differences)
            if comparison.formerly_trained:
                report["formerly_trained"] = comparison.formerly_trained
        tokenizer = build_tokenizer(config, splits.symbols)
        _check_symbols(checkpoint, tokenizer)
        if checkpoint is not None and _is_finished(config, splits, checkpoint):
            return None
        learner = build_learner(config, splits, tokenizer, checkpoint, compute)
        recogniser = _recogniser(config, splits)
        view = _view(config, learner, recogniser, splits, tokenizer, compute, resumed, argv, stop)
        validator = _validator(config, learner, splits.training, tokenizer, compute)
    if checkpoint is not None:
        set_aside_newer(folder.checkpoints, checkpoint.state.step)
        remove_old(folder.checkpoints, checkpoint.folder, _retention(config))  # at once: it may be to make room
    folder.write_json("config.json", config_as_json(config))  # from here on the folder counts as a run
    folder.write_json("split.json", report)
    announce(loaded, config, splits, tokenizer, folder, compute, resumed, checkpoint)
    announce_estimate(learner.estimate, compute, steps=learner.steps_left, max_minutes=config.MAX_MINUTES)
    return _assemble(config, loaded, learner, view, validator, splits, tokenizer, folder, compute, stop)


def _is_finished(config: Config, splits: DataSplits, checkpoint: Checkpoint) -> bool:
    """Say so on the console where all steps are done."""
    total = stopping_limits(config, batches_per_epoch(splits.training, clips_a_step(config))).total_steps
    if total is None or checkpoint.state.step < total:
        return False
    print(
        f"Nothing to do: {checkpoint.folder} is at step {checkpoint.state.step}, and all {total} steps are done. Raise "
        f"MAX_STEPS or NUM_EPOCHS to go on; options of the first launch must be given again."
    )
    return True


def _open_data(config: Config) -> DataSplits:
    """Open the data and check what else depends on it."""
    splits = build_data(config)
    batches_per_epoch(splits.training, clips_a_step(config))
    tokenizer = build_tokenizer(config, splits.symbols)
    for prompt in config.SAMPLE_PROMPTS:
        dropped = tokenizer.encode(prompt)[1]
        if dropped and splits.symbols is not None:
            raise UserError(
                f"SAMPLE_PROMPTS: {prompt!r} has no sign for {dropped[0]!r} in this data, which has: "
                f"{' '.join(splits.symbols)}"
            )
    return splits


def _view(
    config: Config,
    learner: Learner,
    recogniser: LetterRecogniser | None,
    splits: DataSplits,
    tokenizer: Tokenizer,
    compute: ComputeDevice,
    resumed: ResumedConfig,
    argv: list[str],
    stop: StopRequest,
) -> TrainerView:
    sampler = build_sampler(config, learner.objective.schedule, tokenizer, compute)
    return TrainerView(
        run=RunInformation(
            config=config_as_json(config),
            environment=describe_environment(compute, argv),
            resume_differences=resumed.differences,
            start_step=learner.start.step,
            forward_flops=learner.forward_flops,
            peak_flops_per_second=compute.peak_flops_per_second,
        ),
        model=learner.model,
        ema=learner.ema,
        schedule=learner.schedule,
        showcase=_showcase(config, splits, recogniser, learner.validation_batch, sampler, compute),
        total_steps=learner.limits.total_steps,
        interruptible=stop.interruptible,
    )


def _assemble(
    config: Config,
    loaded: LoadedSettings[Config],
    learner: Learner,
    view: TrainerView,
    validator: Validator,
    splits: DataSplits,
    tokenizer: Tokenizer,
    folder: RunFolder,
    compute: ComputeDevice,
    stop: StopRequest,
) -> TrainingLoop:
    return TrainingLoop(
        step=build_train_step(config, learner.model, learner.ema, learner.optimizer, learner.objective, compute),
        batches=_batches(config, splits, learner.start.step, tokenizer),
        steps_per_epoch=learner.steps_per_epoch,
        limits=learner.limits,
        cadence=LoopCadence(
            validate_every=config.VALIDATE_EVERY_STEPS,
            save_every=config.SAVE_EVERY_STEPS,
            report_every=config.LOG_EVERY_STEPS,
            sample_every=config.SAMPLE_EVERY_STEPS,
            diagnose_every=config.DIAGNOSTIC_LOG_EVERY_STEPS,
        ),
        schedule=learner.schedule,
        optimizer=learner.optimizer,
        validator=validator,
        dispatcher=_dispatcher(config, folder.path, learner.start.step, learner.steps_per_epoch),
        view=view,
        saver=_saver(config, loaded, folder, tokenizer, learner),
        skipped_steps=SkippedSteps(
            already_skipped=learner.start.skipped_steps,
            limit_in_a_row=config.MAX_SKIPPED_STEPS_IN_A_ROW,
            compute=compute,
            keep=SkippedBatches(folder.path, learner.model, config_as_json(config), tokenizer.symbols).keep,
        ),
        stop=stop,
        start=learner.start,
        wait_for_device=compute.wait,
        makes_samples=config.ENABLE_VIDEO_LOGGING or config.ENABLE_NOISE_VISUALIZATION,
    )


def _batches(config: Config, splits: DataSplits, start_step: int, tokenizer: Tokenizer) -> Generator[Batch, None, None]:
    return training_batches(
        splits.training,
        batch_size=clips_a_step(config),
        seed=config.SEED,
        start_batch=start_step,
        num_workers=config.NUM_WORKERS,
        tokenize=tokenizer,
    )


def _validator(
    config: Config,
    learner: Learner,
    training: ClipSource,
    tokenizer: Tokenizer,
    compute: ComputeDevice,
) -> Validator:
    return Validator(
        batch=learner.validation_batch,
        shuffled_tokens_BL=wrong_tokens(learner.validation_batch, training, tokenizer),
        schedule=learner.objective.schedule,
        prediction_type=learner.objective.prediction_type,
        compute=compute,
        batch_size=config.BATCH_SIZE,
        seed=config.SEED,
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


def _dispatcher(config: Config, run_folder: Path, start_step: int, steps_per_epoch: int) -> Dispatcher:
    settings = LoggingSettings(
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
    return build_dispatcher(run_folder=run_folder, settings=settings, start_step=start_step)


def _saver(
    config: Config, loaded: LoadedSettings[Config], folder: RunFolder, tokenizer: Tokenizer, learner: Learner
) -> CheckpointSaver:
    def describe(progress: RunProgress) -> TrainingState:
        return TrainingState(
            **dataclasses.asdict(progress),
            config=config_as_json(config),
            config_file=loaded.file_values,
            symbols=tokenizer.symbols,
            # The step that failed, where one did, has moved the schedule on already.
            schedule={**learner.schedule.state(), "last_epoch": float(progress.step)},
        )

    return CheckpointSaver(
        checkpoints=folder.checkpoints,
        describe=describe,
        model=learner.model,
        ema_model=learner.ema.model,
        optimizer=learner.optimizer,
        retention=_retention(config),
        in_background=config.SAVE_IN_BACKGROUND,
        saved_step=learner.start.step,
    )


def _retention(config: Config) -> Retention:
    return Retention(config.KEEP_CHECKPOINTS, config.KEEP_BEST_CHECKPOINT, config.KEEP_CHECKPOINT_EVERY_STEPS)


def _check_symbols(checkpoint: Checkpoint | None, tokenizer: Tokenizer) -> None:
    if checkpoint is not None and checkpoint.state.symbols != tokenizer.symbols:
        then = checkpoint.state.config
        raise UserError(
            f"the checkpoint {checkpoint.folder} was trained on other data: DATA_ROOT was {then.get('DATA_ROOT')} and "
            f"SIGNED_LANGUAGE {then.get('SIGNED_LANGUAGE')}. "
            f"Its captions have the symbols {shown_symbols(checkpoint.state.symbols)}, and today's "
            f"{shown_symbols(tokenizer.symbols)}. Resume with the same data, or start a new run with another "
            "--experiment-name."
        )
