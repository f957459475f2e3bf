"""One optimizer step."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.randomness import torch_generator
from compute.device import ComputeDevice
from config import Config
from data.records import Batch, as_video
from diffusion.loss import ClipStatistics, DiffusionObjective
from diffusion.schedule import stratified_timesteps
from distributed.models import SharedModel
from distributed.processes import Processes
from distributed.rank_times import Stretch, moment
from logging_system.records import DiffusionTensors, SampleStatistics, StepResult
from training.optimizer import ExponentialMovingAverage, LossScale, step_unless, total_norm

DURATION_WEIGHT = 0.1
"""Of the error of durations beside the diffusion loss: it teaches the text encoder little else."""


@dataclass(frozen=True, kw_only=True)
class StepOutcome(StepResult):
    """What a step leaves for the loop and the log, all on the device.

    Attributes:
        fault: scalar int64, the lowest rank whose loss was not finite; 0 if all losses were finite.
        request: scalar, the largest number that a process sent to the others.
        own_work: how long this process worked, by micro-batch, before it had to wait for the others.
    """

    fault: Tensor
    request: Tensor
    own_work: tuple[Stretch, ...]


@dataclass(frozen=True)
class _MicroBatch:
    """What one micro-batch leaves in addition to its gradients, all on the device."""

    loss: Tensor  # its part of the process's loss
    clips: ClipStatistics
    duration_error_B: Tensor
    tensors: DiffusionTensors
    own_work: Stretch


class TrainStep:
    """Noise, predict, compare, update.

    The gradient is that of the mean over all clips of the step, which may not divide evenly: some processes and
    micro-batches then have one clip more than others. All randomness is a function of the seed, the step and the
    position of the clip in the global batch. So nothing depends on how many processes share the clips.
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
        self._drawing = ThreadPoolExecutor(1, "noise")
        self._ahead: dict[int, Future[Tensor]] = {}  # noise by the step that it is for
        self.is_updating = False
        """True while weights, optimizer and average change; stays True if an update failed half-way."""

    def draw_ahead(self, step: int, shape_BTHWC: Sequence[int]) -> None:
        """Begin to draw the noise of a later step in a thread, so that `draw` need not: 23 ms of `base`.

        `shape_BTHWC`: of this process's clips of that step.
        """
        noise = self._empty_noise(shape_BTHWC)
        self._ahead[step] = self._drawing.submit(self._fill, noise, step)

    def run(self, step: int, batch: Batch, request: int = 0) -> StepOutcome:
        """Do optimizer step `step` (1 for the first) on the clips of all its micro-batches.

        If the loss or the gradient is not finite on any process, nothing changes but the step count. The gradients stay
        readable afterwards, clipped.

        Args:
            step: its number.
            batch: this process's clips, on the host.
            request: a number to send to the other processes; all of them get the largest (`stopping.EndOfRun`).
        """
        noise, timestep, drop_caption = self.draw(step, batch)
        timestep, drop_caption = self._compute.send(timestep), self._compute.send(drop_caption)
        self._optimizer.zero_grad(set_to_none=True)
        inputs = (batch.clips_BTHWC, batch.tokens_BL, batch.seconds_B, noise, timestep, drop_caption)
        parts = self._config.GRADIENT_ACCUMULATION_STEPS
        chunks = list(zip(*(tensor.tensor_split(parts) for tensor in inputs), strict=True))
        micro_batches: list[_MicroBatch] = []
        for number, chunk in enumerate(chunks, start=1):
            with nullcontext() if number == len(chunks) else self._shared.no_sync():
                micro_batches.append(self._add_gradients(*chunk, clips_in_step=batch.clips_in_step))
        clips = ClipStatistics.concatenate([each.clips for each in micro_batches])
        duration_error = torch.cat([each.duration_error_B for each in micro_batches])
        samples = SampleStatistics(**vars(clips), is_captioned=~drop_caption, duration_error=duration_error)
        return self._use_gradients(step, micro_batches, samples, batch.clips_in_step, request)

    def draw(self, step: int, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Draw what a step adds to its clips, on the CPU, so that the numbers do not depend on the device.

        The values of a clip depend on its position in the global batch. With N processes, this one has every N-th clip.

        Args:
            step: its number.
            batch: this process's clips.

        Returns:
            Noise [B, C, T, H, W] float32, timesteps [B] int64, and which clips lose their caption, [B] bool.
        """
        ahead = self._ahead.pop(step, None)
        noise = self._fill(self._empty_noise(batch.clips_BTHWC.shape), step) if ahead is None else ahead.result()
        count, mine = batch.clips_in_step, self._processes.part.own
        timestep = stratified_timesteps(
            count, self._objective.schedule.num_timesteps, torch_generator(self._config.SEED, "training_timestep", step)
        )
        chance = torch.rand(count, generator=torch_generator(self._config.SEED, "caption_dropout", step))
        return noise, timestep[mine], (chance < self._objective.caption_dropout)[mine]

    def _empty_noise(self, shape_BTHWC: Sequence[int]) -> Tensor:
        clips, frames, height, width, channels = shape_BTHWC
        return self._compute.empty_on_host((clips, channels, frames, height, width))

    def _fill(self, noise: Tensor, step: int) -> Tensor:
        part = self._processes.part
        for number, own in enumerate(noise):
            position = part.rank + number * part.world_size
            own.normal_(generator=torch_generator(self._config.SEED, "training_noise", step, position))
        return noise

    def _add_gradients(
        self,
        clips: Tensor,
        tokens: Tensor,
        seconds: Tensor,
        noise: Tensor,
        timestep: Tensor,
        drop_caption: Tensor,
        *,
        clips_in_step: int,
    ) -> _MicroBatch:
        """Do the forward and backward pass of a micro-batch; all but timestep and drop_caption are on the host."""
        begun = moment(self._compute.device)
        clips, tokens, seconds, noise = (self._compute.send(tensor) for tensor in (clips, tokens, seconds, noise))
        video = as_video(clips)
        sample = self._objective.noise(video, noise, timestep)
        with self._compute.autocast():
            prediction, log_seconds_B = self._shared(sample.noisy_video, sample.timestep_B, tokens, drop_caption)
        terms = self._objective.loss(sample, video, prediction)
        own_work = Stretch(begun, moment(self._compute.device))
        # Its part of the mean over the step's clips, times the processes, over whose gradients the mean is taken.
        share = clips_in_step / (len(clips) * self._processes.part.world_size)
        loss = terms.loss / share
        # Not its likelihood: the gradient of that grows with the network's certainty, without a bound.
        duration_loss = 0.5 * (seconds.log() - log_seconds_B).square().mean() / share
        torch.autograd.backward(self._loss_scale.scale(loss + DURATION_WEIGHT * duration_loss))
        tensors = DiffusionTensors(
            video=video,
            actual_noise=sample.noise,
            predicted_noise=terms.predicted_noise,
            timestep=sample.timestep_B,
            is_terminal=terms.clips.is_terminal,
        )
        duration_error_B = (log_seconds_B.detach().exp() / seconds - 1).abs()
        return _MicroBatch(loss.detach(), terms.clips, duration_error_B, tensors, own_work)

    def _use_gradients(
        self,
        step: int,
        micro_batches: list[_MicroBatch],
        samples: SampleStatistics,
        clips_in_step: int,
        request: int,
    ) -> StepOutcome:
        """Update the weights, unless the loss or the gradient of a process is not finite."""
        self._loss_scale.unscale(self._optimizer)
        norm = total_norm(self._parameters)
        own_loss = torch.stack([each.loss for each in micro_batches]).sum()
        numbers = (own_loss, norm, own_loss.new_full((), request))
        (loss_R, norm_R, request_R), samples = self._gather(numbers, samples, clips_in_step)
        loss = loss_R.mean()
        is_finite_R = torch.isfinite(loss_R)
        skipped = ~(is_finite_R & torch.isfinite(norm_R)).all()
        # The update comes last: if anything before it fails, the weights are still those of the step before.
        self._update(step, norm, skipped)
        scaled = self._loss_scale.update(loss)
        return StepOutcome(
            loss=loss,
            gradient_norm=norm,
            gradient_norm_clipped=norm.clamp(max=self._config.GRADIENT_CLIP_NORM),
            skipped=skipped & ~scaled.overflowed,
            overflowed=scaled.overflowed,
            loss_scale=scaled.scale,
            samples=samples,
            tensors=micro_batches[-1].tensors,
            fault=(~is_finite_R).int().argmax(),
            request=request_R.max(),
            own_work=tuple(each.own_work for each in micro_batches),
        )

    def _gather(
        self, numbers: tuple[Tensor, ...], samples: SampleStatistics, clips_in_step: int
    ) -> tuple[tuple[Tensor, ...], SampleStatistics]:
        """Gather scalars, one of each rank ([R]), and the statistics of all clips, with one message."""
        own = vars(samples)
        rows = [*(row.float() for row in own.values()), *(each.expand(len(samples.timestep)) for each in numbers)]
        gathered = self._processes.gather_clips(torch.stack(rows), clips_in_step)
        # The first clips of the global batch belong to one rank each.
        of_ranks = tuple(row[: self._processes.part.world_size] for row in gathered[len(own) :])
        rows_of_clips = zip(own.items(), gathered[: len(own)], strict=True)
        of_clips = {name: row.to(each.dtype) for (name, each), row in rows_of_clips}
        return of_ranks, SampleStatistics(**of_clips)

    def _update(self, step: int, norm: Tensor, skipped: Tensor) -> None:
        self.is_updating = True
        nn.utils.clip_grads_with_norm_(self._parameters, self._config.GRADIENT_CLIP_NORM, norm)
        step_unless(self._optimizer, skipped)
        self._ema.update(step - 1, skipped)
        self.is_updating = False
