import math
from collections.abc import Callable

import numpy
import pytest
import torch
from torch import Tensor

from diffusion.loss import DiffusionObjective, LossTerms, motion_weights
from diffusion.schedule import NoiseSchedule, build_noise_schedule

MakeVideo = Callable[..., Tensor]
TYPES = ["v_prediction", "epsilon", "sample"]


def _schedule(zero_terminal_snr: bool = False) -> NoiseSchedule:
    return build_noise_schedule("cosine", num_timesteps=50, zero_terminal_snr=zero_terminal_snr)


def _objective(schedule: NoiseSchedule, prediction_type: str, weighting: str, gamma: float = 5.0) -> DiffusionObjective:
    return DiffusionObjective(schedule, prediction_type, weighting, gamma, caption_dropout=0.1, motion_weight=0.0)


def _moving_square() -> Tensor:
    """A clip [1, 3, 8, 16, 16] of a grey ground, on which a white square of 4 pixels goes to the right."""
    video = torch.zeros(1, 3, 8, 16, 16)
    for frame in range(8):
        video[:, :, frame, 6:10, frame : frame + 4] = 1
    return video


def test_motion_weights_are_what_their_definition_says() -> None:
    video = _moving_square()
    weights = motion_weights(video, 0.5)[0, 0]
    pixels = video[0].double().numpy()
    deviation = numpy.abs(pixels - pixels.mean(axis=1, keepdims=True)).mean(axis=0)
    moves = numpy.empty_like(deviation)
    for row, column in numpy.ndindex(16, 16):
        square = deviation[:, max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3]
        moves[:, row, column] = square.mean(axis=(1, 2))
    expected = 1 + 0.5 * numpy.minimum(moves / moves.mean(), 8)
    numpy.testing.assert_allclose(weights, expected / expected.mean(), rtol=1e-5)
    assert weights[0, 7, 1] > 3 * weights[0, 0, 15]  # the square beside ground on which nothing moves


def test_motion_weights_of_a_still_clip_are_all_one_and_finite() -> None:
    still = torch.full((2, 3, 4, 16, 16), 0.3)
    torch.testing.assert_close(motion_weights(still, 2.0), torch.ones(2, 1, 4, 16, 16))


def test_the_loss_weighs_motion_and_all_other_figures_stay_as_they_are() -> None:
    schedule, timestep, video = _schedule(), torch.tensor([20]), _moving_square()
    generator = torch.Generator().manual_seed(0)
    noise, error = (torch.randn(video.shape, generator=generator) for _ in range(2))
    plain = DiffusionObjective(schedule, "sample", "uniform", 5.0, caption_dropout=0.1, motion_weight=0.0)
    weighing = DiffusionObjective(schedule, "sample", "uniform", 5.0, caption_dropout=0.1, motion_weight=1.0)
    noisy = plain.noise(video, noise, timestep)
    before, after = (each.loss(noisy, video, video + error) for each in (plain, weighing))
    expected = (error.square() * motion_weights(video, 1.0)).mean()
    torch.testing.assert_close(after.loss, expected)
    assert abs(float(after.loss / before.loss) - 1) > 0.001
    same = {name: value for name, value in _values(after).items() if name not in ("loss", "weighted_loss")}
    for name, value in same.items():
        assert torch.equal(value, _values(before)[name]), name


def _values(terms: LossTerms) -> dict[str, Tensor]:
    whole = {"loss": terms.loss, "predicted_noise": terms.predicted_noise, "predicted_video": terms.predicted_video}
    return whole | vars(terms.clips)


def _terms(
    random_video: MakeVideo, prediction_type: str, timesteps: list[int], weighting: str = "min_snr"
) -> LossTerms:
    schedule, timestep = _schedule(prediction_type != "epsilon"), torch.tensor(timesteps)
    video, noise = random_video(0).clamp(-1, 1), random_video(1)
    objective = _objective(schedule, prediction_type, weighting)
    return objective.loss(objective.noise(video, noise, timestep), video, random_video(2))


@pytest.mark.parametrize("gamma", [1.0, 5.0])
@pytest.mark.parametrize("prediction_type", TYPES)
def test_min_snr_weights_are_the_published_ones(prediction_type: str, gamma: float) -> None:
    schedule = _schedule()
    power = numpy.array(schedule.alphas_cumprod)
    snr = power / (1 - power)
    assert snr.min() < gamma < snr.max()
    clipped = numpy.minimum(snr, gamma)
    expected = {"sample": clipped, "epsilon": clipped / snr, "v_prediction": clipped / (snr + 1)}[prediction_type]
    weights = _objective(schedule, prediction_type, "min_snr", gamma).weights(torch.arange(50))
    numpy.testing.assert_allclose(weights, expected, rtol=1e-5)


@pytest.mark.parametrize("gamma", [1.5, 10.0])
@pytest.mark.parametrize("prediction_type", ["v_prediction", "sample"])
def test_snr_plus_one_is_the_error_of_v_where_it_is_not_bounded(prediction_type: str, gamma: float) -> None:
    schedule = _schedule(zero_terminal_snr=True)
    power = numpy.array(schedule.alphas_cumprod)
    bounded = [min(signal / (1 - signal) + 1, gamma) for signal in power]
    expected = bounded if prediction_type == "sample" else bounded * (1 - power)  # error of v is SNR + 1 of the video's
    weights = _objective(schedule, prediction_type, "snr_plus_one", gamma).weights(torch.arange(50))
    numpy.testing.assert_allclose(weights, expected, rtol=1e-5)
    assert weights[-1] == 1 < weights.max() or prediction_type == "v_prediction"


def test_snr_plus_one_is_refused_where_it_has_no_bound() -> None:
    with pytest.raises(ValueError, match="without bound where noise is nearly all"):
        _objective(_schedule(), "epsilon", "snr_plus_one")


@pytest.mark.parametrize("prediction_type", TYPES)
def test_min_snr_means_the_same_loss_for_every_prediction_type(random_video: MakeVideo, prediction_type: str) -> None:
    schedule, timestep = _schedule(), torch.tensor([10, 40])
    video, noise, wrong_video = random_video(0), random_video(1), random_video(2)
    objective = _objective(schedule, prediction_type, "min_snr")
    noisy = objective.noise(video, noise, timestep)
    # The prediction, in each parametrisation, that believes in the same wrong video.
    signal = schedule.sqrt_alphas_cumprod_N[timestep].reshape(2, 1, 1, 1, 1)
    rate = schedule.sqrt_one_minus_alphas_cumprod_N[timestep].reshape(2, 1, 1, 1, 1)
    wrong_noise = (noisy.noisy_video - signal * wrong_video) / rate
    prediction = {
        "sample": wrong_video,
        "epsilon": wrong_noise,
        "v_prediction": signal * wrong_noise - rate * wrong_video,
    }
    terms = objective.loss(noisy, video, prediction[prediction_type])
    snr = torch.tensor([schedule.alphas_cumprod[t] / (1 - schedule.alphas_cumprod[t]) for t in (10, 40)])
    expected = snr.clamp(max=5) * (wrong_video - video).square().mean(dim=(1, 2, 3, 4))
    torch.testing.assert_close(terms.clips.weighted_loss, expected, rtol=1e-3, atol=1e-5)


def test_weights_are_finite_at_both_ends() -> None:
    zero = torch.zeros(1)
    ends = NoiseSchedule(
        alphas_cumprod=(1.0, 0.0),
        has_zero_terminal_snr=False,  # so that epsilon is let through
        betas_N=torch.tensor([0.0, 1.0]),
        alphas_cumprod_N=torch.tensor([1.0, 0.0]),
        sqrt_alphas_cumprod_N=torch.tensor([1.0, 0.0]),
        sqrt_one_minus_alphas_cumprod_N=torch.cat([zero, zero + 1]),
    )
    expected = {
        ("v_prediction", "min_snr"): [0.0, 0.0],
        ("epsilon", "min_snr"): [0.0, 1.0],
        ("sample", "min_snr"): [5.0, 0.0],
        ("v_prediction", "snr_plus_one"): [0.0, 1.0],
        ("sample", "snr_plus_one"): [5.0, 1.0],
    }
    for (prediction_type, weighting), wanted in expected.items():
        assert _objective(ends, prediction_type, weighting).weights(torch.tensor([0, 1])).tolist() == wanted


def test_uniform_weights_are_one() -> None:
    assert _objective(_schedule(), "epsilon", "uniform").weights(torch.tensor([0, 49])).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("prediction_type", TYPES)
def test_terms_agree_with_a_naive_computation(random_video: MakeVideo, prediction_type: str) -> None:
    timesteps = [7, 33]
    terms = _terms(random_video, prediction_type, timesteps)
    schedule = _schedule(prediction_type != "epsilon")
    weighted = []
    for clip, step in enumerate(timesteps):
        video = random_video(0).clamp(-1, 1)[clip].double().numpy()
        noise, said = random_video(1)[clip].double().numpy(), random_video(2)[clip].double().numpy()
        power = schedule.alphas_cumprod[step]
        signal, rate = math.sqrt(power), math.sqrt(1 - power)
        noisy = signal * video + rate * noise
        target = {"epsilon": noise, "sample": video, "v_prediction": signal * noise - rate * video}[prediction_type]
        clean = {
            "epsilon": (noisy - rate * said) / signal,
            "sample": said,
            "v_prediction": signal * noisy - rate * said,
        }[prediction_type]
        said_noise = (noisy - signal * clean) / rate
        snr = power / (1 - power)
        weight = min(snr, 5) * {"epsilon": 1 / snr, "sample": 1, "v_prediction": 1 / (snr + 1)}[prediction_type]
        error = said - target
        weighted.append(weight * (error**2).mean())
        expected = {
            "weighted_loss": weighted[-1],
            "unweighted_mse": (error**2).mean(),
            "predict_zero_mse": (target**2).mean(),
            "temporal_difference_mse": ((error[:, 1:] - error[:, :-1]) ** 2).mean(),
            "noise_mse": ((said_noise - noise) ** 2).mean(),
            "noise_mae": abs(said_noise - noise).mean(),
            "x0_mse": ((clean - video) ** 2).mean(),
            "snr_decibel": 10 * math.log10(power * (video**2).mean() / (1 - power)),
            "alphas_cumprod": power,
            "beta": 1 - power / schedule.alphas_cumprod[step - 1],
            "is_terminal": False,
        }
        for name, value in expected.items():
            assert getattr(terms.clips, name)[clip].item() == pytest.approx(value, rel=1e-4), name
        numpy.testing.assert_allclose(terms.predicted_noise[clip], said_noise, rtol=1e-3, atol=1e-4)
        numpy.testing.assert_allclose(terms.predicted_video[clip], clean, rtol=1e-3, atol=1e-4)
    assert terms.loss.item() == pytest.approx(numpy.mean(weighted), rel=1e-5)


@pytest.mark.parametrize("weighting", ["uniform", "min_snr"])
@pytest.mark.parametrize("prediction_type", ["v_prediction", "sample"])
def test_the_terminal_step_is_marked_and_finite(random_video: MakeVideo, prediction_type: str, weighting: str) -> None:
    terms = _terms(random_video, prediction_type, [49, 20], weighting)
    assert terms.clips.is_terminal.tolist() == [True, False]
    assert terms.clips.snr_decibel[0] == 0
    assert terms.clips.noise_mse[0] == 0
    assert (terms.clips.weighted_loss[0] == 0) == (weighting == "min_snr")
    for name, value in _values(terms).items():
        assert torch.isfinite(value).all(), name


def test_a_clip_of_zeros_and_a_single_frame_stay_finite() -> None:
    objective, video = _objective(_schedule(), "v_prediction", "uniform"), torch.zeros(2, 3, 1, 4, 4)
    noisy = objective.noise(video, torch.ones_like(video), torch.tensor([0, 30]))
    clips = objective.loss(noisy, video, torch.ones_like(video)).clips
    assert torch.isfinite(clips.snr_decibel).all()
    assert clips.temporal_difference_mse.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("prediction_type", TYPES)
def test_only_the_loss_carries_a_gradient(random_video: MakeVideo, prediction_type: str) -> None:
    objective, timestep = _objective(_schedule(), prediction_type, "min_snr"), torch.tensor([10, 30])
    video = random_video(0)
    noisy = objective.noise(video, random_video(1), timestep)
    prediction = random_video(2).requires_grad_()
    terms = objective.loss(noisy, video, prediction)
    assert [name for name, value in _values(terms).items() if value.requires_grad] == ["loss"]
    terms.loss.backward()
    weights = objective.weights(timestep).reshape(2, 1, 1, 1, 1)
    expected = 2 * weights * (prediction.detach() - noisy.target) / prediction.numel()
    torch.testing.assert_close(prediction.grad, expected)


def test_the_loss_is_float32_under_autocast(random_video: MakeVideo) -> None:
    objective, video = _objective(_schedule(), "v_prediction", "min_snr"), random_video(0)
    noisy = objective.noise(video, random_video(1), torch.tensor([10, 30]))
    prediction = random_video(2).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = objective.loss(noisy, video, prediction)
    outside = _values(objective.loss(noisy, video, prediction.float()))
    for name, value in _values(inside).items():
        assert torch.equal(value, outside[name]), name
    assert inside.loss.dtype == torch.float32


def test_bad_arguments_are_named(random_video: MakeVideo) -> None:
    with pytest.raises(ValueError, match="unknown loss weighting 'snr'"):
        _objective(_schedule(), "sample", "snr")
    with pytest.raises(ValueError, match="min_snr_gamma must be above 0, not 0"):
        _objective(_schedule(), "sample", "min_snr", 0)
    with pytest.raises(ValueError, match="zero terminal SNR"):
        _objective(_schedule(zero_terminal_snr=True), "epsilon", "uniform")
    objective = _objective(_schedule(), "sample", "uniform")
    noisy = objective.noise(random_video(0), random_video(1), torch.tensor([1, 2]))
    with pytest.raises(ValueError, match=r"prediction .* and target .* must have the same shape"):
        objective.loss(noisy, random_video(0), random_video(2)[:, :1])
