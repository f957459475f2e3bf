"""The whole network: shapes, what it listens to, and devices that are not there."""

import copy

import pytest
import torch
from torch import nn

from diffusion.guidance import Guidance, guided_prediction
from diffusion.loss import DiffusionObjective
from diffusion.samplers import sample
from diffusion.schedule import build_noise_schedule
from models.layers import ResidualBlock
from models.text_encoder import CharacterEncoder
from models.unet3d import TextToVideoModel, UNet3D, UNet3DSpecification
from tests.grids import mostly_slow


def specification(**changes: object) -> UNet3DSpecification:
    values: dict[str, object] = {
        "image_size": (16, 16),
        "num_timesteps": 100,
        "channels": (16, 32),
        "blocks_per_level": 1,
        "patch_size": 2,
        "spatial_attention_sizes": (4,),
        "head_channels": 8,
        "groups": 4,
        "text_channels": 16,
    }
    return UNet3DSpecification(**(values | changes))


def build(seed: int = 0, **changes: object) -> TextToVideoModel:
    torch.manual_seed(seed)
    return TextToVideoModel(CharacterEncoder(28, 16, 1, 2), UNet3D(specification(**changes)))


def awaken(model: nn.Module) -> nn.Module:
    """Move every parameter away from its zero or identity start, as training would."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def inputs(batch: int = 2, frames: int = 4) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(2)
    return (
        torch.randn(batch, 3, frames, 16, 16),
        torch.arange(batch) * 30,
        torch.randint(2, 28, (batch, 2))[:, [0, 1, 1]],  # with a doubled character
        torch.zeros(batch, dtype=torch.bool),
    )


@pytest.mark.parametrize("changes", [{}, {"patch_size": 1}, {"blocks_per_level": 2}, {"channels": (16, 16, 32)}])
def test_output_has_the_shape_of_the_input_and_starts_small_but_not_at_zero(changes: dict[str, object]) -> None:
    if changes.get("patch_size") == 1:
        changes = changes | {"spatial_attention_sizes": (8,)}
    video, timestep, tokens, drop = inputs()
    predictions = [build(seed, **changes)(video, timestep, tokens, drop) for seed in range(12)]
    assert predictions[0].shape == video.shape
    # At zero, no layer below the last would get a gradient. A single network has 0.04 to 0.09, as its seed has it.
    assert 0.05 < torch.stack(predictions).std() < 1


@torch.no_grad()
def test_prediction_depends_on_caption_time_and_every_frame_but_not_on_the_neighbour_in_the_batch() -> None:
    model = awaken(build())
    video, timestep, tokens, drop = inputs()
    base = model(video, timestep, tokens, drop)
    other_tokens = tokens.clone()
    other_tokens[0, 1] = 2 if tokens[0, 1] != 2 else 3
    by_caption = model(video, timestep, other_tokens, drop)
    assert (by_caption[0] - base[0]).abs().max() > 1e-4
    torch.testing.assert_close(by_caption[1], base[1])
    by_drop = model(video, timestep, tokens, torch.tensor([True, False]))
    assert (by_drop[0] - base[0]).abs().max() > 1e-4
    by_time = model(video, timestep + torch.tensor([7, 0]), tokens, drop)
    assert (by_time[0] - base[0]).abs().max() > 1e-4
    changed = video.clone()
    changed[0, :, 3] += 1.0
    assert (model(changed, timestep, tokens, drop)[0, :, 0] - base[0, :, 0]).abs().max() > 1e-6


@torch.no_grad()
def test_a_dropped_caption_says_nothing_of_what_it_was() -> None:
    model = awaken(build())
    video, timestep, tokens, _ = inputs()
    drop = torch.ones(2, dtype=torch.bool)
    torch.testing.assert_close(
        model(video, timestep, tokens, drop), model(video, timestep, (tokens - 2 + 5) % 26 + 2, drop)
    )


def test_every_parameter_gets_a_gradient() -> None:
    model = awaken(build())
    sum(each.square().mean() for each in model(*inputs(), with_duration=True)).backward()
    silent = [
        name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()
    ]
    # With one attention key the softmax has no gradient; captions here have three.
    assert silent == []


def test_attention_sizes_that_match_no_level_are_refused() -> None:
    with pytest.raises(
        ValueError,
        match=r"\[5\] match no level; the shorter sides of the levels have \(8, 4\) pixels",
    ):
        build(spatial_attention_sizes=(5,))


def test_images_that_cannot_be_halved_are_refused() -> None:
    with pytest.raises(ValueError, match=r"IMAGE_SIZE \(16, 18\) must have multiples of 4"):
        build(image_size=(16, 18))


@pytest.mark.parametrize("sampler", mostly_slow(["dpm_solver++", "ddim", "ddpm", "euler", "heun"], fast=0))
def test_forward_loss_and_sampling_stay_on_a_cuda_device_that_is_only_imagined(sampler: str, fake_cuda: str) -> None:
    """A stray CPU tensor would raise. Backward and autocast cannot run this way and are not shown by it."""
    on_cpu = build()
    parameters = {name: torch.empty_like(value, device=fake_cuda) for name, value in on_cpu.named_parameters()}

    def model(*arguments: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(on_cpu, parameters, arguments)

    with torch.no_grad():
        schedule = build_noise_schedule("cosine", num_timesteps=100, zero_terminal_snr=True).to(fake_cuda)
        video = torch.empty(2, 3, 4, 16, 16, device=fake_cuda)
        tokens = torch.ones(2, 3, dtype=torch.int64, device=fake_cuda)
        drop = torch.zeros(2, dtype=torch.bool, device=fake_cuda)
        timestep = torch.zeros(2, dtype=torch.int64, device=fake_cuda)
        objective = DiffusionObjective(schedule, "v_prediction", "min_snr", 5.0, 0.1, motion_weight=0.0)
        noisy = objective.noise(video, torch.empty_like(video), timestep)
        prediction = model(noisy.noisy_video, timestep, tokens, drop)
        terms = objective.loss(noisy, video, prediction)
        assert terms.loss.device.type == "cuda"
        clip = sample(
            guided_prediction(model, Guidance(2.0), tokens, 100),
            schedule=schedule,
            prediction_type="v_prediction",
            sampler=sampler,
            num_steps=3,
            initial_noise_BCTHW=video,
            noise_generator=torch.Generator().manual_seed(0),
        )
    assert clip.device.type == "cuda"
    assert clip.shape == (2, 3, 4, 16, 16)


def training_pass(
    model: nn.Module, dtype: torch.dtype | None = None
) -> tuple[torch.Tensor, dict[str, torch.Tensor], int]:
    """Return the prediction, the gradients, and the bytes that stay for the backward pass, weights aside."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        prediction = model(*inputs())
    prediction.float().square().mean().backward()
    gradients = {name: each.grad for name, each in model.named_parameters() if each.grad is not None}
    return prediction.detach(), gradients, sum(kept.values())


def pair(**changes: object) -> tuple[nn.Module, nn.Module]:
    """The same network without and with checkpointing."""
    plain = awaken(build(**changes))
    unet = UNet3D(specification(**changes), checkpoint_activations=True)
    checkpointing = TextToVideoModel(CharacterEncoder(28, 16, 1, 2), unet)
    checkpointing.load_state_dict(plain.state_dict())  # strict: the keys are the same
    return plain, checkpointing


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("changes", [{}, {"channels": (16, 16, 32), "blocks_per_level": 2}])
def test_checkpointing_changes_no_bit_and_keeps_a_quarter(
    changes: dict[str, object], dtype: torch.dtype | None
) -> None:
    plain, checkpointing = pair(**changes)
    prediction, gradients, kept = training_pass(plain, dtype)
    same_prediction, same_gradients, less_kept = training_pass(checkpointing, dtype)
    assert torch.equal(prediction, same_prediction)
    assert gradients.keys() == same_gradients.keys()
    assert all(torch.equal(gradient, same_gradients[name]) for name, gradient in gradients.items())
    assert less_kept < kept / 4


def count_blocks(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    compute = ResidualBlock.forward
    monkeypatch.setattr(ResidualBlock, "forward", lambda *arguments: (calls.append(1), compute(*arguments))[1])
    model(*inputs()).sum().backward()
    return calls


def test_stages_are_computed_twice_only_where_that_was_asked_for_and_the_network_trains(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain, checkpointing = pair()
    stages = 5  # two levels down, the middle, two levels up
    with monkeypatch.context() as patch:
        assert len(count_blocks(plain, patch)) == stages
    with monkeypatch.context() as patch:
        assert len(count_blocks(checkpointing, patch)) == 2 * stages
    average = copy.deepcopy(checkpointing).eval()
    with monkeypatch.context() as patch:
        assert len(count_blocks(average, patch)) == stages
    with torch.no_grad():
        assert torch.equal(average(*inputs()), plain(*inputs()))
