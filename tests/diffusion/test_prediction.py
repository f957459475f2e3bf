from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diffusion.prediction import add_noise, predicted_noise, predicted_video
from diffusion.schedule import NoiseSchedule, build_noise_schedule

MakeVideo = Callable[..., Tensor]
ALLOWED = [("v_prediction", True), ("v_prediction", False), ("sample", True), ("sample", False), ("epsilon", False)]


def _schedule(zero_terminal_snr: bool = False) -> NoiseSchedule:
    return build_noise_schedule("cosine", num_timesteps=20, zero_terminal_snr=zero_terminal_snr)


def test_noisy_video_and_targets_are_the_published_mixtures(random_video: MakeVideo) -> None:
    schedule, video, noise = _schedule(), random_video(0), random_video(1)
    timestep = torch.tensor([3, 17])
    for prediction_type in ("epsilon", "sample", "v_prediction"):
        noisy = add_noise(schedule, prediction_type, video, noise, timestep)
        for clip, step in enumerate((3, 17)):
            power = schedule.alphas_cumprod[step]
            signal, rate = power**0.5, (1 - power) ** 0.5
            target = {
                "epsilon": noise[clip],
                "sample": video[clip],
                "v_prediction": signal * noise[clip] - rate * video[clip],
            }[prediction_type]
            torch.testing.assert_close(noisy.noisy_video[clip], signal * video[clip] + rate * noise[clip])
            torch.testing.assert_close(noisy.target[clip], target)
        assert noisy.noise is noise
        assert noisy.timestep_B is timestep


@pytest.mark.parametrize(("prediction_type", "zero_terminal_snr"), ALLOWED)
def test_conversions_undo_the_noising(random_video: MakeVideo, prediction_type: str, zero_terminal_snr: bool) -> None:
    schedule = _schedule(zero_terminal_snr)
    video, noise = random_video(0, (19, 3, 2, 4, 4)), random_video(1, (19, 3, 2, 4, 4))
    timestep = torch.arange(19)  # without the last one, where almost no signal is left to recover
    noisy = add_noise(schedule, prediction_type, video, noise, timestep)
    arguments = (schedule, prediction_type, noisy.target, noisy.noisy_video, timestep)
    torch.testing.assert_close(predicted_video(*arguments), video, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(predicted_noise(*arguments), noise, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("prediction_type", "zero_terminal_snr"), ALLOWED)
def test_the_two_conversions_of_any_prediction_mix_to_the_noisy_video(
    random_video: MakeVideo, prediction_type: str, zero_terminal_snr: bool
) -> None:
    schedule = _schedule(zero_terminal_snr)
    noisy, prediction = random_video(0, (19, 1, 2, 3, 3)), random_video(1, (19, 1, 2, 3, 3))
    timestep = torch.arange(19)
    arguments = (schedule, prediction_type, prediction, noisy, timestep)
    mixed = add_noise(schedule, "sample", predicted_video(*arguments), predicted_noise(*arguments), timestep)
    torch.testing.assert_close(mixed.noisy_video, noisy, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prediction_type", ["v_prediction", "sample"])
def test_at_the_terminal_step_the_noise_is_the_noisy_video(random_video: MakeVideo, prediction_type: str) -> None:
    schedule, noise = _schedule(zero_terminal_snr=True), random_video(1)
    timestep = torch.tensor([19, 19])
    noisy = add_noise(schedule, prediction_type, random_video(0), noise, timestep)
    assert torch.equal(noisy.noisy_video, noise)
    arguments = (schedule, prediction_type, random_video(2), noisy.noisy_video, timestep)
    assert torch.equal(predicted_noise(*arguments), noise)
    expected_video = -random_video(2) if prediction_type == "v_prediction" else random_video(2)
    torch.testing.assert_close(predicted_video(*arguments), expected_video)


def test_half_precision_predictions_are_converted_in_float32(random_video: MakeVideo) -> None:
    for prediction_type in ("epsilon", "sample", "v_prediction"):
        arguments = (_schedule(), prediction_type, random_video(0).bfloat16(), random_video(1), torch.tensor([4, 9]))
        assert predicted_video(*arguments).dtype == torch.float32
        assert predicted_noise(*arguments).dtype == torch.float32


def test_bad_combinations_are_refused(random_video: MakeVideo) -> None:
    video, timestep = random_video(0), torch.tensor([1, 2])
    with pytest.raises(ValueError, match="'epsilon' cannot be combined with zero terminal SNR"):
        add_noise(_schedule(zero_terminal_snr=True), "epsilon", video, video, timestep)
    with pytest.raises(ValueError, match="'epsilon' cannot be combined with zero terminal SNR"):
        predicted_video(_schedule(zero_terminal_snr=True), "epsilon", video, video, timestep)
    with pytest.raises(ValueError, match="unknown prediction type 'velocity'"):
        add_noise(_schedule(), "velocity", video, video, timestep)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="same shape"):
        add_noise(_schedule(), "sample", video, video[:, :1], timestep)
