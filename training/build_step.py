"""From constants to the optimizer and its step."""

import torch
from torch import nn

from config import Config
from training.device import ComputeDevice
from training.ema import ExponentialMovingAverage
from training.loss_scale import LossScale
from training.optimizer import build_optimizer
from training.processes import Processes
from training.shared_model import SharedModel
from training.step import DiffusionObjective, TrainStep


def build_adamw(config: Config, model: nn.Module) -> torch.optim.AdamW:
    """Build what the constants under "Optimizer" describe."""
    return build_optimizer(
        model,
        learning_rate=config.LEARNING_RATE,
        betas=(config.ADAM_BETA_1, config.ADAM_BETA_2),
        weight_decay=config.WEIGHT_DECAY,
    )


def build_train_step(
    config: Config,
    shared: SharedModel,
    ema: ExponentialMovingAverage,
    optimizer: torch.optim.AdamW,
    objective: DiffusionObjective,
    compute: ComputeDevice,
    processes: Processes,
    loss_scale: LossScale,
) -> TrainStep:
    """Build the step that trains the model."""
    return TrainStep(
        shared=shared,
        ema=ema,
        optimizer=optimizer,
        objective=objective,
        compute=compute,
        processes=processes,
        loss_scale=loss_scale,
        accumulation_steps=config.GRADIENT_ACCUMULATION_STEPS,
        gradient_clip_norm=config.GRADIENT_CLIP_NORM,
        seed=config.SEED,
    )
