"""The composition root: builds every part of a run from its config, and connects them."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import torch

from checkpoints.checkpoint import (
    Checkpoint,
    CheckpointTensors,
    Retention,
    RunState,
    TrainingState,
    config_of_checkpoint,
    remove_old,
    set_aside_newer,
)
from checkpoints.run_folder import SPLIT_FILE, RunFolder, open_run_folder
from checkpoints.saver import CheckpointSaver, Saver
from checkpoints.sharded_saver import ShardedSaver
from common.errors import UserError
from common.settings import LoadedSettings, config_as_json
from compute.device import ComputeDevice
from config import Config
from data.batches import BatchOrder, training_batches
from data.build import build_data
from data.composing import ComposedSplits
from data.records import DataSplits, FixedClips
from distributed.processes import Processes, waiting_group
from logging_system.cadence import Cadence
from logging_system.dispatcher import RunLog, build_dispatcher
from measures.text_use import GaugeClips
from models.build import build_tokenizer
from models.tokens import TEXT_SYMBOLS, Tokenizer, shown_symbols
from sampling.trained_run import check_text
from training.announce import announce
from training.dashboard import build_view
from training.learner import Learner, build_learner, count_batches, stopping_limits
from training.loop import TrainingLoop
from training.optimizer import optimizer_tensors
from training.planning import StepPlanner
from training.resume import compare_data, config_for_resume
from training.showcase import sample_passes
from training.skipped import SkippedBatchWriter, SkippedSteps
from training.stopping import StopRequest, all_done, interrupted_with_peers
from training.validation import Validator, gauge_clips, load_fixed_clips, wrong_tokens


def build_training(
    loaded: LoadedSettings[Config],
    argv: list[str],
    stop: StopRequest,
    processes: Processes,
    compute: ComputeDevice,
    held: ExitStack,
) -> TrainingLoop | None:
    """Build everything that a run needs. Return None if a resumed run has no step left to do; nothing is then written.

    Args:
        loaded: the config, and where its values come from.
        argv: the command line, for the log.
        stop: ends the building when a signal comes.
        processes: those that train together; only the main one writes.
        compute: the device of this process.
        held: keeps the lock of the run folder; close it when the training has ended.

    Raises:
        UserError: something about the config, the data, the run folder or the device cannot work.
        Interrupted: a signal came.
    """
    _check_launch(loaded, processes)
    with stop.interruptible(), interrupted_with_peers(stop):  # until its end, only the lock is written
        _check_same_settings(loaded, compute, processes)
        restarted = processes.remembered_run()
        resume = loaded.resume or restarted is not None
        # A new run opens its data before it has a folder, so that data that cannot work leave nothing behind.
        data = None if resume else _open_data(loaded.config, None, processes)
        folder, checkpoint = _open_run_folder(loaded.config, restarted, processes, held, resume=resume)
        config, differences = config_for_resume(loaded, checkpoint)
        splits, tokenizer = _open_data(config, checkpoint, processes) if data is None else data
        report = dict(splits.summary.report)
        if checkpoint is not None:
            comparison = compare_data(folder.path / SPLIT_FILE, report)
            if comparison.formerly_trained:
                report["formerly_trained"] = comparison.formerly_trained
            differences += (*comparison.differences, *_changed_step(config, checkpoint, processes))
            _check_symbols(checkpoint, tokenizer)
            if _is_finished(config, splits, checkpoint, processes):
                return None
        learner = build_learner(config, splits, tokenizer, checkpoint, compute, processes)
        view = build_view(learner, splits, differences, argv, stop) if processes.is_main else None
        validator = _build_validator(learner, splits)
    if processes.is_main:
        if checkpoint is not None:
            set_aside_newer(folder.checkpoints, checkpoint.state.step)
            remove_old(folder.checkpoints, checkpoint.folder, _retention(config))  # now, as the disk may be full
        processes.remember_run(folder.path.name)
        folder.write_json("config.json", config_as_json(config))  # from here on the folder counts as a run
        folder.write_json(SPLIT_FILE, report)
        announce(loaded, learner, splits, folder, differences, checkpoint)
    if view is None:  # on every process but the main one
        log = RunLog(Cadence.from_config(config), learner.copies)
    else:
        log = build_dispatcher(config, folder.path, view, learner.start.step, learner.copies)
    order = BatchOrder(
        splits.training,
        frames_in_batch=config.frames_per_step * processes.part.world_size,
        seed=config.SEED,
        start_batch=learner.start.step,
        part=processes.part,
    )
    return TrainingLoop(
        learner,
        order=order,
        batches=training_batches(splits.training, order, num_workers=config.NUM_WORKERS, tokenize=tokenizer),
        validator=validator,
        log=log,
        saver=build_saver(learner, loaded.file_values, folder.checkpoints),
        skipped_steps=SkippedSteps(
            already_skipped=learner.start.skipped_steps,
            max_skipped_steps_in_a_row=config.MAX_SKIPPED_STEPS_IN_A_ROW,
            compute=compute,
            rank=processes.part.rank,
            keep=SkippedBatchWriter(folder.path, learner).keep,
        ),
        stop=stop,
        planner=StepPlanner(
            config,
            learner.limits,
            learner.start.step,
            learner.estimate,
            sample_passes(config, splits),
            learner.counts.clips_on_average / processes.part.world_size,
        ),
    )


def _check_launch(loaded: LoadedSettings[Config], processes: Processes) -> None:
    """Refuse a launch that would run out of memory later, or that torchrun could not restart."""
    if loaded.config.PARALLELISM == "fsdp" and not processes.are_several:
        raise UserError(
            "PARALLELISM is 'fsdp', which divides the model over several processes, and there is one. Start several "
            "(torchrun --nproc-per-node=N main.py ...), or set PARALLELISM to 'ddp'; checkpoints load either way."
        )
    if not loaded.resume and not processes.run_is_remembered:
        raise UserError(
            "torchrun does not share its store with these processes (TORCH_DISABLE_SHARE_RDZV_TCP_STORE is set, or the "
            "rendezvous backend has none), so that others in their place could not find their run. Add --resume "
            "--experiment-name NAME, which begins it too."
        )


def _check_same_settings(loaded: LoadedSettings[Config], compute: ComputeDevice, processes: Processes) -> None:
    """Refuse processes with different settings, on all of them."""
    settings = {
        **{name: value for name, value in config_as_json(loaded.config).items() if name != "CACHE_DIR"},
        "--resume": loaded.resume,
        "DEVICE in use": compute.device.type,
        "MIXED_PRECISION in use": compute.precision,
        "PyTorch": torch.__version__,
    }
    by_rank = processes.gather(settings)
    for rank, theirs in enumerate(by_rank):
        names = [name for name in settings if theirs[name] != by_rank[0][name]]
        if names:
            listed = "; ".join(f"{name} is {by_rank[0][name]} and {theirs[name]}" for name in names)
            raise UserError(
                f"ranks 0 and {rank} of this run are not set alike: {listed}. Start all with the same command, "
                "config.py and versions, or set what differs"
            )


def _open_run_folder(
    config: Config, restarted: str | None, processes: Processes, held: ExitStack, *, resume: bool
) -> tuple[RunFolder, Checkpoint | None]:
    """Let the main process create or find the run folder, and send it to the others."""
    found: tuple[RunFolder, Checkpoint | None] | None = None
    if processes.is_main:
        name = config.EXPERIMENT_NAME if restarted is None else restarted
        found = held.enter_context(open_run_folder(config.LOG_DIR, name, resume=resume))
    found = processes.from_main(found)
    assert found is not None
    return found


def _open_data(config: Config, checkpoint: Checkpoint | None, processes: Processes) -> tuple[DataSplits, Tokenizer]:
    """Open the data, and check that all processes see the same clips and that SAMPLE_PROMPTS can be signed."""
    known = None if checkpoint is None else checkpoint.state.symbols
    if known is not None and not set(known) <= set(TEXT_SYMBOLS):
        known = None  # letters of finger-spelling; of a version that knew fewer letters, the run keeps those
    splits = processes.first_on_each_machine(lambda: build_data(config, known))
    digest = hashlib.sha256(json.dumps(splits.summary.report, sort_keys=True).encode()).hexdigest()
    seen = processes.gather((digest, len(splits.training)))
    for rank, (digest_of_rank, clips) in enumerate(seen):
        if digest_of_rank != seen[0][0]:
            raise UserError(
                f"the processes of this run do not see the same clips: rank 0 has {seen[0][1]} to train on, "
                f"rank {rank} {clips}. DATA_ROOT must be the same on all machines, and so must the program's version"
            )
    tokenizer = build_tokenizer(config, known if splits.symbols is None else splits.symbols)
    signs = splits.split.signs if isinstance(splits, ComposedSplits) else None
    for prompt in config.SAMPLE_PROMPTS:
        check_text("SAMPLE_PROMPTS:", prompt, config, tokenizer, signs)
    return splits, tokenizer


def _changed_step(config: Config, checkpoint: Checkpoint, processes: Processes) -> list[str]:
    """Return a sentence if a step takes another number of frames than before."""
    then = config_of_checkpoint(checkpoint)
    now, before = config.frames_per_step * processes.part.world_size, then.frames_per_step * checkpoint.state.world_size
    return [] if now == before else [f"a step takes up to {now} frames, and took {before}"]


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


def _is_finished(config: Config, splits: DataSplits, checkpoint: Checkpoint, processes: Processes) -> bool:
    """Return whether all steps are done, and print so if they are."""
    limits = stopping_limits(config, count_batches(config, splits, processes.part), checkpoint)
    total = limits.total_steps
    if total is None or checkpoint.state.step < total:
        return False
    remedy = "Raise MAX_STEPS or NUM_EPOCHS" if limits.plan is None else "Add --max-minutes none and set MAX_STEPS"
    print(
        f"Nothing to do: {checkpoint.folder} is at step {checkpoint.state.step}, and {all_done(total)} "
        f"({limits.limiting}). {remedy} to go on; options of the first launch must be given again."
    )
    return True


def _build_validator(learner: Learner, splits: DataSplits) -> Validator:
    config, tokenizer = learner.config, learner.tokenizer

    def gauge(fixed: FixedClips, purpose: str) -> GaugeClips:
        shuffled = wrong_tokens(fixed, splits.training, tokenizer)
        return gauge_clips(fixed, shuffled, learner.compute.device, config.SEED, purpose)

    trained = splits.validation_of_trained
    return Validator(
        clips=gauge(learner.validation_clips, "validation_noise"),
        seconds=[row.seconds for row in learner.validation_clips.rows],
        trained_clips=None if trained is None else gauge(load_fixed_clips(trained, tokenizer), "trained_noise"),
        objective=learner.objective,
        compute=learner.compute,
        processes=learner.processes,
        most_frames=config.frames_at_once,
        seed=config.SEED,
    )


def build_saver(learner: Learner, config_file: Mapping[str, object], checkpoints: Path) -> Saver:
    """Build the saver of this process. Call on all processes.

    `config_file` holds the values of config.py alone, without preset and command line; checkpoints keep them.
    """
    config, processes = learner.config, learner.processes

    def describe(state: RunState) -> TrainingState:
        return TrainingState(
            **vars(state),
            config=config_as_json(config),
            config_file=config_file,
            symbols=learner.tokenizer.symbols,
            # If a step failed, it has already advanced the schedule.
            schedule={**learner.schedule.state(), "last_epoch": float(state.step)},
            world_size=processes.part.world_size,
            loss_scale=learner.loss_scale.state(),
        )

    def tensors() -> CheckpointTensors:
        return {
            "model": learner.model.state_dict(),
            "ema": learner.ema.model.state_dict(),
            "optimizer": optimizer_tensors(learner.optimizer, learner.model),
        }

    if config.CHECKPOINT_LAYOUT == "sharded":
        return ShardedSaver(
            checkpoints=checkpoints,
            describe=describe,
            tensors=tensors,
            retention=_retention(config),
            processes=processes,
            group=waiting_group(),
            saved_step=learner.start.step,
        )
    is_divided = learner.copies is not None
    if not processes.is_main and not is_divided:
        return Saver()
    return CheckpointSaver(
        checkpoints=checkpoints,
        describe=describe,
        tensors=tensors,
        retention=_retention(config),
        in_background=config.SAVE_IN_BACKGROUND,
        saved_step=learner.start.step,
        processes=processes if is_divided else Processes(),
    )


def _retention(config: Config) -> Retention:
    return Retention(
        keep_checkpoints=config.KEEP_CHECKPOINTS,
        keep_best_checkpoint=config.KEEP_BEST_CHECKPOINT,
        keep_checkpoint_every_steps=config.KEEP_CHECKPOINT_EVERY_STEPS,
    )
