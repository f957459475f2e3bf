"""A network of two layers with everything that a training step needs."""

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from compute.device import ComputeDevice
from config import Config
from data.order import Part
from data.records import Batch
from diffusion.loss import DiffusionObjective
from diffusion.schedule import build_noise_schedule
from distributed.models import SharedModel
from distributed.processes import Processes
from training.optimizer import ExponentialMovingAverage, LossScale, build_adamw, optimizer_tensors
from training.step import StepOutcome, TrainStep


class HalfGradient(torch.autograd.Function):
    """Passes values on, and their gradients in float16, as a float16 network would: rounded, or infinite."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, network: "TinyNetwork") -> Tensor:
        ctx.network = network
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        network = ctx.network
        gradient = network.gradient_factor * gradient
        network.largest_gradient = torch.maximum(network.largest_gradient, gradient.abs().max())
        return gradient.half().float(), None


class TinyNetwork(nn.Module):
    """Depends on everything that a network is given, clip by clip."""

    def __init__(self, *, is_half: bool = False) -> None:
        super().__init__()
        self.mix = nn.Conv3d(3, 3, 1)
        self.embedding = nn.Embedding(10, 3)
        self.duration = nn.Linear(3, 1)
        self.is_half = is_half
        self.gradient_factor = 1.0  # of gradients in float16
        self.largest_gradient = torch.tensor(0.0)  # of a step, before it became float16

    def forward(
        self, video: Tensor, timestep: Tensor, tokens: Tensor, drop_caption: Tensor, *, with_duration: bool
    ) -> tuple[Tensor, Tensor]:
        assert with_duration  # a training step asks for it
        text = self.embedding(tokens).mean(1)
        dropped = text * (~drop_caption)[:, None]
        prediction = self.mix(video) + (dropped + 0.001 * timestep[:, None])[:, :, None, None, None]
        log_seconds = self.duration(text)[:, 0]
        if self.is_half:
            prediction, log_seconds = HalfGradient.apply(prediction, self), log_seconds.detach()
        return prediction, log_seconds


def batch(clips: int = 8) -> Batch:
    generator = torch.Generator().manual_seed(5)
    return Batch(
        clips_BTHWC=torch.randint(256, (clips, 4, 6, 6, 3), generator=generator, dtype=torch.uint8),
        seconds_B=torch.rand(clips, generator=generator) + 0.5,
        tokens_BL=torch.randint(2, 10, (clips, 3), generator=generator),
        captions=("A",) * clips,
        ids=tuple(map(str, range(clips))),
        epoch=0,
        index_in_epoch=0,
        clips_in_step=clips,
    )


def part_of(whole: Batch, part: Part) -> Batch:
    """Return the clips of a process."""
    return replace(
        whole,
        clips_BTHWC=whole.clips_BTHWC[part.own],
        seconds_B=whole.seconds_B[part.own],
        tokens_BL=whole.tokens_BL[part.own],
        captions=whole.captions[part.own],
        ids=whole.ids[part.own],
    )


class Rig:
    """A step, and what it changes."""

    def __init__(
        self,
        accumulation_steps: int = 1,
        clip_norm: float = 1.0,
        seed: int = 0,
        loss_scale: LossScale | None = None,
        *,
        is_half: bool = False,
        device: str = "cpu",
    ) -> None:
        torch.manual_seed(0)
        self.loss_scale = loss_scale or LossScale()
        self.model = TinyNetwork(is_half=is_half).to(device)
        self.ema = ExponentialMovingAverage(self.model, 0.9)
        self.optimizer = build_adamw(Config(LEARNING_RATE=0.01, WEIGHT_DECAY=0.0), self.model)
        schedule = build_noise_schedule("cosine", num_timesteps=50, zero_terminal_snr=True).to(torch.device(device))
        self.step = TrainStep(
            shared=SharedModel(self.model),
            ema=self.ema,
            optimizer=self.optimizer,
            objective=DiffusionObjective(schedule, "v_prediction", "uniform", 5.0, 0.25, motion_weight=0.0),
            compute=ComputeDevice(torch.device(device), None),
            processes=Processes(),
            loss_scale=self.loss_scale,
            config=Config(GRADIENT_ACCUMULATION_STEPS=accumulation_steps, GRADIENT_CLIP_NORM=clip_norm, SEED=seed),
        )

    def run(self, step: int, factor: float = 1.0) -> StepOutcome:
        """Do a step on the same clips as always, with gradients in float16 that are larger by a factor."""
        self.model.gradient_factor = factor
        self.model.largest_gradient = torch.tensor(0.0)
        return self.step.run(step, batch())

    def everything(self) -> dict[str, Tensor]:
        state = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        state |= {f"ema.{name}": value for name, value in self.ema.model.state_dict().items()}
        return copy.deepcopy(state | optimizer_tensors(self.optimizer, self.model))


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
