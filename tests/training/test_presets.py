"""The presets for GPUs at their real sizes, on a CUDA device that is only imagined."""

import pytest
import torch
from torch import Tensor

from common.randomness import torch_generator
from common.settings import load_settings
from compute.device import ComputeDevice
from config import PRESETS, Config
from data.fingerspelling.source import load_letters
from diffusion.guidance import guided_prediction
from diffusion.samplers import sample
from diffusion.schedule import stratified_timesteps
from models.build import build_model, build_objective, build_tokenizer
from models.tokens import Tokenizer
from models.unet3d import TextToVideoModel
from sampling.sampler import build_sampler
from tests.grids import mostly_slow


@pytest.fixture(params=mostly_slow(sorted(PRESETS, reverse=True)))
def config(request: pytest.FixtureRequest) -> Config:
    return load_settings(Config, PRESETS, [f"--preset={request.param}"], program="main.py").config


@pytest.fixture
def tokenizer(config: Config) -> Tokenizer:
    return build_tokenizer(config, load_letters(config.SIGNED_LANGUAGE)[0].symbols)


@pytest.fixture
def network(config: Config, tokenizer: Tokenizer) -> TextToVideoModel:
    """The network without values, which cost nothing however large it is. Made before FakeTensorMode begins."""
    with torch.device("meta"):
        return build_model(config, tokenizer, torch.device("meta")).eval()


def test_forward_loss_and_sampling_of_a_preset_fit_together(
    config: Config, tokenizer: Tokenizer, network: TextToVideoModel, fake_cuda: str
) -> None:
    device, batch = torch.device(fake_cuda), config.BATCH_SIZE
    objective = build_objective(config, device)
    parameters = {name: torch.empty(value.shape, device=device) for name, value in network.named_parameters()}

    def model(*arguments: Tensor) -> Tensor:
        return torch.func.functional_call(network, parameters, arguments)

    longest = tokenizer(["ABCDEFGHIJKL"[: config.MAX_WORD_LETTERS]] * batch).to(device)
    shape = (batch, 3, config.NUM_FRAMES, config.IMAGE_SIZE, config.IMAGE_SIZE)
    video, noise = torch.empty(shape, device=device), torch.empty(shape, device=device)
    timestep_B = stratified_timesteps(batch, config.NUM_TRAIN_TIMESTEPS, torch_generator(0, "preset")).to(device)
    noisy = objective.noise(video, noise, timestep_B)
    with torch.no_grad():
        prediction = model(noisy.noisy_video, timestep_B, longest, torch.zeros_like(timestep_B, dtype=torch.bool))
        error_B = objective.loss(noisy, video, prediction).clips.unweighted_mse
        sampler = build_sampler(config, objective.schedule, tokenizer, ComputeDevice(device, None))
        clips = sample(
            guided_prediction(model, sampler.settings.guidance, longest, config.NUM_TRAIN_TIMESTEPS),
            schedule=objective.schedule,
            prediction_type=objective.prediction_type,
            sampler=config.SAMPLER,
            num_steps=2,
            initial_noise_BCTHW=noise,
            noise_generator=torch_generator(0, "preset"),
        )
    assert prediction.shape == clips.shape == shape
    assert error_B.shape == (batch,)
    assert {tensor.device for tensor in (prediction, clips, error_B)} == {device}
