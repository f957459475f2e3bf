"""The model and everything that training it needs. Building it writes nothing."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh

from checkpoints.checkpoint import Checkpoint, RunState, load_weights
from compute.device import ComputeDevice
from compute.environment import forward_flops
from config import Config
from data.order import BatchCounts, Part
from data.records import DataSplits, FixedClips
from diffusion.loss import DiffusionObjective
from distributed.gathering import GatheredCopies, GatheredCopy
from distributed.models import ReplicatedModel, ShardedModel, SharedModel, is_sharded, shard
from distributed.processes import Processes
from models.build import build_model, build_objective
from models.tokens import Tokenizer
from training.estimate import TrainingEstimate, estimate_training
from training.learning_rate import ENDING_SCHEDULES, LearningRateSchedule
from training.optimizer import (
    ExponentialMovingAverage,
    LossScale,
    build_adamw,
    build_loss_scale,
    load_optimizer_parts,
    load_optimizer_tensors,
)
from training.step import TrainStep
from training.stopping import StoppingLimits
from training.validation import load_fixed_clips


@dataclass(frozen=True)
class Learner:
    """A model, everything that changes its weights, and where that happens. Every part of a training is built from it.

    Attributes:
        copies: of a divided model, which the dashboard reads; None if the model is not divided.
        step: does an optimizer step.
        counts: how the clips become steps.
        forward_flops: of one forward pass over one clip of MAX_FRAMES.
    """

    config: Config
    tokenizer: Tokenizer
    compute: ComputeDevice
    processes: Processes
    model: nn.Module
    ema: ExponentialMovingAverage
    copies: GatheredCopies | None
    step: TrainStep
    optimizer: torch.optim.AdamW
    loss_scale: LossScale
    objective: DiffusionObjective
    schedule: LearningRateSchedule
    limits: StoppingLimits
    counts: BatchCounts
    start: RunState
    validation_clips: FixedClips
    forward_flops: int
    estimate: TrainingEstimate

    @property
    def dashboard_model(self) -> nn.Module:
        """What the dashboard reads: the model itself, or the main process's copy of a divided one."""
        return self.model if self.copies is None else self.copies.model.module

    @property
    def dashboard_average(self) -> nn.Module:
        """The same for the averaged weights."""
        return self.ema.model if self.copies is None else self.copies.average.module

    @property
    def steps_left(self) -> int | None:
        """Steps until the last one; None if only MAX_MINUTES limits the run, and nothing is planned yet."""
        return None if self.limits.total_steps is None else self.limits.total_steps - self.start.step


def build_learner(
    config: Config,
    splits: DataSplits,
    tokenizer: Tokenizer,
    checkpoint: Checkpoint | None,
    compute: ComputeDevice,
    processes: Processes,
) -> Learner:
    """Build the learner, in the state of the checkpoint if there is one.

    Raises:
        UserError: the checkpoint is of another network, or a single clip does not fit into the memory.
    """
    model, ema, copies = _build_network(config, tokenizer, compute, processes)
    optimizer = build_adamw(config, model)
    counts = count_batches(config, splits, processes.part)
    limits = stopping_limits(config, counts, checkpoint)
    schedule = LearningRateSchedule(config, limits)
    start = RunState(0, 0, 0)
    loss_scale = build_loss_scale(compute)
    if checkpoint is not None:
        load_weights(model, checkpoint, "model")
        load_weights(ema.model, checkpoint, "ema")
        if is_sharded(model):
            load_optimizer_parts(optimizer, model, checkpoint.stored("optimizer"))
        else:
            load_optimizer_tensors(optimizer, model, checkpoint.weights("optimizer"))
        schedule.load_state(checkpoint.state.schedule)
        loss_scale.load_state(checkpoint.state.loss_scale)
        start = checkpoint.state.run_state
    validation_clips = load_fixed_clips(splits.validation, tokenizer)
    clip_flops = forward_flops(model, validation_clips, config.MAX_FRAMES, compute.device)
    world_size = processes.part.world_size
    estimate = estimate_training(
        model,
        optimizer,
        validation_clips,
        compute,
        forward_flops=clip_flops,
        frames=config.MAX_FRAMES,
        batch_size=config.BATCH_SIZE,
        accumulation_steps=config.GRADIENT_ACCUMULATION_STEPS,
        most_at_once=counts.most_frames(world_size * config.GRADIENT_ACCUMULATION_STEPS) / config.MAX_FRAMES,
        clips_a_step=counts.frames_on_average / (world_size * config.MAX_FRAMES),
        processes_here=processes.processes_here,
    )
    shared = _shared(model, compute, processes)
    if config.COMPILE_MODEL:
        shared.compile()
    objective = build_objective(config, compute.device)
    step = TrainStep(
        shared=shared,
        ema=ema,
        optimizer=optimizer,
        loss_scale=loss_scale,
        objective=objective,
        compute=compute,
        processes=processes,
        config=config,
    )
    return Learner(
        config=config,
        tokenizer=tokenizer,
        compute=compute,
        processes=processes,
        model=model,
        ema=ema,
        copies=copies,
        step=step,
        optimizer=optimizer,
        loss_scale=loss_scale,
        objective=objective,
        schedule=schedule,
        limits=limits,
        counts=counts,
        start=start,
        validation_clips=validation_clips,
        forward_flops=clip_flops,
        estimate=estimate,
    )


def _build_network(
    config: Config, tokenizer: Tokenizer, compute: ComputeDevice, processes: Processes
) -> tuple[nn.Module, ExponentialMovingAverage, GatheredCopies | None]:
    """Build the model and its average, divided over the processes if PARALLELISM says so."""
    if config.PARALLELISM == "ddp":
        model: nn.Module = build_model(config, tokenizer, compute.device).train()
        return model, ExponentialMovingAverage(model, config.EMA_DECAY), None
    mesh = init_device_mesh(compute.device.type, (processes.part.world_size,))

    def divided(*, is_trained: bool) -> GatheredCopy:
        # On the CPU, because the network may not fit on the device. The average is built a second time from SEED, with
        # the same weights, and not copied, so that no process ever holds two complete networks.
        network = build_model(config, tokenizer, torch.device("cpu")).train(is_trained).requires_grad_(is_trained)
        copy = GatheredCopy(network, compute.device, processes)
        shard(network, mesh)
        return copy

    copies = GatheredCopies(divided(is_trained=True), divided(is_trained=False))
    model = copies.model.network
    return model, ExponentialMovingAverage(model, config.EMA_DECAY, copies.average.network), copies


def _shared(model: nn.Module, compute: ComputeDevice, processes: Processes) -> SharedModel:
    if is_sharded(model):
        return ShardedModel(model)
    return ReplicatedModel(model, compute.device) if processes.are_several else SharedModel(model)


def count_batches(config: Config, splits: DataSplits, part: Part) -> BatchCounts:
    """Return how the clips of a run become steps of all its processes."""
    return BatchCounts(splits.training.lengths(), config.frames_per_step * part.world_size)


def stopping_limits(config: Config, counts: BatchCounts, checkpoint: Checkpoint | None) -> StoppingLimits:
    """Return when a run ends, with its epochs counted in steps, and with the plan that the checkpoint keeps.

    Epochs that bring no batch together, because there are so few clips, count as one step. Without MAX_MINUTES, or with
    a rate that needs no end, there is no plan, whatever an earlier launch planned.
    """
    totals = [] if config.MAX_STEPS is None else [config.MAX_STEPS]
    if config.NUM_EPOCHS is not None:
        totals.append(max(1, counts.until_end_of(config.NUM_EPOCHS - 1)))
    limits = StoppingLimits(min(totals, default=None), config.MAX_MINUTES, warmup_steps=config.LR_WARMUP_STEPS)
    may_plan = config.MAX_MINUTES is not None and config.LR_SCHEDULE in ENDING_SCHEDULES
    if checkpoint is not None and may_plan and "planned_steps" in checkpoint.state.schedule:
        limits.planned_steps = int(checkpoint.state.schedule["planned_steps"])
    return limits
