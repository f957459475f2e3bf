"""Train one network for a given time and print its validation losses: a worker of benchmarks.time_to_loss.

Its one argument is a `LossCurvePlan` as JSON; the last line on stdout is a `LossCurve` as JSON.
Every network gets the same clips, objective and optimizer, through the trainer's own code, in float32 and with freed
memory kept, as main.py does. The raw weights are validated: an average over the few steps of a slow network would
still be made of its initial weights.
"""

import dataclasses
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.networks import VOCABULARY, NetworkName, build_network, count_parameters
from benchmarks.worker_process import read_plan
from common.console import program
from common.errors import UserError
from common.randomness import derive_seed
from common.settings import load_settings
from compute.device import ComputeDevice
from compute.memory import keep_freed_memory
from config import PRESETS, Config
from data.batches import BatchOrder, training_batches
from data.build import build_data
from data.lengths import equal_lengths
from diffusion.loss import DiffusionObjective
from diffusion.schedule import evenly_spaced_timesteps
from distributed.models import SharedModel
from distributed.processes import Processes
from measures.text_use import TIMESTEP_BINS, GaugeClips, measure_text_use
from models.build import build_objective, build_tokenizer
from models.tokens import FIRST_TOKEN
from training.optimizer import ExponentialMovingAverage, LossScale, build_adamw, set_learning_rate
from training.step import TrainStep
from training.validation import gauge_clips, load_fixed_clips, wrong_tokens

WARM_UP_SHARE = 0.05  # of the time, not of the steps: a hundred steps are the whole run of a slow network
CPU = ComputeDevice(torch.device("cpu"), autocast_dtype=None)


@dataclass(frozen=True)
class LossCurvePlan:
    """One training run. The runs of a comparison differ in network and seed alone."""

    network: NetworkName
    seed: int  # of all that is drawn; the networks of one seed differ in their weights alone
    training_seconds: float  # after which no further step begins; loading, validation and warm-up do not count
    parameters: int  # a key of `networks.WIDTHS`
    options: tuple[str, ...]  # of main.py

    def config(self) -> Config:
        """Return the default preset with the plan's options and seed."""
        return load_settings(Config, PRESETS, [*self.options, f"--seed={self.seed}"], program="main.py").config


@dataclass(frozen=True)
class LossPoint:
    """One validation."""

    seconds: float  # of training before it
    step: int
    loss: float


@dataclass(frozen=True)
class LossCurve:
    """What one run came to: at least one point, the first of them before any step."""

    network: NetworkName
    seed: int
    parameters: int
    points: tuple[LossPoint, ...]
    text_gap: float | None  # at the end, loss with shuffled captions minus loss with the right ones

    @property
    def last(self) -> LossPoint:
        return self.points[-1]

    @property
    def best(self) -> LossPoint:
        """The validation with the lowest loss, the first of equals; where all are NaN, the first."""
        return min(self.points, key=lambda point: math.inf if math.isnan(point.loss) else point.loss)


def curve_from_json(values: Mapping[str, Any]) -> LossCurve:
    """Rebuild a curve from what `dataclasses.asdict` made of it, after a way through JSON."""
    return LossCurve(**{**values, "points": tuple(LossPoint(**point) for point in values["points"])})


def validation_times(training_seconds: float) -> list[float]:
    """Return after how many training seconds to validate: doubling every other time, up to the end.

    Close together at first, where losses fall fastest; a slow network validates after each of its first steps.
    """
    return [training_seconds / 2 ** (halvings / 2) for halvings in range(16, -1, -1)]


class NoAverage(ExponentialMovingAverage):
    """Keeps no second copy of the weights: nothing here would look at it."""

    def __init__(self) -> None:
        pass

    def update(self, updates: int, skipped: Tensor) -> None:
        pass


class LossCurveRun:
    """One network on its way, with a clock that runs during its training steps alone."""

    def __init__(self, plan: LossCurvePlan) -> None:
        config = plan.config()
        splits = build_data(config)
        tokenizer = build_tokenizer(config, splits.symbols)
        tokens = FIRST_TOKEN + len(tokenizer.symbols)
        if tokens > VOCABULARY:
            raise UserError(f"the data has {tokens} tokens, the networks are built for {VOCABULARY}")
        # PyTorch's initialisers draw from the global generator, and nothing else in this process does.
        torch.manual_seed(derive_seed(plan.seed, "initial_weights"))
        self._plan, self._learning_rate, self._most_frames = plan, config.LEARNING_RATE, config.frames_at_once
        self._model = build_network(plan.network, image_size=config.IMAGE_SIZE, parameters=plan.parameters)
        self._objective = build_objective(config, CPU.device)
        self._optimizer = build_adamw(config, self._model)
        self._train_step = TrainStep(
            shared=SharedModel(self._model),
            ema=NoAverage(),
            optimizer=self._optimizer,
            loss_scale=LossScale(),
            objective=self._objective,
            compute=CPU,
            processes=Processes(),
            config=config,
        )
        order = BatchOrder(splits.training, config.frames_per_step, plan.seed, 0)
        self._batches = training_batches(splits.training, order, num_workers=0, tokenize=tokenizer)
        fixed = load_fixed_clips(splits.validation, tokenizer)
        shuffled = wrong_tokens(fixed, splits.training, tokenizer)
        self._gauge = gauge_clips(fixed, shuffled, CPU.device, plan.seed, "validation_noise")
        self._groups = equal_lengths([row.frames for row in fixed.rows], self._most_frames)

    def train(self) -> LossCurve:
        """Train until the time is over, validating on the way."""
        total, step, seconds = self._plan.training_seconds, 0, 0.0
        waiting = validation_times(total)
        points = [LossPoint(0.0, 0, self._validate())]
        step_seconds = self._warm_up()
        while seconds < total:
            step += 1
            # The rate of the moment when this step will have ended, so that the first step does something.
            warm = min(1.0, (seconds + step_seconds) / (WARM_UP_SHARE * total))
            batch = next(self._batches)
            start = time.perf_counter()
            set_learning_rate(self._optimizer, warm * self._learning_rate)
            self._train_step.run(step, batch)
            step_seconds = time.perf_counter() - start
            seconds += step_seconds
            if seconds >= waiting[0]:
                points.append(LossPoint(seconds, step, self._validate()))
                waiting = [moment for moment in waiting if moment > seconds]
        self._model.eval()
        use = measure_text_use(self._model, self._objective, self._gauge, self._most_frames, self._plan.seed)
        return LossCurve(
            network=self._plan.network,
            seed=self._plan.seed,
            parameters=count_parameters(self._model),
            points=tuple(points),
            text_gap=None if use.shuffled is None else use.shuffled - use.correct,
        )

    def _warm_up(self) -> float:
        """Go once forward and backward without an update, and return its seconds: memory and kernels are then ready."""
        group = self._groups[0]
        video, tokens = torch.stack([self._gauge.clips[place] for place in group]), self._gauge.tokens_BL[group]
        start = time.perf_counter()
        timestep_B = torch.zeros(video.shape[0], dtype=torch.int64)
        prediction = self._model(video, timestep_B, tokens, torch.zeros(video.shape[0], dtype=torch.bool))
        torch.autograd.backward(prediction.square().mean())
        self._model.zero_grad(set_to_none=True)
        return time.perf_counter() - start

    def _validate(self) -> float:
        self._model.eval()
        loss = validation_loss(self._model, self._objective, self._gauge, self._groups)
        self._model.train()
        return loss


@torch.no_grad()
def validation_loss(
    model: nn.Module, objective: DiffusionObjective, clips: GaugeClips, groups: Sequence[Sequence[int]]
) -> float:
    """Return what `measure_text_use` calls "correct", at a third of its cost: clip i in timestep bin i modulo 8.

    There are a multiple of 8 clips, so that every bin counts the same. `groups` of them pass at once.
    """
    bins = evenly_spaced_timesteps(TIMESTEP_BINS, objective.schedule.num_timesteps)
    losses: list[Tensor] = []
    for group in groups:
        video, noise = (torch.stack([each[place] for place in group]) for each in (clips.clips, clips.noises))
        timestep = bins[torch.tensor(group) % TIMESTEP_BINS]
        noisy = objective.noise(video, noise, timestep)
        keep = torch.zeros(len(group), dtype=torch.bool)
        prediction = model(noisy.noisy_video, timestep, clips.tokens_BL[list(group)], keep)
        losses.append(objective.loss(noisy, video, prediction).clips.unweighted_mse)
    return torch.cat(losses).mean().item()


@program
def main(arguments: Sequence[str]) -> None:
    """Run the plan and print."""
    keep_freed_memory()
    plan = LossCurvePlan(**read_plan(arguments, __doc__))
    print(json.dumps(dataclasses.asdict(LossCurveRun(plan).train())))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
