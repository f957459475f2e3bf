"""What the network predicts, and how a prediction turns into a clean video or into noise."""

from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from diffusion.schedule import NoiseSchedule

PredictionType = Literal["v_prediction", "epsilon", "sample"]


@dataclass(frozen=True)
class NoisySample:
    """A batch on its way into the network: videos [B, C, T, H, W] float32, timestep_B [B] int64."""

    noisy_video: Tensor
    timestep_B: Tensor
    noise: Tensor  # the draw that was mixed in
    target: Tensor  # what the network should say


def check_prediction_type(schedule: NoiseSchedule, prediction_type: PredictionType) -> None:
    """Refuse combinations that have no answer.

    Raises:
        ValueError: an unknown type; or ``epsilon`` with zero terminal SNR: pure noise in, pure noise out tells
            nothing of the clean video, so the first sampling step would divide by zero (Lin et al. 2023, section 3.2).
    """
    if prediction_type not in get_args(PredictionType):
        known = ", ".join(get_args(PredictionType))
        raise ValueError(f"unknown prediction type {prediction_type!r}; choose from {known}")
    if prediction_type == "epsilon" and schedule.has_zero_terminal_snr:
        raise ValueError(
            "prediction type 'epsilon' cannot be combined with zero terminal SNR: at the last timestep the noise says "
            "nothing about the video; choose 'v_prediction' or 'sample', or turn zero terminal SNR off"
        )


def add_noise(
    schedule: NoiseSchedule, prediction_type: PredictionType, video_BCTHW: Tensor, noise: Tensor, timestep_B: Tensor
) -> NoisySample:
    """Mix noise into clean videos (Ho et al. 2020, equation 4) and name the target.

    Args:
        schedule: on the device of the tensors.
        prediction_type: ``epsilon``: the target is the noise (Ho et al. 2020). ``sample``: the clean video.
            ``v_prediction``: sqrt(alphas_cumprod) * noise - sqrt(1 - alphas_cumprod) * video (Salimans & Ho 2022,
            section 4).
        video_BCTHW: float32 in [-1, 1].
        noise: standard normal, float32, the shape of `video_BCTHW`.
        timestep_B: int64, 0 to N - 1.

    Raises:
        ValueError: the prediction type does not go with the schedule, or the shapes differ.
    """
    check_prediction_type(schedule, prediction_type)
    if noise.shape != video_BCTHW.shape:
        raise ValueError(f"noise {tuple(noise.shape)} and video {tuple(video_BCTHW.shape)} must have the same shape")
    signal_rate, noise_rate = _rates(schedule, timestep_B)
    if prediction_type == "epsilon":
        target = noise
    elif prediction_type == "sample":
        target = video_BCTHW
    else:
        target = signal_rate * noise - noise_rate * video_BCTHW
    return NoisySample(
        noisy_video=signal_rate * video_BCTHW + noise_rate * noise, timestep_B=timestep_B, noise=noise, target=target
    )


def predicted_video(
    schedule: NoiseSchedule,
    prediction_type: PredictionType,
    prediction: Tensor,
    noisy_video: Tensor,
    timestep_B: Tensor,
) -> Tensor:
    """Turn a prediction into the clean video that it implies: float32, the shape of `noisy_video`, not clipped.

    Raises:
        ValueError: the prediction type does not go with the schedule.
    """
    check_prediction_type(schedule, prediction_type)
    prediction = prediction.float()
    signal_rate, noise_rate = _rates(schedule, timestep_B)
    if prediction_type == "epsilon":
        return (noisy_video - noise_rate * prediction) / signal_rate
    if prediction_type == "sample":
        return prediction
    return signal_rate * noisy_video - noise_rate * prediction


def predicted_noise(
    schedule: NoiseSchedule,
    prediction_type: PredictionType,
    prediction: Tensor,
    noisy_video: Tensor,
    timestep_B: Tensor,
) -> Tensor:
    """Turn a prediction into the noise that it implies: float32, the shape of `noisy_video`, always finite.

    At a timestep with zero SNR the answer is `noisy_video` itself, whatever the network said: it is exactly right and
    means nothing, so errors measured on it should be left out.

    Raises:
        ValueError: the prediction type does not go with the schedule.
    """
    check_prediction_type(schedule, prediction_type)
    prediction = prediction.float()
    signal_rate, noise_rate = _rates(schedule, timestep_B)
    if prediction_type == "epsilon":
        return prediction
    if prediction_type == "sample":
        return (noisy_video - signal_rate * prediction) / noise_rate
    return noise_rate * noisy_video + signal_rate * prediction


def _rates(schedule: NoiseSchedule, timestep_B: Tensor) -> tuple[Tensor, Tensor]:
    """The factors of the clean video and of the noise, each [B, 1, 1, 1, 1]."""
    signal_rate_B, noise_rate_B = schedule.rates(timestep_B)
    return signal_rate_B.reshape(-1, 1, 1, 1, 1), noise_rate_B.reshape(-1, 1, 1, 1, 1)
