"""One optimizer step."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.randomness import torch_generator
from data.records import Batch
from diffusion.loss import LossTerms, LossWeighting, loss_terms
from diffusion.prediction import NoisySample, PredictionType, add_noise
from diffusion.schedule import NoiseSchedule
from diffusion.timesteps import stratified_timesteps
from logging_system.records import DiffusionTensors, SampleStatistics
from training.device import ComputeDevice
from training.ema import ExponentialMovingAverage
from training.optimizer import step_unless


@dataclass(frozen=True)
class DiffusionObjective:
    """What the network learns: which quantity it predicts, at which noise, weighted how."""

    schedule: NoiseSchedule
    prediction_type: PredictionType
    weighting: LossWeighting
    min_snr_gamma: float
    caption_dropout: float


@dataclass(frozen=True)
class StepOutcome:
    """What a step leaves for the log, all on the device."""

    loss: Tensor
    gradient_norm: Tensor
    gradient_norm_clipped: Tensor
    skipped: Tensor
    samples: SampleStatistics
    tensors: DiffusionTensors


class TrainStep:
    """Noise, predict, compare, update: everything random in it is a function of (seed, step)."""

    def __init__(
        self,
        *,
        model: nn.Module,
        ema: ExponentialMovingAverage,
        optimizer: torch.optim.AdamW,
        objective: DiffusionObjective,
        compute: ComputeDevice,
        accumulation_steps: int,
        gradient_clip_norm: float,
        seed: int,
    ) -> None:
        self._model = model
        self._ema = ema
        self._optimizer = optimizer
        self._objective = objective
        self._compute = compute
        self._accumulation_steps = accumulation_steps
        self._gradient_clip_norm = gradient_clip_norm
        self._seed = seed
        self.is_updating = False
        """True while weights, optimizer and average are changed, and for good where that failed half way."""

    def run(self, step: int, batch: Batch) -> StepOutcome:
        """Do optimizer step `step` (1 for the first) on a batch of all micro-batches' clips.

        Where the loss or the gradient is not finite, nothing changes but the step count. Gradients stay readable
        afterwards, clipped.
        """
        noise, timestep, drop_caption = self._draw(step, batch.video_BCTHW)
        self._optimizer.zero_grad(set_to_none=True)
        terms: list[LossTerms] = []
        noisy: list[NoisySample] = []
        whole = (batch.video_BCTHW, batch.tokens_BL, noise, timestep, drop_caption)
        micro_batches = zip(*(tensor.chunk(self._accumulation_steps) for tensor in whole), strict=True)
        for micro_batch in micro_batches:
            video, tokens, noise_part, timestep_part, drop_part = (
                part.to(self._compute.device, non_blocking=True) for part in micro_batch
            )
            sample = add_noise(
                self._objective.schedule, self._objective.prediction_type, video, noise_part, timestep_part
            )
            with self._compute.autocast():
                prediction = self._model(sample.noisy_video, sample.timestep_B, tokens, drop_part)
            term = self._loss(sample, video, prediction)
            torch.autograd.backward(term.loss / self._accumulation_steps)
            terms.append(term)
            noisy.append(sample)
        loss = torch.stack([term.loss.detach() for term in terms]).mean()
        samples = _sample_statistics(terms, timestep, drop_caption)
        tensors = DiffusionTensors(
            video=video,
            actual_noise=noisy[-1].noise,
            noisy_video=noisy[-1].noisy_video,
            predicted_noise=terms[-1].predicted_noise,
            predicted_video=terms[-1].predicted_video,
            timestep=noisy[-1].timestep_B,
            is_terminal=terms[-1].is_terminal,
        )
        # Last of all: where anything before it fails, the weights are still those of the step before.
        norm, clipped, skipped = self._update(step, loss)
        return StepOutcome(loss, norm, clipped, skipped, samples, tensors)

    def _draw(self, step: int, video_BCTHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Draw a step's randomness on the CPU, so that it does not depend on the device."""
        count = video_BCTHW.shape[0]
        noise = torch.randn(video_BCTHW.shape, generator=torch_generator(self._seed, "training_noise", step))
        timestep = stratified_timesteps(
            count, self._objective.schedule.num_timesteps, torch_generator(self._seed, "training_timestep", step)
        )
        chance = torch.rand(count, generator=torch_generator(self._seed, "caption_dropout", step))
        return noise, timestep, chance < self._objective.caption_dropout

    def _loss(self, sample: NoisySample, video: Tensor, prediction: Tensor) -> LossTerms:
        objective = self._objective
        return loss_terms(
            objective.schedule,
            objective.prediction_type,
            objective.weighting,
            objective.min_snr_gamma,
            sample,
            video,
            prediction,
        )

    def _update(self, step: int, loss: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.is_updating = True
        gradients = [parameter.grad for parameter in self._model.parameters() if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        nn.utils.clip_grads_with_norm_(self._model.parameters(), self._gradient_clip_norm, norm)
        skipped = ~(torch.isfinite(loss) & torch.isfinite(norm))
        step_unless(self._optimizer, skipped)
        self._ema.update(step - 1, skipped)
        self.is_updating = False
        return norm, norm.clamp(max=self._gradient_clip_norm), skipped


def _sample_statistics(terms: list[LossTerms], timestep: Tensor, drop_caption: Tensor) -> SampleStatistics:
    """Join the micro-batches' numbers."""
    device = terms[0].weighted_loss.device
    return SampleStatistics(
        timestep=timestep.to(device, non_blocking=True),
        is_terminal=torch.cat([term.is_terminal for term in terms]),
        is_captioned=~drop_caption.to(device, non_blocking=True),
        weighted_loss=torch.cat([term.weighted_loss for term in terms]),
        unweighted_mse=torch.cat([term.unweighted_mse for term in terms]),
        predict_zero_mse=torch.cat([term.predict_zero_mse for term in terms]),
        temporal_difference_mse=torch.cat([term.temporal_difference_mse for term in terms]),
        noise_mse=torch.cat([term.noise_mse for term in terms]),
        noise_mae=torch.cat([term.noise_mae for term in terms]),
        x0_mse=torch.cat([term.x0_mse for term in terms]),
        snr_decibel=torch.cat([term.snr_decibel for term in terms]),
        alphas_cumprod=torch.cat([term.alphas_cumprod for term in terms]),
        beta=torch.cat([term.beta for term in terms]),
    )
