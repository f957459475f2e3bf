"""From constants to what makes a run's checkpoints."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import torch.distributed as dist

from common.settings import config_as_json
from config import Config
from training.build_learner import Learner
from training.checkpoint import CheckpointTensors, TrainingState
from training.checkpoint_saver import CheckpointSaver, RunProgress, bytes_of
from training.optimizer import optimizer_tensors
from training.process_group import WAIT_TIMEOUT
from training.processes import Processes
from training.retention import Retention
from training.saving import NoSaver, Saver
from training.sharded_saving import GatheringSaver, ShardedSaver, gather_to_main


def build_saver(
    config: Config,
    config_file: Mapping[str, object],
    checkpoints: Path,
    symbols: tuple[str, ...],
    learner: Learner,
    processes: Processes,
) -> Saver:
    """Build it for this process. Call on all processes.

    Args:
        config: of the run.
        config_file: what config.py alone says, without preset and command line.
        checkpoints: their folder.
        symbols: what the tokens stand for.
        learner: whose state is saved.
        processes: that train it together.
    """

    def describe(progress: RunProgress) -> TrainingState:
        return TrainingState(
            **dataclasses.asdict(progress),
            config=config_as_json(config),
            config_file=config_file,
            symbols=symbols,
            # The step that failed, where one did, has moved the schedule on already.
            schedule={**learner.schedule.state(), "last_epoch": float(progress.step)},
            world_size=processes.part.world_size,
            loss_scale=learner.loss_scale.state(),
        )

    def tensors() -> CheckpointTensors:
        return {
            "model": learner.model.state_dict(),
            "ema": learner.ema.model.state_dict(),
            "optimizer": optimizer_tensors(learner.optimizer, learner.model),
        }

    def gather() -> CheckpointTensors:
        return gather_to_main(tensors())

    if config.CHECKPOINT_LAYOUT == "sharded":
        return ShardedSaver(
            checkpoints=checkpoints,
            describe=describe,
            tensors=tensors,
            retention=retention(config),
            processes=processes,
            group=dist.new_group(backend="gloo", timeout=WAIT_TIMEOUT),
            saved_step=learner.start.step,
        )
    is_divided = learner.copies is not None
    writer = None
    if processes.is_main:
        writer = CheckpointSaver(
            checkpoints=checkpoints,
            describe=describe,
            tensors=gather if is_divided else tensors,
            retention=retention(config),
            in_background=config.SAVE_IN_BACKGROUND,
            saved_step=learner.start.step,
            tensors_are_copies=is_divided,
        )
    if is_divided:
        return GatheringSaver(writer, gather, lambda: bytes_of(tensors()), processes)
    return NoSaver() if writer is None else writer


def retention(config: Config) -> Retention:
    """Return which checkpoints are kept."""
    return Retention(config.KEEP_CHECKPOINTS, config.KEEP_BEST_CHECKPOINT, config.KEEP_CHECKPOINT_EVERY_STEPS)
