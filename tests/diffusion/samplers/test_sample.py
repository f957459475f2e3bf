from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diffusion.prediction import add_noise
from diffusion.samplers import sample, sampling_timesteps
from diffusion.schedule import NoiseSchedule, build_noise_schedule

MakeVideo = Callable[..., Tensor]
SAMPLERS = ["ddim", "ddpm", "dpm_solver++", "euler", "heun"]
SCHEDULES = ["linear", "cosine", "sigmoid", "quadratic"]
ALLOWED = [("v_prediction", True), ("v_prediction", False), ("sample", True), ("sample", False), ("epsilon", False)]


def _oracle(schedule: NoiseSchedule, prediction_type: str, video: Tensor) -> Callable[[Tensor, int], Tensor]:
    """A network that knows the clean video and answers in the given parametrisation."""

    def denoise(x: Tensor, timestep: int) -> Tensor:
        power = schedule.alphas_cumprod[timestep]
        noise = (x - power**0.5 * video) / (1 - power) ** 0.5
        return add_noise(schedule, prediction_type, video, noise, torch.full((len(x),), timestep)).target

    return denoise


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(("prediction_type", "zero_terminal_snr"), ALLOWED)
@pytest.mark.parametrize("name", SCHEDULES)
def test_an_oracle_recovers_the_video(
    random_video: MakeVideo, name: str, prediction_type: str, zero_terminal_snr: bool, sampler: str
) -> None:
    schedule = build_noise_schedule(name, num_timesteps=100, zero_terminal_snr=zero_terminal_snr)
    video = random_video(0).clamp(-0.95, 0.95)
    for clip_video in (True, False):
        result = sample(
            _oracle(schedule, prediction_type, video),
            schedule=schedule,
            prediction_type=prediction_type,
            sampler=sampler,
            num_steps=7,
            initial_noise_BCTHW=random_video(1),
            noise_generator=torch.Generator().manual_seed(2),
            clip_video=clip_video,
        )
        torch.testing.assert_close(result, video, rtol=0, atol=2e-4)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_result_of_clipping_stays_in_range_and_is_the_last_estimate(random_video: MakeVideo, sampler: str) -> None:
    schedule = build_noise_schedule("cosine", num_timesteps=40, zero_terminal_snr=True)
    steps: list[tuple[int, Tensor]] = []
    seen: list[int] = []

    def denoise(x: Tensor, timestep: int) -> Tensor:
        seen.append(timestep)
        return 3 * torch.sin(x)

    result = sample(
        denoise,
        schedule=schedule,
        prediction_type="sample",
        sampler=sampler,
        num_steps=5,
        initial_noise_BCTHW=random_video(1),
        noise_generator=torch.Generator().manual_seed(2),
        on_step=lambda index, video: steps.append((index, video)),
    )
    assert [index for index, _ in steps] == [0, 1, 2, 3, 4]
    assert result is steps[-1][1]
    assert result.min() == -1
    assert result.max() == 1
    # Heun asks twice at every level that a corrected step ends at; the step from pure noise is not corrected.
    assert seen == ([39, 31, 23, 23, 15, 15, 7, 7] if sampler == "heun" else [39, 31, 23, 15, 7])


def test_the_noise_is_derived_again_from_the_clipped_video(random_video: MakeVideo) -> None:
    schedule = build_noise_schedule("cosine", num_timesteps=10, zero_terminal_snr=False)
    start, inputs = random_video(1), []

    def denoise(x: Tensor, timestep: int) -> Tensor:
        inputs.append(x)
        return torch.full_like(x, 5.0)

    arguments = {"schedule": schedule, "prediction_type": "sample", "sampler": "ddim", "noise_generator": None}
    sample(denoise, num_steps=2, initial_noise_BCTHW=start, **arguments)
    first, second = schedule.alphas_cumprod[9], schedule.alphas_cumprod[4]
    noise = (start - first**0.5 * 1.0) / (1 - first) ** 0.5
    torch.testing.assert_close(inputs[1], second**0.5 * 1.0 + (1 - second) ** 0.5 * noise)


def test_the_same_seed_gives_the_same_video_and_leaves_global_randomness_alone(random_video: MakeVideo) -> None:
    schedule = build_noise_schedule("cosine", num_timesteps=20, zero_terminal_snr=True)

    def run(seed: int) -> Tensor:
        return sample(
            lambda x, timestep_B: torch.cos(x),
            schedule=schedule,
            prediction_type="v_prediction",
            sampler="ddpm",
            num_steps=5,
            initial_noise_BCTHW=random_video(1),
            noise_generator=torch.Generator().manual_seed(seed),
        )

    before = torch.random.get_rng_state()
    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))
    assert torch.equal(before, torch.random.get_rng_state())


def test_no_gradient_is_recorded(random_video: MakeVideo) -> None:
    weight = torch.ones(1, requires_grad=True)
    result = sample(
        lambda x, timestep_B: x * weight,
        schedule=build_noise_schedule("cosine", num_timesteps=20, zero_terminal_snr=True),
        prediction_type="v_prediction",
        sampler="ddim",
        num_steps=2,
        initial_noise_BCTHW=random_video(1),
        noise_generator=None,
    )
    assert not result.requires_grad


def test_timesteps_trail_from_the_last() -> None:
    assert sampling_timesteps(1000, 10) == [999, 899, 799, 699, 599, 499, 399, 299, 199, 99]
    assert sampling_timesteps(1000, 1) == [999]
    assert sampling_timesteps(10, 10) == list(range(9, -1, -1))
    assert sampling_timesteps(10, 4) == [9, 7, 4, 1]
    for num_timesteps in range(1, 60):
        for num_steps in range(1, num_timesteps + 1):
            timesteps = sampling_timesteps(num_timesteps, num_steps)
            assert len(set(timesteps)) == num_steps
            assert timesteps == sorted(timesteps, reverse=True)
            assert timesteps[0] == num_timesteps - 1
            assert timesteps[-1] >= 0


def test_bad_arguments_are_named(random_video: MakeVideo) -> None:
    def run(**changes: object) -> Tensor:
        arguments = {
            "schedule": build_noise_schedule("cosine", num_timesteps=20, zero_terminal_snr=True),
            "prediction_type": "v_prediction",
            "sampler": "ddim",
            "num_steps": 5,
            "initial_noise_BCTHW": random_video(1),
            "noise_generator": None,
        }
        return sample(lambda x, timestep_B: x, **{**arguments, **changes})

    with pytest.raises(ValueError, match=r"num_steps must be between 1 and num_timesteps \(20\), not 21"):
        run(num_steps=21)
    with pytest.raises(ValueError, match="not 0"):
        run(num_steps=0)
    with pytest.raises(ValueError, match="unknown sampler 'plms'; choose from ddim"):
        run(sampler="plms")
    with pytest.raises(ValueError, match=r"'ddpm' draws noise .* needs a noise_generator"):
        run(sampler="ddpm")
    with pytest.raises(ValueError, match="zero terminal SNR"):
        run(prediction_type="epsilon")
