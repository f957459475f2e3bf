"""Everything runs with all tensors on a device that is not the CPU, so none is created on the wrong one."""

import pytest
import torch
from torch import Tensor

from diffusion.guidance import Guidance, guided_prediction
from diffusion.loss import DiffusionObjective
from diffusion.samplers import sample
from diffusion.schedule import build_noise_schedule, evenly_spaced_timesteps, stratified_timesteps


def _noise(device: str) -> Tensor:
    return torch.randn(2, 3, 4, 5, 5, generator=torch.Generator().manual_seed(0)).to(device)


@pytest.mark.parametrize("prediction_type", ["v_prediction", "sample", "epsilon"])
def test_noising_and_loss(fake_cuda: str, prediction_type: str) -> None:
    schedule = build_noise_schedule("cosine", num_timesteps=50, zero_terminal_snr=prediction_type != "epsilon")
    objective = DiffusionObjective(schedule.to(fake_cuda), prediction_type, "min_snr", 5.0, 0.1, motion_weight=0.0)
    video, noise = _noise(fake_cuda), _noise(fake_cuda)
    drawn = stratified_timesteps(2, 50, torch.Generator().manual_seed(1)).to(fake_cuda)
    for timestep in (drawn, evenly_spaced_timesteps(2, 50).to(fake_cuda)):
        noisy = objective.noise(video, noise, timestep)
        terms = objective.loss(noisy, video, _noise(fake_cuda).bfloat16())
        values = {
            "loss": terms.loss,
            "noise": terms.predicted_noise,
            "video": terms.predicted_video,
            **vars(terms.clips),
        }
        for name, value in values.items():
            assert value.device == torch.device(fake_cuda), name


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "dpm_solver++", "euler", "heun"])
def test_guided_sampling(fake_cuda: str, sampler: str) -> None:
    tokens = torch.zeros(2, 5, dtype=torch.int64, device=fake_cuda)

    def network(x: Tensor, timestep_B: Tensor, tokens_BL: Tensor, drop_caption_B: Tensor) -> Tensor:
        for tensor in (x, timestep_B, tokens_BL, drop_caption_B):
            assert tensor.device == torch.device(fake_cuda)
            assert len(tensor) == 4
        return x * torch.where(drop_caption_B, 0.5, 1.0).reshape(-1, 1, 1, 1, 1)

    result = sample(
        guided_prediction(network, Guidance(scale=3.0, rescale=0.7), tokens, 50),
        schedule=build_noise_schedule("cosine", num_timesteps=50, zero_terminal_snr=True).to(fake_cuda),
        prediction_type="v_prediction",
        sampler=sampler,
        num_steps=4,
        initial_noise_BCTHW=_noise(fake_cuda),
        noise_generator=torch.Generator().manual_seed(2),
    )
    assert result.device == torch.device(fake_cuda)
    assert result.shape == (2, 3, 4, 5, 5)
