"""Agreement with an independent implementation, on the same network, schedule, noise and timesteps.

Aligned throughout: trailing spacing, and the scheduler's rounded alphas_cumprod replaced by the float64 ones. What
else had to be aligned is said in each test.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diffusion.samplers import sample
from diffusion.schedule import NoiseSchedule, build_noise_schedule

diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

MakeVideo = Callable[..., Tensor]
N, STEPS = 100, 20
ALLOWED = [("v_prediction", True), ("v_prediction", False), ("sample", True), ("sample", False), ("epsilon", False)]


def _network(x: Tensor, timestep: int) -> Tensor:
    """Bounded, nonlinear, and different at every timestep."""
    return torch.sin(1.3 * x + timestep / 40) + 0.3 * x.roll(1, dims=2).tanh()


def _ours(
    schedule: NoiseSchedule, prediction_type: str, sampler: str, noise: Tensor, *, clip: bool, seed: int = 0
) -> Tensor:
    return sample(
        _network,
        schedule=schedule,
        prediction_type=prediction_type,
        sampler=sampler,
        num_steps=STEPS,
        initial_noise_BCTHW=noise,
        noise_generator=torch.Generator().manual_seed(seed),
        clip_video=clip,
    )


def _scheduler(kind: type, schedule: NoiseSchedule, prediction_type: str, **settings: object) -> object:
    scheduler = kind(
        num_train_timesteps=N,
        trained_betas=schedule.betas_N.tolist(),
        prediction_type=prediction_type,
        timestep_spacing="trailing",
        **settings,
    )
    scheduler.alphas_cumprod = torch.tensor(schedule.alphas_cumprod, dtype=torch.float64)
    scheduler.set_timesteps(STEPS)
    return scheduler


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize(("prediction_type", "zero_terminal_snr"), ALLOWED)
def test_ddim(random_video: MakeVideo, prediction_type: str, zero_terminal_snr: bool, clip: bool) -> None:
    """Aligned: the last step goes to alphas_cumprod = 1; the noise is derived again from the clipped video."""
    schedule, noise = (
        build_noise_schedule("linear", num_timesteps=N, zero_terminal_snr=zero_terminal_snr),
        random_video(1),
    )
    scheduler = _scheduler(diffusers.DDIMScheduler, schedule, prediction_type, clip_sample=clip, set_alpha_to_one=True)
    x = noise
    for timestep in scheduler.timesteps:
        x = scheduler.step(_network(x, int(timestep)), int(timestep), x, use_clipped_model_output=True).prev_sample
    torch.testing.assert_close(
        _ours(schedule, prediction_type, "ddim", noise, clip=clip), x.float(), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize(("prediction_type", "zero_terminal_snr"), ALLOWED)
def test_ddpm(random_video: MakeVideo, prediction_type: str, zero_terminal_snr: bool, clip: bool) -> None:
    """Aligned: the posterior's own variance ("fixed_small"). Its last step adds noise of deviation 1e-10."""
    schedule, noise = (
        build_noise_schedule("linear", num_timesteps=N, zero_terminal_snr=zero_terminal_snr),
        random_video(1),
    )
    scheduler = _scheduler(
        diffusers.DDPMScheduler, schedule, prediction_type, clip_sample=clip, variance_type="fixed_small"
    )
    generator = torch.Generator().manual_seed(7)
    x = noise
    for timestep in scheduler.timesteps:
        said = _network(x, int(timestep))
        x = scheduler.step(said, int(timestep), x, generator=generator).prev_sample.float()
    ours = _ours(schedule, prediction_type, "ddpm", noise, clip=clip, seed=7)
    torch.testing.assert_close(ours, x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prediction_type", ["v_prediction", "sample", "epsilon"])
def test_dpm_solver(random_video: MakeVideo, prediction_type: str) -> None:
    """Aligned: second order, midpoint; sigma ends at 0, so the last step is of first order; no clipping.

    Zero terminal SNR is left out: there the other side starts from alphas_cumprod = 2^-24, not 0.
    """
    schedule, noise = build_noise_schedule("linear", num_timesteps=N, zero_terminal_snr=False), random_video(1)
    scheduler = _scheduler(
        diffusers.DPMSolverMultistepScheduler,
        schedule,
        prediction_type,
        algorithm_type="dpmsolver++",
        solver_order=2,
        solver_type="midpoint",
        final_sigmas_type="zero",
    )
    x = noise
    for timestep in scheduler.timesteps:
        x = scheduler.step(_network(x, int(timestep)), timestep, x).prev_sample
    ours = _ours(schedule, prediction_type, "dpm_solver++", noise, clip=False)
    torch.testing.assert_close(ours, x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prediction_type", ["v_prediction", "sample", "epsilon"])
@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_euler_and_heun(random_video: MakeVideo, sampler: str, prediction_type: str) -> None:
    """Aligned: the same start in the scaled coordinates; the network sees `scale_model_input`; no clipping.

    The quadratic schedule starts at sigma 37, where the Heun correction is taken on both sides. Zero terminal SNR is
    left out as above.
    """
    schedule, noise = build_noise_schedule("quadratic", num_timesteps=N, zero_terminal_snr=False), random_video(1)
    kind = diffusers.EulerDiscreteScheduler if sampler == "euler" else diffusers.HeunDiscreteScheduler
    scheduler = _scheduler(kind, schedule, prediction_type)
    x = noise * (scheduler.sigmas[0] ** 2 + 1).sqrt()
    for timestep in scheduler.timesteps:
        seen = scheduler.scale_model_input(x, timestep)
        said = _network(seen, int(timestep))
        x = scheduler.step(said, timestep, x).prev_sample
    ours = _ours(schedule, prediction_type, sampler, noise, clip=False)
    torch.testing.assert_close(ours, x, rtol=1e-4, atol=2e-4)
