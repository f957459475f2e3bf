"""One optimizer step."""

from contextlib import nullcontext
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from common.randomness import torch_generator
from compute.device import ComputeDevice
from config import Config
from data.records import Batch
from diffusion.loss import ClipStatistics, DiffusionObjective, LossTerms
from diffusion.prediction import NoisySample
from diffusion.schedule import stratified_timesteps
from distributed.models import SharedModel
from distributed.processes import Processes
from distributed.rank_times import Stretch, moment
from logging_system.records import DiffusionTensors, SampleStatistics
from training.optimizer import ExponentialMovingAverage, LossScale, step_unless, total_norm


@dataclass(frozen=True)
class StepOutcome:
    """What a step leaves for the log, all on the device and, but for `tensors`, the same on every process.

    Attributes:
        skipped: scalar bool: the loss or the gradient was not finite, so nothing was changed.
        overflowed: scalar bool: only the scale of float16 gradients was too large. Nothing was changed either, but
            nothing is wrong, and `skipped` is False.
        loss_scale: scalar, what the loss was multiplied by; None where nothing is scaled.
        fault: scalar int64, the rank whose loss was not finite; 0 where no loss was the reason.
        request: scalar, the largest number that a process told the others.
        tensors: of this process's last micro-batch.
        own_work: how long this process worked on its own, before it had to wait for the others.
    """

    loss: Tensor
    gradient_norm: Tensor
    gradient_norm_clipped: Tensor
    skipped: Tensor
    overflowed: Tensor
    loss_scale: Tensor | None
    fault: Tensor
    request: Tensor
    samples: SampleStatistics
    tensors: DiffusionTensors
    own_work: tuple[Stretch, ...]


@dataclass(frozen=True)
class _Seen:
    """A step as all processes see it, of all clips; each field as in `StepOutcome`."""

    loss: Tensor
    skipped: Tensor
    fault: Tensor
    request: Tensor
    samples: SampleStatistics


@dataclass(frozen=True)
class _MicroBatch:
    """What one micro-batch leaves beside its gradients, all on the device."""

    video: Tensor
    sample: NoisySample
    terms: LossTerms
    own_work: Stretch

    def tensors(self) -> DiffusionTensors:
        return DiffusionTensors(
            video=self.video,
            actual_noise=self.sample.noise,
            noisy_video=self.sample.noisy_video,
            predicted_noise=self.terms.predicted_noise,
            predicted_video=self.terms.predicted_video,
            timestep=self.sample.timestep_B,
            is_terminal=self.terms.clips.is_terminal,
        )


class TrainStep:
    """Noise, predict, compare, update.

    Everything random in it is a function of (seed, step, place of the clip in the step), so that it does not depend on
    how many processes share the clips.
    """

    def __init__(
        self,
        *,
        shared: SharedModel,
        ema: ExponentialMovingAverage,
        optimizer: torch.optim.Optimizer,
        loss_scale: LossScale,
        objective: DiffusionObjective,
        compute: ComputeDevice,
        processes: Processes,
        config: Config,
    ) -> None:
        self._shared = shared
        self._parameters = [parameter for parameter in shared.model.parameters() if parameter.requires_grad]
        self._ema = ema
        self._optimizer = optimizer
        self._loss_scale = loss_scale
        self._objective = objective
        self._compute = compute
        self._processes = processes
        self._config = config
        self.is_updating = False
        """True while weights, optimizer and average are changed, and for good where that failed half way."""

    def run(self, step: int, batch: Batch, request: int = 0) -> StepOutcome:
        """Do optimizer step `step` (1 for the first) on a batch of all micro-batches' clips.

        Each process may tell the others a number, `request`, and learns the largest (`end_of_run`).

        Where the loss or the gradient is not finite, on any process, nothing changes but the step count. Gradients stay
        readable afterwards, clipped.
        """
        noise, timestep, drop_caption = self._draw(step, batch.video_BCTHW)
        timestep, drop_caption = self._compute.send(timestep), self._compute.send(drop_caption)
        self._optimizer.zero_grad(set_to_none=True)
        whole = (batch.video_BCTHW, batch.tokens_BL, noise, timestep, drop_caption)
        micro_batches = list(
            zip(*(tensor.chunk(self._config.GRADIENT_ACCUMULATION_STEPS) for tensor in whole), strict=True)
        )
        learned: list[_MicroBatch] = []
        for number, micro_batch in enumerate(micro_batches, start=1):
            with nullcontext() if number == len(micro_batches) else self._shared.no_sync():
                learned.append(self._add_gradients(*micro_batch))
        clips = ClipStatistics.concatenate([each.terms.clips for each in learned])
        samples = SampleStatistics(**vars(clips), is_captioned=~drop_caption)
        return self._use_gradients(step, learned, samples, request)

    def _add_gradients(
        self, video: Tensor, tokens: Tensor, noise: Tensor, timestep: Tensor, drop_caption: Tensor
    ) -> _MicroBatch:
        """Do the forward and backward pass of a micro-batch; its video, tokens and noise are on the host."""
        begun = moment(self._compute.device)
        video, tokens, noise = (self._compute.send(tensor) for tensor in (video, tokens, noise))
        sample = self._objective.noise(video, noise, timestep)
        with self._compute.autocast():
            prediction = self._shared(sample.noisy_video, sample.timestep_B, tokens, drop_caption)
        terms = self._objective.loss(sample, video, prediction)
        own_work = Stretch(begun, moment(self._compute.device))
        torch.autograd.backward(self._loss_scale.scale(terms.loss / self._config.GRADIENT_ACCUMULATION_STEPS))
        return _MicroBatch(video, sample, terms, own_work)

    def _use_gradients(
        self, step: int, learned: list[_MicroBatch], samples: SampleStatistics, request: int
    ) -> StepOutcome:
        """Update the weights with what all micro-batches and processes have learned."""
        self._loss_scale.unscale(self._optimizer)
        norm = total_norm(self._parameters)
        loss = torch.stack([each.terms.loss.detach() for each in learned]).mean()
        seen = self._seen_by_all(loss, norm, request, samples)
        # Last of all: where anything before it fails, the weights are still those of the step before.
        self._update(step, norm, seen.skipped)
        scaled = self._loss_scale.update(seen.loss)
        return StepOutcome(
            loss=seen.loss,
            gradient_norm=norm,
            gradient_norm_clipped=norm.clamp(max=self._config.GRADIENT_CLIP_NORM),
            skipped=seen.skipped & ~scaled.overflowed,
            overflowed=scaled.overflowed,
            loss_scale=scaled.scale,
            fault=seen.fault,
            request=seen.request,
            samples=seen.samples,
            tensors=learned[-1].tensors(),
            own_work=tuple(each.own_work for each in learned),
        )

    def _draw(self, step: int, video_BCTHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Draw a step's randomness on the CPU, so that it does not depend on the device.

        What belongs to a clip depends on its place in the global batch, of which this process has every so manyth.
        """
        rank, world_size = self._processes.part.rank, self._processes.part.world_size
        count = world_size * video_BCTHW.shape[0]
        mine = slice(rank, None, world_size)
        noise = torch.empty(video_BCTHW.shape)
        for own, place in zip(noise, range(count)[mine], strict=True):
            own.normal_(generator=torch_generator(self._config.SEED, "training_noise", step, place))
        timestep = stratified_timesteps(
            count, self._objective.schedule.num_timesteps, torch_generator(self._config.SEED, "training_timestep", step)
        )
        chance = torch.rand(count, generator=torch_generator(self._config.SEED, "caption_dropout", step))
        return noise, timestep[mine], (chance < self._objective.caption_dropout)[mine]

    def _seen_by_all(self, loss: Tensor, norm: Tensor, request: int, samples: SampleStatistics) -> _Seen:
        """Put together what the processes have seen, and decide for all of them whether the step counts."""
        of_clips = {field.name: getattr(samples, field.name) for field in fields(SampleStatistics)}
        clips = samples.timestep.shape[0]
        own = (loss, norm, loss.new_full((), request))
        rows = [*(each.float() for each in of_clips.values()), *(number.expand(clips) for number in own)]
        *gathered, losses, norms, requests = self._processes.gather_clips(torch.stack(rows))
        # The first clips of the global batch belong to one rank each.
        loss_R, norm_R, request_R = (row[: self._processes.part.world_size] for row in (losses, norms, requests))
        finite_R = torch.isfinite(loss_R)
        return _Seen(
            loss=loss_R.mean(),
            skipped=~(finite_R & torch.isfinite(norm_R)).all(),
            fault=(~finite_R).int().argmax(),
            request=request_R.max(),
            samples=SampleStatistics(
                **{name: row.to(each.dtype) for (name, each), row in zip(of_clips.items(), gathered, strict=True)}
            ),
        )

    def _update(self, step: int, norm: Tensor, skipped: Tensor) -> None:
        self.is_updating = True
        nn.utils.clip_grads_with_norm_(self._parameters, self._config.GRADIENT_CLIP_NORM, norm)
        step_unless(self._optimizer, skipped)
        self._ema.update(step - 1, skipped)
        self.is_updating = False
