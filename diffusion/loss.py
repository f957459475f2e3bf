"""The training loss, and the errors worth watching beside it."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from diffusion.prediction import NoisySample, PredictionType, check_prediction_type, predicted_noise, predicted_video
from diffusion.schedule import NoiseSchedule

LossWeighting = Literal["uniform", "min_snr"]


_SMALLEST_SIGNAL_POWER = 1e-12  # -120 dB: keeps the logarithm finite for a clip that is 0 everywhere


@dataclass(frozen=True)
class LossTerms:
    """The loss of a batch, with one number a clip for each error: [B] float32, detached, unless said otherwise."""

    loss: Tensor  # scalar float32, the mean of weighted_loss, with its gradient
    weighted_loss: Tensor
    unweighted_mse: Tensor  # error of the network's own target
    predict_zero_mse: Tensor  # the error that a network which always says 0 would have
    temporal_difference_mse: Tensor  # error of the target's change from frame to frame; 0 for a single frame
    noise_mse: Tensor  # after converting to noise; 0 and without meaning where is_terminal (not for epsilon)
    noise_mae: Tensor  # likewise
    x0_mse: Tensor  # after converting to the clean video
    snr_decibel: Tensor  # 10 log10(alphas_cumprod * E[x0^2] / (1 - alphas_cumprod)); 0 where is_terminal
    alphas_cumprod: Tensor
    beta: Tensor
    is_terminal: Tensor  # bool: nothing of the clean video is left, so noise errors and SNR mean nothing
    predicted_noise: Tensor  # [B, C, T, H, W] float32
    predicted_video: Tensor  # [B, C, T, H, W] float32, not clipped


def loss_weights(
    schedule: NoiseSchedule,
    prediction_type: PredictionType,
    weighting: LossWeighting,
    min_snr_gamma: float,
    timestep_B: Tensor,
) -> Tensor:
    """Return the weight of each clip's squared error: [B] float32, always finite.

    ``uniform`` is 1. ``min_snr`` is Hang et al. 2023, section 3.4: min(SNR, gamma) on the error of the clean video,
    which is min(SNR, gamma) / SNR on the error of the noise and min(SNR, gamma) / (SNR + 1) on the error of v.
    At zero SNR that is 0 for ``sample`` and ``v_prediction``: with zero terminal SNR, the last timestep is then not
    trained at all.

    Raises:
        ValueError: an unknown weighting, gamma not above 0, or a prediction type that does not go with the schedule.
    """
    check_prediction_type(schedule, prediction_type)
    if weighting not in get_args(LossWeighting):
        raise ValueError(f"unknown loss weighting {weighting!r}; choose from {', '.join(get_args(LossWeighting))}")
    signal_power = schedule.sqrt_alphas_cumprod_N.index_select(0, timestep_B) ** 2
    if weighting == "uniform":
        return torch.ones_like(signal_power)
    if not min_snr_gamma > 0:
        raise ValueError(f"min_snr_gamma must be above 0, not {min_snr_gamma}")
    noise_power = schedule.sqrt_one_minus_alphas_cumprod_N.index_select(0, timestep_B) ** 2
    # Written without SNR itself, which is 0 or infinite at the ends: SNR = signal / noise and signal + noise = 1.
    if prediction_type == "epsilon":
        return (min_snr_gamma * noise_power / signal_power).clamp(max=1)
    if prediction_type == "sample":
        return (signal_power / noise_power).clamp(max=min_snr_gamma)
    return torch.minimum(signal_power, min_snr_gamma * noise_power)


def loss_terms(
    schedule: NoiseSchedule,
    prediction_type: PredictionType,
    weighting: LossWeighting,
    min_snr_gamma: float,
    noisy: NoisySample,
    video: Tensor,
    prediction: Tensor,
) -> LossTerms:
    """Compare a prediction with its target, in float32 whatever autocast did to the network.

    Args:
        schedule: on the device of the tensors.
        noisy: what the network was given, from :func:`diffusion.prediction.add_noise`.
        video: the clean videos [B, C, T, H, W], float32 in [-1, 1].
        prediction: the network's output, the same shape, any floating type.

    Raises:
        ValueError: as :func:`loss_weights`, or the shapes differ.
    """
    if prediction.shape != noisy.target.shape:
        raise ValueError(
            f"prediction {tuple(prediction.shape)} and target {tuple(noisy.target.shape)} must have the same shape"
        )
    weights_B = loss_weights(schedule, prediction_type, weighting, min_snr_gamma, noisy.timestep_B)
    error = prediction.float() - noisy.target
    mse_B = _mean_square(error)
    weighted_B = weights_B * mse_B
    loss = weighted_B.mean()
    with torch.no_grad():
        said = prediction.detach()
        noise = predicted_noise(schedule, prediction_type, said, noisy.noisy_video, noisy.timestep_B)
        clean = predicted_video(schedule, prediction_type, said, noisy.noisy_video, noisy.timestep_B)
        alphas_cumprod_B = schedule.alphas_cumprod_N.index_select(0, noisy.timestep_B)
        return LossTerms(
            loss=loss,
            weighted_loss=weighted_B.detach(),
            unweighted_mse=mse_B.detach(),
            predict_zero_mse=_mean_square(noisy.target),
            temporal_difference_mse=_temporal_difference_mse(error),
            noise_mse=_mean_square(noise - noisy.noise),
            noise_mae=_mean((noise - noisy.noise).abs()),
            x0_mse=_mean_square(clean - video),
            snr_decibel=_snr_decibel(schedule, video, noisy.timestep_B),
            alphas_cumprod=alphas_cumprod_B,
            beta=schedule.betas_N.index_select(0, noisy.timestep_B),
            is_terminal=alphas_cumprod_B == 0,
            predicted_noise=noise,
            predicted_video=clean,
        )


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
    signal_rate_B = schedule.sqrt_alphas_cumprod_N.index_select(0, timestep_B)
    noise_rate_B = schedule.sqrt_one_minus_alphas_cumprod_N.index_select(0, timestep_B)
    signal_power = (signal_rate_B**2 * _mean_square(video)).clamp(min=_SMALLEST_SIGNAL_POWER)
    decibel = 10 * torch.log10(signal_power / noise_rate_B**2)
    return torch.where(signal_rate_B == 0, torch.zeros_like(decibel), decibel)


@dataclass(frozen=True)
class DiffusionObjective:
    """What the network learns: which quantity it predicts, at which noise, weighted how."""

    schedule: NoiseSchedule
    prediction_type: PredictionType
    weighting: LossWeighting
    min_snr_gamma: float
    caption_dropout: float
