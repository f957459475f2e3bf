"""For normally distributed videos, N(mean, deviation^2) in every pixel, everything is known in closed form.

The best possible denoiser is linear, and the probability-flow ODE takes the noise z to mean + deviation * z. So the
samplers' true error, and how fast it falls with the number of steps, can be measured without a trained network.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diffusion.samplers import sample, sampling_timesteps
from diffusion.schedule import NoiseSchedule, build_noise_schedule

MakeVideo = Callable[..., Tensor]
DEVIATION = 0.2
MEAN = torch.linspace(-0.5, 0.5, 96).reshape(1, 3, 2, 4, 4)


def _best_denoiser(schedule: NoiseSchedule) -> Callable[[Tensor, int], Tensor]:
    def denoise(x: Tensor, timestep: int) -> Tensor:
        power = schedule.alphas_cumprod[timestep]
        gain = power**0.5 * DEVIATION**2 / (power * DEVIATION**2 + 1 - power)
        return MEAN + gain * (x - power**0.5 * MEAN)

    return denoise


def _run(
    denoise: Callable[[Tensor, int], Tensor], schedule: NoiseSchedule, sampler: str, num_steps: int, noise: Tensor
) -> Tensor:
    return sample(
        denoise,
        schedule=schedule,
        prediction_type="sample",
        sampler=sampler,
        num_steps=num_steps,
        initial_noise_BCTHW=noise,
        noise_generator=torch.Generator().manual_seed(3),
        clip_video=False,
    )


def _error(schedule: NoiseSchedule, sampler: str, num_steps: int, noise: Tensor) -> float:
    """The mean distance from the exact path where the sampler meets the last level.

    There, because the jump from that level to the clean video is the same for all samplers and would hide their order.
    """
    last, seen = sampling_timesteps(schedule.num_timesteps, num_steps)[-1], []
    best = _best_denoiser(schedule)

    def denoise(x: Tensor, timestep: int) -> Tensor:
        if timestep == last:
            seen.append(x)
        return best(x, timestep)

    _run(denoise, schedule, sampler, num_steps, noise)
    start, end = schedule.alphas_cumprod[-1], schedule.alphas_cumprod[last]
    standardised = (noise - start**0.5 * MEAN) / (start * DEVIATION**2 + 1 - start) ** 0.5
    exact = end**0.5 * MEAN + (end * DEVIATION**2 + 1 - end) ** 0.5 * standardised
    return (seen[-1] - exact).abs().mean().item()


@pytest.mark.parametrize("zero_terminal_snr", [True, False])
@pytest.mark.parametrize("name", ["linear", "cosine", "sigmoid", "quadratic"])
def test_errors_fall_at_the_order_of_the_method(random_video: MakeVideo, name: str, zero_terminal_snr: bool) -> None:
    schedule = build_noise_schedule(name, num_timesteps=1000, zero_terminal_snr=zero_terminal_snr)
    noise = random_video(0, MEAN.shape)

    def gain(sampler: str, num_steps: int, more_steps: int) -> float:
        return _error(schedule, sampler, num_steps, noise) / _error(schedule, sampler, more_steps, noise)

    assert 1.5 < gain("ddim", 80, 160) < 2.1  # first order: twice the steps, half the error
    assert 1.5 < gain("euler", 80, 160) < 2.1
    assert 3.1 < gain("heun", 80, 160) < 4.5  # second order: a quarter
    # Its error changes sign on the way, so the order shows late; a method of first order cannot gain more than 4 here.
    assert gain("dpm_solver++", 160, 640) > 4.2
    assert _error(schedule, "dpm_solver++", 20, noise) < 0.25 * _error(schedule, "ddim", 20, noise)


@pytest.mark.parametrize("zero_terminal_snr", [True, False])
def test_euler_is_ddim_in_other_coordinates(random_video: MakeVideo, zero_terminal_snr: bool) -> None:
    schedule = build_noise_schedule("linear", num_timesteps=1000, zero_terminal_snr=zero_terminal_snr)
    noise = random_video(0, MEAN.shape)
    torch.testing.assert_close(
        _run(_best_denoiser(schedule), schedule, "euler", 20, noise),
        _run(_best_denoiser(schedule), schedule, "ddim", 20, noise),
        rtol=0,
        atol=2e-5,
    )


@pytest.mark.parametrize("zero_terminal_snr", [True, False])
def test_ddpm_draws_from_the_distribution(random_video: MakeVideo, zero_terminal_snr: bool) -> None:
    schedule = build_noise_schedule("cosine", num_timesteps=1000, zero_terminal_snr=zero_terminal_snr)
    clips = _run(_best_denoiser(schedule), schedule, "ddpm", 1000, random_video(0, (400, *MEAN.shape[1:])))
    residual = clips - MEAN
    assert residual.mean().abs() < 0.004  # 38,400 draws: five standard errors are 0.005
    assert residual.std().item() == pytest.approx(DEVIATION, rel=0.02)
    # Fresh noise, not the initial one, decides where a clip ends.
    start = random_video(0, (400, *MEAN.shape[1:]))
    correlation = torch.corrcoef(torch.stack([residual.flatten(), start.flatten()]))[0, 1]
    assert correlation.abs() < 0.2
