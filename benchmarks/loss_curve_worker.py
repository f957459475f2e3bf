"""Train one network for a given time and print its validation losses: a worker of benchmarks.time_to_loss.

One argument, a `LossCurvePlan` as JSON; the last line on stdout is a `LossCurve` as JSON, progress goes to stderr.
Every network gets the same clips, objective and optimizer, through the trainer's own code, in float32 and with freed
memory kept, as main.py does. The raw weights are validated: an average over the few steps of a slow network would
still be made of its initial weights.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Generator, Sequence

import numpy
import torch
from torch import Tensor, nn

from benchmarks.allocation import keeps_freed_memory
from benchmarks.loss_curves import LossCurve, LossCurvePlan, LossPoint, validation_times
from benchmarks.networks import VOCABULARY, build_network
from common.errors import UserError
from common.randomness import derive_seed, torch_generator
from common.settings import config_as_json, config_from_json
from compute.device import ComputeDevice
from compute.memory import keep_freed_memory
from config import Config
from data.batches import load_batch, training_batches
from data.build import build_data
from data.records import Batch, ClipRow, ClipSource
from diffusion.loss import DiffusionObjective
from diffusion.schedule import evenly_spaced_timesteps
from distributed.models import SharedModel
from distributed.processes import Processes
from measures.text_use import TIMESTEP_BINS, GaugeClips, measure_text_use
from models.build import build_objective, build_tokenizer
from models.tokens import FIRST_TOKEN
from training.optimizer import ExponentialMovingAverage, NoLossScale, build_optimizer, set_learning_rate
from training.step import TrainStep
from training.validation import wrong_tokens

WARM_UP_SHARE = 0.05  # of the time, not of the steps: a hundred steps are the whole run of a slow network
CPU = ComputeDevice(torch.device("cpu"), autocast_dtype=None)


class ClipsInMemory:
    """The first clips of a source's first epoch, loaded once, as a source whose epochs are all the same."""

    def __init__(self, source: ClipSource) -> None:
        self._rows = [source.row(0, index) for index in range(len(source))]
        self._clip_of_id = {row.id: source.load(row) for row in self._rows}

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, epoch: int, index: int) -> ClipRow:
        return self._rows[index]

    def groups(self) -> None:
        return None

    def load(self, row: ClipRow) -> numpy.ndarray:
        return self._clip_of_id[row.id]


class NoAverage(ExponentialMovingAverage):
    """Keeps no second copy of the weights: nothing here would look at it."""

    def __init__(self) -> None:
        pass

    def update(self, updates: int, skipped: Tensor) -> None:
        pass


class LossCurveRun:
    """One network on its way, with a clock that runs during its training steps alone."""

    def __init__(self, plan: LossCurvePlan) -> None:
        """Load the clips and build the network.

        Raises:
            UserError: the settings do not fit together.
        """
        config = config_for(plan)
        splits = build_data(config)
        tokenizer = build_tokenizer(config, splits.symbols)
        tokens = FIRST_TOKEN + len(tokenizer.symbols)
        if tokens > VOCABULARY:
            raise UserError(f"the data has {tokens} tokens, the networks are built for {VOCABULARY}")
        training = ClipsInMemory(splits.training)
        # PyTorch's initialisers draw from the global generator, and nothing else in this process does.
        torch.manual_seed(derive_seed(plan.seed, "initial_weights"))
        self._plan = plan
        self._model = build_network(plan.network, image_size=plan.image_size, parameters=plan.parameters)
        self._objective = build_objective(config, CPU.device)
        self._optimizer = build_optimizer(
            self._model,
            learning_rate=plan.learning_rate,
            betas=(config.ADAM_BETA_1, config.ADAM_BETA_2),
            weight_decay=config.WEIGHT_DECAY,
        )
        self._train_step = TrainStep(
            shared=SharedModel(self._model),
            ema=NoAverage(),
            optimizer=self._optimizer,
            objective=self._objective,
            compute=CPU,
            processes=Processes(),
            loss_scale=NoLossScale(),
            accumulation_steps=1,
            gradient_clip_norm=config.GRADIENT_CLIP_NORM,
            seed=plan.seed,
        )
        self._batches: Generator[Batch, None, None] = training_batches(
            training, batch_size=plan.batch_size, seed=plan.seed, start_batch=0, num_workers=0, tokenize=tokenizer
        )
        rows = [splits.validation.row(0, index) for index in range(len(splits.validation))]
        batch = load_batch(splits.validation, rows, tokenizer)
        self._gauge = GaugeClips(
            video_BCTHW=batch.video_BCTHW,
            tokens_BL=batch.tokens_BL,
            shuffled_tokens_BL=wrong_tokens(batch, training, tokenizer),
            noise_BCTHW=torch.randn(batch.video_BCTHW.shape, generator=torch_generator(plan.seed, "validation_noise")),
        )

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
            start = time.perf_counter()
            set_learning_rate(self._optimizer, warm * self._plan.learning_rate)
            self._train_step.run(step, next(self._batches))
            step_seconds = time.perf_counter() - start
            seconds += step_seconds
            if seconds >= waiting[0]:
                points.append(LossPoint(seconds, step, self._validate()))
                waiting = [moment for moment in waiting if moment > seconds]
                self._report(points[-1])
        self._model.eval()
        use = measure_text_use(
            self._model,
            self._objective,
            self._gauge,
            self._plan.batch_size,
            self._plan.seed,
        )
        return LossCurve(
            network=self._plan.network,
            seed=self._plan.seed,
            parameters=sum(parameter.numel() for parameter in self._model.parameters()),
            learning_rate=self._plan.learning_rate,
            points=tuple(points),
            predict_zero=use.predict_zero,
            text_gap=None if use.shuffled is None else use.shuffled - use.correct,
        )

    def _warm_up(self) -> float:
        """Go once forward and backward without an update, and return its seconds: memory and kernels are then ready."""
        count = self._plan.batch_size
        video, tokens = self._gauge.video_BCTHW[:count], self._gauge.tokens_BL[:count]
        start = time.perf_counter()
        timestep_B = torch.zeros(video.shape[0], dtype=torch.int64)
        prediction = self._model(video, timestep_B, tokens, torch.zeros(video.shape[0], dtype=torch.bool))
        torch.autograd.backward(prediction.square().mean())
        self._model.zero_grad(set_to_none=True)
        return time.perf_counter() - start

    def _validate(self) -> float:
        self._model.eval()
        loss = validation_loss(self._model, self._objective, self._gauge, self._plan.batch_size)
        self._model.train()
        return loss

    def _report(self, point: LossPoint) -> None:
        print(f"  step {point.step}, {point.seconds:.1f} s: loss {point.loss:.4f}", file=sys.stderr, flush=True)


def config_for(plan: LossCurvePlan) -> Config:
    """Return the default preset with the plan's seed and sizes.

    Raises:
        UserError: the sizes do not fit together.
    """
    changes = {
        "SEED": plan.seed,
        "IMAGE_SIZE": plan.image_size,
        "NUM_FRAMES": plan.num_frames,
        "BATCH_SIZE": plan.batch_size,
        "EPOCH_SIZE": plan.training_clips,
        "VALIDATION_CLIPS": plan.validation_clips,
        "CACHE_DIR": plan.cache_folder,
    }
    return config_from_json(Config, config_as_json(Config()) | changes)


@torch.no_grad()
def validation_loss(model: nn.Module, objective: DiffusionObjective, clips: GaugeClips, batch_size: int) -> float:
    """Return what `measure_text_use` calls "correct", at a third of its cost: clip i in timestep bin i modulo 8.

    Args:
        clips: a multiple of 8, so that every bin counts the same.
    """
    bins = evenly_spaced_timesteps(TIMESTEP_BINS, objective.schedule.num_timesteps)
    timestep_B = bins[torch.arange(clips.video_BCTHW.shape[0]) % TIMESTEP_BINS]
    losses: list[Tensor] = []
    whole = (clips.video_BCTHW, clips.tokens_BL, clips.noise_BCTHW, timestep_B)
    for video, tokens, noise, timestep in zip(*(tensor.split(batch_size) for tensor in whole), strict=True):
        noisy = objective.noise(video, noise, timestep)
        prediction = model(noisy.noisy_video, timestep, tokens, torch.zeros(video.shape[0], dtype=torch.bool))
        losses.append(objective.loss(noisy, video, prediction).clips.unweighted_mse)
    return torch.cat(losses).mean().item()


def main(arguments: Sequence[str]) -> int:
    """Run the plan; return the exit code."""
    plan = LossCurvePlan(**json.loads(arguments[0]))
    if keeps_freed_memory(plan.network, plan.allocation):
        keep_freed_memory()
    try:
        curve = LossCurveRun(plan).train()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(dataclasses.asdict(curve)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
