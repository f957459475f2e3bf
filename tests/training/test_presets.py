"""The presets for GPUs at their real sizes, on a CUDA device that is only imagined."""

import pytest
import torch
from torch import Tensor

from common.randomness import torch_generator
from common.settings import load_settings
from compute.device import ComputeDevice
from config import PRESETS, Config
from data.fingerspelling.source import load_languages
from data.fingerspelling.timing import LETTER_SECONDS, PAUSE_SECONDS, SLOWEST
from data.lengths import clip_lengths
from diffusion.guidance import guided_prediction
from diffusion.samplers import sample
from diffusion.schedule import stratified_timesteps
from models.build import build_model, build_objective, build_tokenizer
from models.tokens import Tokenizer
from models.unet3d import TextToVideoModel
from sampling.sampler import build_sampler
from tests.grids import mostly_slow
from training.learning_rate import ENDING_SCHEDULES
from training.planning import MEASURED_STEPS


@pytest.fixture(params=mostly_slow(sorted(PRESETS, reverse=True)))
def config(request: pytest.FixtureRequest) -> Config:
    return load_settings(Config, PRESETS, [f"--preset={request.param}"], program="main.py").config


def test_the_presets_for_a_gpu_are_compiled_and_end_in_time_with_a_low_rate() -> None:
    of = {name: load_settings(Config, PRESETS, [f"--preset={name}"], program="").config for name in PRESETS}
    assert [name for name in of if of[name].COMPILE_MODEL] == ["speedrun", "base", "large"]
    assert [(of[name].MAX_MINUTES, of[name].MAX_STEPS) for name in of] == [
        (12.0, 2000),
        (10.0, 10_000),
        (60.0, 30_000),
        (None, 100_000),
    ]
    for config in of.values():
        assert config.LR_SCHEDULE in ENDING_SCHEDULES
        # Planned soon enough, and on enough steps that are measured.
        assert 2 * MEASURED_STEPS <= config.LR_WARMUP_STEPS <= (config.MAX_STEPS or 0) / 10


def test_the_presets_for_a_gpu_have_room_for_their_slowest_words_and_keep_their_frames_a_step() -> None:
    frames = {}
    for name in ("speedrun", "base", "large"):
        config = load_settings(Config, PRESETS, [f"--preset={name}"], program="").config
        slowest = (config.MAX_WORD_LETTERS * LETTER_SECONDS + PAUSE_SECONDS) / SLOWEST  # of letters that are held
        assert not clip_lengths(config).is_shortened(slowest)
        frames[name] = config.frames_at_once, config.frames_per_step
    assert frames == {"speedrun": (256, 256), "base": (512, 512), "large": (192, 384)}


@pytest.fixture
def tokenizer(config: Config) -> Tokenizer:
    return build_tokenizer(config, load_languages(config.SIGNED_LANGUAGE)[0].symbols)


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
    shape = (batch, 3, config.MAX_FRAMES, *config.IMAGE_SIZE)
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


@pytest.mark.slow
@pytest.mark.parametrize("config", ["speedrun", "base", "large"], indirect=True)
def test_a_step_of_a_preset_fits_on_a_gpu_of_80_gb(
    config: Config,
    tokenizer: Tokenizer,
    network: TextToVideoModel,
    fake_cuda: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What its forward pass keeps, with weights, gradients, moments and average, in bfloat16 autocast."""
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    parameters = {name: torch.empty(each.shape, device=fake_cuda).requires_grad_()
                  for name, each in network.named_parameters()}  # fmt: skip
    lasting = {each.untyped_storage()._cdata for each in parameters.values()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in lasting:
            kept[storage._cdata] = storage
        return tensor

    batch = config.BATCH_SIZE
    zeros = torch.zeros(batch, dtype=torch.int64, device=fake_cuda)
    video = torch.empty(batch, 3, config.MAX_FRAMES, *config.IMAGE_SIZE, device=fake_cuda)
    tokens = torch.ones(batch, config.MAX_WORD_LETTERS, dtype=torch.int64, device=fake_cuda)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cuda", torch.bfloat16):
        torch.func.functional_call(network.train(), parameters, (video, zeros, tokens, zeros.bool()))
    state = 5 * sum(each.nbytes for each in parameters.values())
    total = state + sum(storage.nbytes() for storage in kept.values())
    assert total < 0.9 * 80e9  # the rest is for CUDA, workspaces and holes between tensors
