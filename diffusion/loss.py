"""The training loss, and further errors of the same prediction."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal, Self, get_args

import torch
from torch import Tensor, nn

from diffusion.prediction import (
    NoisySample,
    PredictionType,
    add_noise,
    check_prediction_type,
    predicted_noise,
    predicted_video,
)
from diffusion.schedule import NoiseSchedule

LossWeighting = Literal["uniform", "min_snr", "snr_plus_one"]

_MOTION_NEIGHBOURHOOD = 5  # pixels, each way: what moves is measured over squares of so many
_LARGEST_MOTION = 8.0  # in parts of a clip's mean: a few places that move much more would get nearly all of the loss
_SMALLEST_SIGNAL_POWER = 1e-12  # -120 dB: keeps the logarithm finite for a clip that is 0 everywhere


@dataclass(frozen=True)
class ClipStatistics:
    """One number for each clip: [B] float32, detached, unless said otherwise.

    `is_terminal` marks clips of which the noise has left nothing. Converting a prediction to noise divides by the
    signal there, so noise errors and SNR mean nothing for these clips.
    """

    timestep: Tensor  # int64, 0 to N - 1
    is_terminal: Tensor  # bool
    weighted_loss: Tensor  # what the optimizer minimises
    unweighted_mse: Tensor  # error of the network's own target
    predict_zero_mse: Tensor  # the error that a network which always says 0 would have
    temporal_difference_mse: Tensor  # error of the target's change from frame to frame; 0 for a single frame
    noise_mse: Tensor  # after converting the prediction to noise; 0 where is_terminal (not for epsilon)
    noise_mae: Tensor  # likewise
    x0_mse: Tensor  # after converting the prediction to the clean video
    snr_decibel: Tensor  # 10 log10(alphas_cumprod * E[x0^2] / (1 - alphas_cumprod)); 0 where is_terminal
    alphas_cumprod: Tensor
    beta: Tensor

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Join the clips of several batches, in order."""
        return cls(**{each.name: torch.cat([getattr(part, each.name) for part in parts]) for each in fields(cls)})


@dataclass(frozen=True)
class LossTerms:
    """The loss of a batch, and what else its prediction says."""

    loss: Tensor  # scalar float32, the mean of clips.weighted_loss, with its gradient
    clips: ClipStatistics
    predicted_noise: Tensor  # [B, C, T, H, W] float32
    predicted_video: Tensor  # [B, C, T, H, W] float32, not clipped


@dataclass(frozen=True)
class DiffusionObjective:
    """What the network learns: which quantity it predicts, at which noise, weighted how.

    Raises:
        ValueError: an unknown weighting, gamma not above 0, or a prediction type that does not go with the schedule or
            the weighting.
    """

    schedule: NoiseSchedule  # on the device of the tensors that the methods are given
    prediction_type: PredictionType
    # "min_snr" is Hang et al. 2023, section 3.4: min(SNR, gamma) on the clean video's error. "snr_plus_one" is that of
    # Salimans & Ho 2022, section 4, the squared error of v, bounded in the same way: min(SNR + 1, gamma).
    weighting: LossWeighting
    min_snr_gamma: float
    caption_dropout: float  # share of the clips that are learned without a caption
    motion_weight: float  # see `motion_weights`; 0 weighs all places alike

    def __post_init__(self) -> None:
        check_prediction_type(self.schedule, self.prediction_type)
        if self.weighting not in get_args(LossWeighting):
            known = ", ".join(get_args(LossWeighting))
            raise ValueError(f"unknown loss weighting {self.weighting!r}; choose from {known}")
        if self.weighting == "snr_plus_one" and self.prediction_type == "epsilon":
            raise ValueError("snr_plus_one would weigh an error of the noise without bound where noise is nearly all")
        if self.weighting != "uniform" and not self.min_snr_gamma > 0:
            raise ValueError(f"min_snr_gamma must be above 0, not {self.min_snr_gamma}")

    def noise(self, video: Tensor, noise: Tensor, timestep_B: Tensor) -> NoisySample:
        """Mix noise into clean videos; arguments and errors as for :func:`diffusion.prediction.add_noise`."""
        return add_noise(self.schedule, self.prediction_type, video, noise, timestep_B)

    def weights(self, timestep_B: Tensor) -> Tensor:
        """Return the weight of each clip's squared error: [B] float32, always finite.

        ``min_snr`` is min(SNR, gamma) / SNR on the error of the noise and min(SNR, gamma) / (SNR + 1) on that of v. At
        zero SNR it is 0 for ``sample`` and ``v_prediction``: with zero terminal SNR, the last timestep is not trained.
        ``snr_plus_one`` is min(SNR + 1, gamma) on the error of the clean video, and min(1, gamma / (SNR + 1)) on that
        of v.
        """
        signal_rate_B, noise_rate_B = self.schedule.rates(timestep_B)
        if self.weighting == "uniform":
            return torch.ones_like(signal_rate_B)
        signal_power, noise_power = signal_rate_B**2, noise_rate_B**2
        # Written without SNR itself, which is 0 or infinite at the ends: SNR = signal / noise and signal + noise = 1.
        if self.weighting == "snr_plus_one":
            of_sample = (1 / noise_power).clamp(max=self.min_snr_gamma)
            return of_sample if self.prediction_type == "sample" else of_sample * noise_power
        if self.prediction_type == "epsilon":
            return (self.min_snr_gamma * noise_power / signal_power).clamp(max=1)
        if self.prediction_type == "sample":
            return (signal_power / noise_power).clamp(max=self.min_snr_gamma)
        return torch.minimum(signal_power, self.min_snr_gamma * noise_power)

    def loss(self, sample: NoisySample, video: Tensor, prediction: Tensor) -> LossTerms:
        """Compare a prediction with its target, in float32 whatever autocast did to the network.

        Args:
            sample: what the network was given.
            video: the clean videos [B, C, T, H, W], float32 in [-1, 1].
            prediction: the network's output, the same shape, any floating type.

        Raises:
            ValueError: the shapes differ.
        """
        if prediction.shape != sample.target.shape:
            shapes = f"prediction {tuple(prediction.shape)} and target {tuple(sample.target.shape)}"
            raise ValueError(f"{shapes} must have the same shape")
        schedule, timestep_B = self.schedule, sample.timestep_B
        error = prediction.float() - sample.target
        mse_B = _mean_square(error)
        placed_B = mse_B  # of all places, each by how much it counts
        if self.motion_weight > 0:
            placed_B = _mean(error.square() * motion_weights(video, self.motion_weight))
        weighted_B = self.weights(timestep_B) * placed_B
        with torch.no_grad():
            given = (schedule, self.prediction_type, prediction.detach(), sample.noisy_video, timestep_B)
            noise, clean = predicted_noise(*given), predicted_video(*given)
            alphas_cumprod_B = schedule.alphas_cumprod_N.index_select(0, timestep_B)
            clips = ClipStatistics(
                timestep=timestep_B,
                is_terminal=alphas_cumprod_B == 0,
                weighted_loss=weighted_B.detach(),
                unweighted_mse=mse_B.detach(),
                predict_zero_mse=_mean_square(sample.target),
                temporal_difference_mse=_temporal_difference_mse(error),
                noise_mse=_mean_square(noise - sample.noise),
                noise_mae=_mean((noise - sample.noise).abs()),
                x0_mse=_mean_square(clean - video),
                snr_decibel=_snr_decibel(schedule, video, timestep_B),
                alphas_cumprod=alphas_cumprod_B,
                beta=schedule.betas_N.index_select(0, timestep_B),
            )
        return LossTerms(weighted_B.mean(), clips, noise, clean)


def motion_weights(video_BCTHW: Tensor, strength: float) -> Tensor:
    """Return how much the error of each place counts in the loss: [B, 1, T, H, W] float32, of mean 1 in each clip.

    Hands are a few per cent of the pixels of a person, so that a plain mean hardly asks for them. How much a place
    moves is how far it is from the mean over time, taken over a small square around it, in parts of the clip's mean.

    Args:
        video_BCTHW: clean clips, float32 in [-1, 1].
        strength: above 0; a place that moves as much as the mean one counts 1 + strength times what a still one does.
    """
    deviation_BTHW = (video_BCTHW - video_BCTHW.mean(dim=2, keepdim=True)).abs().mean(dim=1)
    side = _MOTION_NEIGHBOURHOOD
    # Squares at the edges are smaller, not darker: hands at the edge of a frame count as much as in the middle.
    moves_BTHW = nn.functional.avg_pool2d(deviation_BTHW, side, stride=1, padding=side // 2, count_include_pad=False)
    mean_B111 = moves_BTHW.mean(dim=(1, 2, 3), keepdim=True).clamp(min=1e-6)  # above 0 also where nothing moves
    weights_BTHW = 1 + strength * (moves_BTHW / mean_B111).clamp(max=_LARGEST_MOTION)
    return (weights_BTHW / weights_BTHW.mean(dim=(1, 2, 3), keepdim=True))[:, None]


def _mean(values: Tensor) -> Tensor:
    """The mean of each clip: [B]. Without a reshape, which would copy channels-last tensors."""
    return values.mean(dim=tuple(range(1, values.ndim)))


def _mean_square(values: Tensor) -> Tensor:
    return _mean(values.square())


def _temporal_difference_mse(error_BCTHW: Tensor) -> Tensor:
    if error_BCTHW.shape[2] == 1:
        return error_BCTHW.new_zeros(error_BCTHW.shape[0])
    return _mean_square(error_BCTHW.diff(dim=2))


def _snr_decibel(schedule: NoiseSchedule, video: Tensor, timestep_B: Tensor) -> Tensor:
    signal_rate_B, noise_rate_B = schedule.rates(timestep_B)
    signal_power = (signal_rate_B**2 * _mean_square(video)).clamp(min=_SMALLEST_SIGNAL_POWER)
    decibel = 10 * torch.log10(signal_power / noise_rate_B**2)
    return torch.where(signal_rate_B == 0, torch.zeros_like(decibel), decibel)
