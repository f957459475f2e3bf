"""The operator for norms against PyTorch's own, compiled once for all shapes; weights that are cast together."""

import functools
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

from models import fused
from models.fused import cast_together, fused_norm, gradient_of_x, statistics
from models.layers import FrameNorm
from models.unet3d import TextToVideoModel
from tests.models.test_reference import SMALL, build, fast, inputs, plain, root_mean_square

KINDS = [(0, False), (0, True), (1, False), (2, True)]
"""Numbers a channel that scale and shift, and whether SiLU follows, as the network uses the operator."""
SHAPES = [(6, 32, 4, 4), (16, 256, 16, 32), (4, 512, 4, 32), (2, 48, 6, 3), (8, 64, 8, 8)]
"""Frames, channels, side, groups: some sizes are equal, some are those that the operator is compiled for."""


def differences(
    frames: int, channels: int, side: int, groups: int, film: int, *, silu: bool, residual: bool = False
) -> list[float]:
    """Return by how much result and gradients differ from PyTorch's, as shares of the largest value."""
    torch.manual_seed(0)
    norm = FrameNorm(groups, channels)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x, gradient = (
        (scale * torch.randn(frames, channels, side, side) + mean).contiguous(memory_format=torch.channels_last)
        for scale, mean in ((2, 3), (1, 0))
    )
    scale_shift = torch.randn(frames, film * channels).requires_grad_() if film else None
    leaves = [each for each in (x.requires_grad_(), norm.weight, norm.bias, scale_shift) if each is not None]
    same, result = fused_norm(x, norm.weight, norm.bias, scale_shift, groups=groups, silu=silu)
    expected = norm(x, scale_shift, silu=silu)
    if residual:
        result, expected = result + 0.5 * same, expected + 0.5 * x
    assert result.is_contiguous(memory_format=torch.channels_last)
    pairs = [(result, expected)]
    pairs += zip(*(torch.autograd.grad(each, leaves, gradient) for each in (result, expected)), strict=True)
    return [((one - other).abs().max() / other.abs().max()).item() for one, other in pairs]


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(("film", "silu"), KINDS)
def test_norm_and_gradients_are_those_of_pytorch(film: int, silu: bool, residual: bool) -> None:
    assert max(differences(6, 32, 5, 4, film, silu=silu, residual=residual)) < 1e-5


def test_a_large_mean_costs_no_precision() -> None:
    x = 1000 + torch.randn(2, 32, 8, 8)
    one = torch.ones(32)
    expected = nn.functional.group_norm(x.double(), 4).float()
    torch.testing.assert_close(
        fused_norm(x, one, 0 * one, None, groups=4, silu=False)[1], expected, rtol=1e-3, atol=1e-3
    )


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the operator be compiled on the CPU, for sizes that are soon computed."""
    monkeypatch.setattr(fused, "_as_run_on", lambda device, function: fused._compiled(function))
    monkeypatch.setattr(fused, "_SHAPE", fused._SHAPE | {"N": 6, "S": 10, "K": 2, "C": 32, "G": 8})
    fused._compiled.cache_clear()
    torch._dynamo.reset()
    counters.clear()
    yield
    fused._compiled.cache_clear()


def check_compiled() -> None:
    for residual in (False, True):
        for film, silu in KINDS:
            assert max(max(differences(*shape, film, silu=silu, residual=residual)) for shape in SHAPES) < 1e-5
    # Statistics with 0, 1 and 2 numbers a channel; result with and without SiLU; the gradient of x with and without,
    # with and without another's; sums of each kind.
    assert counters["stats"]["unique_graphs"] == 3 + 2 + 4 + len(KINDS)


@pytest.mark.slow
def test_one_compilation_serves_all_shapes(compiled: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    check_compiled()


@pytest.mark.slow
def test_generated_kernels_compute_the_same(compiled: None) -> None:
    check_compiled()


def test_without_a_compiler_norms_are_slow_and_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "compiler_fault", lambda device_type: "no triton")
    fused._compiles.cache_clear()
    try:
        with pytest.warns(UserWarning, match=r"torch.compile, which fuses norms, lacks something \(no triton\)"):
            assert fused._as_run_on(torch.device("cuda"), statistics) is statistics
        assert fused._as_run_on(torch.device("cuda"), gradient_of_x) is gradient_of_x
    finally:
        fused._compiles.cache_clear()


def autocast_cpu(device_type: str) -> bool:
    return torch.is_autocast_enabled(device_type)


def test_casting_together_gives_the_numbers_of_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 5), nn.LayerNorm(5), nn.Linear(5, 5))
    names = list(layers.state_dict())
    x = torch.randn(2, 3, 8, 8)

    def train() -> list[Tensor]:
        layers.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16), cast_together(layers):
            y = layers(x)
        y.float().square().sum().backward()
        return [y.detach(), *(parameter.grad for parameter in layers.parameters())]

    expected = train()
    monkeypatch.setattr(fused, "casts_together", autocast_cpu)
    assert all(torch.equal(one, other) for one, other in zip(train(), expected, strict=True))
    assert list(layers.state_dict()) == names
    assert all(isinstance(each, nn.Parameter) for each in layers.parameters())


def on_cuda(model: TextToVideoModel, *given: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return fast(model, *given)


def test_the_network_as_on_cuda_is_as_near_to_the_plain_one_as_bfloat16_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    errors, alike = [], []
    for seed in range(4):
        model, given = build(SMALL, seed), inputs(SMALL)
        expected = plain(model, *given)
        nn.functional.mse_loss(expected, given[0]).backward()
        gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
        model.zero_grad()
        with monkeypatch.context() as patch:
            patch.setattr(fused, "casts_together", autocast_cpu)
            patch.setattr("models.layers.is_fused", lambda x: x.shape[1] % fused.LANES == 0)
            actual = on_cuda(model, *given)
        nn.functional.mse_loss(actual, given[0]).backward()
        errors.append(root_mean_square(actual - expected) / root_mean_square(expected))
        alike += [
            nn.functional.cosine_similarity(parameter.grad.flatten(), gradients[name].flatten(), dim=0).item()
            for name, parameter in model.named_parameters()
            if parameter.grad is not None  # nothing here asks how long the clip is
        ]
    assert 1e-4 < sum(errors) / 4 < 0.02
    assert min(alike) > 0.7  # a few small gradients are mostly rounding
    assert sum(alike) / len(alike) > 0.995
