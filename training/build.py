"""The composition root: reads the config, builds every part, and puts them together."""

from collections.abc import Generator
from pathlib import Path

import torch
from torch import nn

from common.errors import UserError
from common.settings import LoadedSettings, config_as_json
from config import Config
from data.batches import batches_per_epoch, training_batches
from data.records import Batch, ClipSource, DataSplits
from logging_system.dispatcher import Dispatcher, build_dispatcher
from logging_system.records import RunInformation
from logging_system.settings import LoggingSettings
from models.text_encoder import CharacterTokenizer
from training.announce import announce, announce_estimate
from training.build_data import build_data
from training.build_model import build_model, build_sampler, build_schedule, build_tokenizer
from training.checkpoint import Checkpoint, TrainingState, load_weights, save_checkpoint
from training.device import ComputeDevice, choose_device
from training.ema import ExponentialMovingAverage
from training.environment import describe_environment, forward_flops
from training.estimate import estimate_training
from training.learning_rate import LearningRatePlan, LearningRateSchedule
from training.loop import LoopCadence, Save, TrainingLoop
from training.optimizer import build_optimizer, load_optimizer_tensors, optimizer_tensors
from training.progress import StartingPoint, StoppingLimits
from training.resume import ResumedConfig, config_for_resume
from training.run_folder import RunFolder, open_run_folder
from training.sampling import ClipSampler
from training.showcase import Showcase
from training.step import DiffusionObjective, TrainStep
from training.validation import Validator, load_validation_batch, wrong_tokens
from training.view import TrainerView


def build_training(loaded: LoadedSettings[Config], argv: list[str]) -> TrainingLoop | None:
    """Build everything that a run needs; None where a resumed run has no step left to do, and nothing was touched.

    Raises:
        UserError: something about the config, the data, the run folder or the device cannot work.
    """
    compute = choose_device(loaded.config.DEVICE, loaded.config.MIXED_PRECISION)
    # Before the run folder is made: what cannot work leaves nothing behind.
    splits = None if loaded.resume else _open_data(loaded.config)
    folder, checkpoint = open_run_folder(loaded.config.LOG_DIR, loaded.config.EXPERIMENT_NAME, resume=loaded.resume)
    resumed = config_for_resume(loaded, checkpoint)
    config = resumed.config
    splits = splits if splits is not None else _open_data(config)
    tokenizer = build_tokenizer(config, splits.symbols)
    _check_symbols(checkpoint, tokenizer)
    if checkpoint is not None and _is_finished(config, splits, checkpoint):
        return None
    folder.write_json("config.json", config_as_json(config))
    folder.write_json("split.json", splits.report)
    announce(loaded, config, splits, tokenizer, folder, compute, resumed)
    return _assemble(config, splits, tokenizer, folder, checkpoint, compute, resumed, argv)


def _is_finished(config: Config, splits: DataSplits, checkpoint: Checkpoint) -> bool:
    """Say so on the console where all steps are done."""
    step_batch = config.BATCH_SIZE * config.GRADIENT_ACCUMULATION_STEPS
    total = _limits(config, batches_per_epoch(splits.training, step_batch)).total_steps
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
    batches_per_epoch(splits.training, config.BATCH_SIZE * config.GRADIENT_ACCUMULATION_STEPS)
    tokenizer = build_tokenizer(config, splits.symbols)
    for prompt in config.SAMPLE_PROMPTS:
        dropped = tokenizer.encode(prompt)[1]
        if dropped and splits.symbols is not None:
            raise UserError(
                f"SAMPLE_PROMPTS: {prompt!r} has no sign for {dropped[0]!r} in this data, which has: "
                f"{' '.join(splits.symbols)}"
            )
    return splits


def _assemble(
    config: Config,
    splits: DataSplits,
    tokenizer: CharacterTokenizer,
    folder: RunFolder,
    checkpoint: Checkpoint | None,
    compute: ComputeDevice,
    resumed: ResumedConfig,
    argv: list[str],
) -> TrainingLoop:
    model = build_model(config, tokenizer, compute.device).train()
    ema = ExponentialMovingAverage(model, config.EMA_DECAY)
    optimizer = build_optimizer(
        model,
        learning_rate=config.LEARNING_RATE,
        betas=(config.ADAM_BETA_1, config.ADAM_BETA_2),
        weight_decay=config.WEIGHT_DECAY,
    )
    step_batch = config.BATCH_SIZE * config.GRADIENT_ACCUMULATION_STEPS
    steps_per_epoch = batches_per_epoch(splits.training, step_batch)
    limits = _limits(config, steps_per_epoch)
    schedule = LearningRateSchedule(_learning_rate_plan(config, limits.total_steps))
    start = StartingPoint(0, 0, 0)
    if checkpoint is not None:
        _restore(checkpoint, model, ema, optimizer, schedule)
        start = StartingPoint(checkpoint.state.step, checkpoint.state.samples_seen, checkpoint.state.skipped_steps)
    objective = DiffusionObjective(
        schedule=build_schedule(config, compute.device),
        prediction_type=config.PREDICTION_TYPE,
        weighting=config.LOSS_WEIGHTING,
        min_snr_gamma=config.MIN_SNR_GAMMA,
        caption_dropout=config.CAPTION_DROPOUT,
    )
    validation_batch = load_validation_batch(splits.validation, tokenizer)
    sampler = build_sampler(config, objective.schedule, tokenizer, compute)
    clip_flops = forward_flops(model, validation_batch, compute.device)
    estimate = estimate_training(
        model,
        optimizer,
        validation_batch,
        compute,
        forward_flops=clip_flops,
        batch_size=config.BATCH_SIZE,
        accumulation_steps=config.GRADIENT_ACCUMULATION_STEPS,
    )
    steps_left = None if limits.total_steps is None else limits.total_steps - start.step
    announce_estimate(estimate, compute, steps=steps_left, max_minutes=config.MAX_MINUTES)
    view = TrainerView(
        run=RunInformation(
            config=config_as_json(config),
            environment=describe_environment(compute, argv),
            resume_differences=resumed.differences,
            start_step=start.step,
            forward_flops=clip_flops,
            peak_flops_per_second=compute.peak_flops_per_second,
        ),
        model=model,
        ema=ema,
        schedule=schedule,
        showcase=_showcase(config, splits, validation_batch, sampler, compute),
        total_steps=limits.total_steps,
    )
    return TrainingLoop(
        step=TrainStep(
            model=model,
            ema=ema,
            optimizer=optimizer,
            objective=objective,
            compute=compute,
            accumulation_steps=config.GRADIENT_ACCUMULATION_STEPS,
            gradient_clip_norm=config.GRADIENT_CLIP_NORM,
            seed=config.SEED,
        ),
        batches=_batches(config, splits, step_batch, start.step, tokenizer),
        steps_per_epoch=steps_per_epoch,
        limits=limits,
        cadence=LoopCadence(
            validate_every=config.VALIDATE_EVERY_STEPS,
            save_every=config.SAVE_EVERY_STEPS,
            report_every=config.LOG_EVERY_STEPS,
            sample_every=config.SAMPLE_EVERY_STEPS,
            diagnose_every=config.DIAGNOSTIC_LOG_EVERY_STEPS,
        ),
        schedule=schedule,
        optimizer=optimizer,
        validator=_validator(config, objective, validation_batch, splits.training, tokenizer, compute, checkpoint),
        dispatcher=_dispatcher(config, folder.path, start.step, steps_per_epoch),
        view=view,
        save=_saver(config, folder, tokenizer, model, ema, optimizer, schedule),
        start=start,
        wait_for_device=compute.wait,
        max_skipped_in_a_row=config.MAX_SKIPPED_STEPS_IN_A_ROW,
        makes_samples=config.ENABLE_VIDEO_LOGGING or config.ENABLE_NOISE_VISUALIZATION,
    )


def _limits(config: Config, steps_per_epoch: int) -> StoppingLimits:
    totals = [] if config.MAX_STEPS is None else [config.MAX_STEPS]
    if config.NUM_EPOCHS is not None:
        totals.append(config.NUM_EPOCHS * steps_per_epoch)
    return StoppingLimits(min(totals, default=None), config.MAX_MINUTES)


def _learning_rate_plan(config: Config, total_steps: int | None) -> LearningRatePlan:
    return LearningRatePlan(
        name=config.LR_SCHEDULE,
        rate=config.LEARNING_RATE,
        total_steps=total_steps,
        warmup_steps=config.LR_WARMUP_STEPS,
        final_fraction=config.LR_FINAL_FRACTION,
        restart_every_steps=config.LR_RESTART_EVERY_STEPS,
        exponential_decay=config.LR_EXPONENTIAL_DECAY,
        polynomial_power=config.LR_POLYNOMIAL_POWER,
        plateau_patience=config.LR_PLATEAU_PATIENCE,
        plateau_factor=config.LR_PLATEAU_FACTOR,
    )


def _batches(
    config: Config, splits: DataSplits, step_batch: int, start_step: int, tokenizer: CharacterTokenizer
) -> Generator[Batch, None, None]:
    return training_batches(
        splits.training,
        batch_size=step_batch,
        seed=config.SEED,
        start_batch=start_step,
        num_workers=config.NUM_WORKERS,
        tokenize=tokenizer,
    )


def _validator(
    config: Config,
    objective: DiffusionObjective,
    batch: Batch,
    training: ClipSource,
    tokenizer: CharacterTokenizer,
    compute: ComputeDevice,
    checkpoint: Checkpoint | None,
) -> Validator:
    return Validator(
        batch=batch,
        shuffled_tokens_BL=wrong_tokens(batch, training, tokenizer),
        schedule=objective.schedule,
        prediction_type=objective.prediction_type,
        compute=compute,
        batch_size=config.BATCH_SIZE,
        seed=config.SEED,
        best_loss=None if checkpoint is None else checkpoint.state.best_validation_loss,
    )


def _showcase(
    config: Config, splits: DataSplits, validation_batch: Batch, sampler: ClipSampler, compute: ComputeDevice
) -> Showcase:
    return Showcase(
        sampler=sampler,
        splits=splits,
        prompts=config.SAMPLE_PROMPTS or splits.default_prompts,
        validation_batch=validation_batch,
        compute=compute,
        frames_per_second=config.VIDEO_FRAMES_PER_SECOND,
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
    config: Config,
    folder: RunFolder,
    tokenizer: CharacterTokenizer,
    model: nn.Module,
    ema: ExponentialMovingAverage,
    optimizer: torch.optim.AdamW,
    schedule: LearningRateSchedule,
) -> Save:
    def save(step: int, samples_seen: int, skipped_steps: int, best_validation_loss: float | None) -> Path:
        state = TrainingState(
            step=step,
            samples_seen=samples_seen,
            skipped_steps=skipped_steps,
            config=config_as_json(config),
            symbols=tokenizer.symbols,
            schedule=schedule.state(),
            best_validation_loss=best_validation_loss,
        )
        tensors = optimizer_tensors(optimizer, model)
        return save_checkpoint(folder.checkpoints, state, model, ema.model, tensors, config.KEEP_CHECKPOINTS)

    return save


def _restore(
    checkpoint: Checkpoint,
    model: nn.Module,
    ema: ExponentialMovingAverage,
    optimizer: torch.optim.AdamW,
    schedule: LearningRateSchedule,
) -> None:
    load_weights(model, checkpoint, "model")
    load_weights(ema.model, checkpoint, "ema")
    load_optimizer_tensors(optimizer, model, checkpoint.weights("optimizer"))
    schedule.load_state(checkpoint.state.schedule)


def _check_symbols(checkpoint: Checkpoint | None, tokenizer: CharacterTokenizer) -> None:
    if checkpoint is not None and checkpoint.state.symbols != tokenizer.symbols:
        raise UserError(
            f"the checkpoint {checkpoint.folder} was trained on captions of the symbols "
            f"{' '.join(checkpoint.state.symbols)!r}, but today's data has {' '.join(tokenizer.symbols)!r}. Resume "
            f"with the same DATA_ROOT and SIGNED_LANGUAGE, or start a new run with another --experiment-name."
        )
