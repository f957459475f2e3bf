"""What was made fast still computes what it says: the network against a plain second implementation of it."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from models.layers import DRAFT_RATE, PIXEL_RATE, PixelConvolution
from models.text_encoder import CharacterEncoder
from models.unet3d import TextToVideoModel, UNet3D, UNet3DSpecification
from tests.grids import mostly_slow
from tests.models.reference_unet import plain_unet

Forward = Callable[[TextToVideoModel, Tensor, Tensor, Tensor], Tensor]

SMALL = {"image_size": (16, 16), "patch_size": 2, "spatial_attention_sizes": (4,)}
WIDE = {"image_size": (16, 24), "patch_size": 2, "spatial_attention_sizes": (4,)}
MANY_KEYS = {"image_size": (32, 32), "patch_size": 2, "spatial_attention_sizes": (16, 8)}  # 256 keys: the fused kernel
LARGE = {"image_size": (64, 48), "patch_size": 4, "spatial_attention_sizes": (6,)}  # the draft of the text is enlarged
NOT_ASKED = "text_encoder.duration."  # how long the clip is

UNFOLDED = {"image_size": (8, 8), "patch_size": 1, "spatial_attention_sizes": (4,)}


def build(shape: dict[str, object], seed: int = 0) -> TextToVideoModel:
    """Return a network whose every parameter is away from its zero or identity start."""
    torch.manual_seed(seed)
    specification = UNet3DSpecification(
        num_timesteps=100, channels=(8, 16), blocks_per_level=1, head_channels=4, groups=4, text_channels=8, **shape
    )
    model = TextToVideoModel(CharacterEncoder(28, 8, 1, 2), UNet3D(specification))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for module in model.modules():
            if isinstance(module, PixelConvolution):
                module.weight /= PIXEL_RATE  # as its start is
        model.unet.draft.draw.weight /= DRAFT_RATE  # it is that many times as large in use
    return model


def inputs(shape: dict[str, object], frames: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """Return noise, timesteps and tokens; no frame is half-way between two characters, where rounding decides."""
    captions = torch.tensor([[3, 4, 4], [9, 7, 0]])  # a doubled character, and padding
    return torch.randn(2, 3, frames, *shape["image_size"]), torch.tensor([7, 80]), captions


def fast(model: TextToVideoModel, video: Tensor, timestep: Tensor, tokens: Tensor) -> Tensor:
    return model(video, timestep, tokens, torch.zeros(2, dtype=torch.bool))


def root_mean_square(x: Tensor) -> float:
    return x.square().mean().sqrt().item()


def plain(model: TextToVideoModel, video: Tensor, timestep: Tensor, tokens: Tensor) -> Tensor:
    return plain_unet(model.unet, video, timestep, model.text_encoder(tokens, video.shape[2]))


@pytest.mark.parametrize(
    "shape",
    mostly_slow([SMALL, WIDE, MANY_KEYS, LARGE, UNFOLDED], fast=2),
    ids=["small", "wide", "many keys", "large", "unfolded"],
)
def test_predictions_and_gradients_are_those_of_the_plain_network(shape: dict[str, object]) -> None:
    model = build(shape)
    video, timestep, tokens = inputs(shape)
    video.requires_grad_()
    target = torch.randn_like(video)
    found: dict[str, tuple[Tensor, dict[str, Tensor]]] = {}
    for name, forward in (("fast", fast), ("plain", plain)):
        model.zero_grad()
        video.grad = None
        prediction = forward(model, video, timestep, tokens)
        nn.functional.mse_loss(prediction, target).backward()
        named = {**dict(model.named_parameters()), "video": video}
        gradients = {key: value.grad.clone() for key, value in named.items() if not key.startswith(NOT_ASKED)}
        found[name] = (prediction.detach(), gradients)
    assert found["plain"][0].std() > 0.05  # a network that predicts nothing would agree with anything
    torch.testing.assert_close(found["fast"][0], found["plain"][0], rtol=1e-4, atol=1e-5)
    for key, expected in found["plain"][1].items():
        assert expected.abs().max() > 0, f"no gradient reaches {key}"
        error = (found["fast"][1][key] - expected).abs().max() / expected.abs().max()
        assert error < 1e-3, key


@pytest.mark.slow
def test_the_loss_curve_is_that_of_the_plain_network() -> None:
    def curve(forward: Forward) -> list[float]:
        model = copy.deepcopy(start)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
        losses = []
        for step in range(8):
            torch.manual_seed(step)
            video, timestep, tokens = inputs(SMALL)
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(forward(model, video, timestep, tokens), video)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    start = build(SMALL)
    expected = curve(plain)
    assert expected[-1] < 0.98 * expected[0]  # it learns
    assert curve(fast) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("shape", mostly_slow([SMALL, MANY_KEYS]), ids=["small", "many keys"])
def test_bfloat16_is_as_near_as_its_precision_allows(shape: dict[str, object]) -> None:
    errors = []
    for seed in range(4):
        model, given = build(shape, seed), inputs(shape)
        expected = plain(model, *given)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            errors.append(root_mean_square(fast(model, *given) - expected) / root_mean_square(expected))
    assert 1e-4 < sum(errors) / 4 < 0.02  # bfloat16 keeps 8 bits: an exact result would mean that it was not used
