"""The compiled network computes what the network computes, and the network stays what it was."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from compute.compiled import Forward, compile_network, pad_captions
from config import Config
from models.text_encoder import CharacterEncoder
from models.tokens import PADDING
from models.unet3d import TextToVideoModel, UNet3D, UNet3DSpecification
from training.optimizer import build_adamw

ROOT = Path(__file__).resolve().parents[2]
SPECIFICATION = UNet3DSpecification(
    image_size=(8, 8),
    num_timesteps=100,
    channels=(8,),
    blocks_per_level=1,
    patch_size=2,
    spatial_attention_sizes=(4,),
    head_channels=8,
    groups=2,
    text_channels=8,
)


def build(*, checkpoint_activations: bool = False) -> TextToVideoModel:
    torch.manual_seed(0)
    unet = UNet3D(SPECIFICATION, checkpoint_activations=checkpoint_activations)
    model = TextToVideoModel(CharacterEncoder(28, 8, 1, 2), unet)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def inputs(step: int, letters: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(step)
    video = torch.randn(2, 3, 3, 8, 8, generator=generator)
    tokens = torch.randint(2, 28, (2, letters), generator=generator)
    return video, torch.tensor([5, 60]), tokens, torch.tensor([False, True])


def train(model: nn.Module, forward: Forward, lengths: list[int]) -> list[float]:
    """Train for a step a caption length; return the losses."""
    optimizer = build_adamw(Config(LEARNING_RATE=1e-2, WEIGHT_DECAY=0.0), model)
    losses = []
    for step, letters in enumerate(lengths):
        optimizer.zero_grad()
        loss = forward(*inputs(step, letters)).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "checkpoint_activations"), [("eager", True), pytest.param("aot_eager", True, marks=pytest.mark.slow)]
)
def test_training_through_all_but_the_generated_kernels_is_the_same(backend: str, checkpoint_activations: bool) -> None:
    torch._dynamo.reset()
    eager, model = build(), build(checkpoint_activations=checkpoint_activations)
    keys = list(model.state_dict())
    forward = compile_network(model, backend=backend)
    with torch._dynamo.config.patch(error_on_recompile=True):  # captions of 1 to 8 letters are of one shape
        losses = train(model, forward, [3, 1, 8, 2])
    assert losses == pytest.approx(train(eager, eager, [3, 1, 8, 2]), rel=1e-4)
    assert list(model.state_dict()) == keys
    assert [parameter.shape for parameter in model.parameters()] == [each.shape for each in eager.parameters()]


@pytest.mark.slow
def test_clips_of_any_number_and_length_share_a_few_graphs() -> None:
    torch._dynamo.reset()
    eager, forward = build(), compile_network(build(), backend="eager")
    torch._dynamo.utils.counters.clear()
    for step, (clips, frames, letters) in enumerate([(2, 4, 3), (5, 8, 9), (3, 12, 12), (4, 16, 5), (2, 20, 30)]):
        generator = torch.Generator().manual_seed(10 + step)
        video = torch.randn(clips, 3, frames, 8, 8, generator=generator)
        tokens = torch.randint(2, 28, (clips, letters), generator=generator)
        given = (video, torch.arange(clips), tokens, torch.arange(clips) % 2 == 0)
        for found, expected in zip(forward(*given, with_duration=True), eager(*given, with_duration=True), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 2


def test_the_network_itself_is_not_compiled() -> None:
    torch._dynamo.reset()
    model = build()
    compile_network(model, backend="aot_eager")
    torch._dynamo.utils.counters.clear()
    model(*inputs(0, 3))
    assert not torch._dynamo.utils.counters["stats"]


@pytest.mark.slow
def test_training_with_generated_kernels_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()
    eager, model = build(), build()
    losses = train(model, compile_network(model), [3, 2, 1, 3])
    assert losses == pytest.approx(train(eager, eager, [3, 2, 1, 3]), rel=1e-4)


@pytest.mark.parametrize(("letters", "padded"), [(1, 8), (8, 8), (9, 16), (64, 64)])
def test_captions_are_padded_to_a_few_lengths(letters: int, padded: int) -> None:
    tokens = torch.full((2, letters), 5)
    result = pad_captions(tokens)
    assert result.shape == (2, padded)
    assert torch.equal(result[:, :letters], tokens)
    assert (result[:, letters:] == PADDING).all()


def test_padding_changes_the_prediction_by_rounding_alone() -> None:
    model, (video, timestep, tokens, drop) = build(), inputs(1, 3)
    with torch.no_grad():
        torch.testing.assert_close(
            model(video, timestep, pad_captions(tokens), drop), model(video, timestep, tokens, drop)
        )


PROGRAM = """
import torch
from common.errors import UserError
from compute.compiled import check_compiler
try:
    check_compiler(torch.device("cpu"))
    print("compiles")
except UserError as error:
    print(error)
"""


def run_check(folder: Path, **environment: str) -> str:
    variables = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(folder), **environment}
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, env=variables, capture_output=True, text=True, timeout=120
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.strip()


@pytest.mark.slow
def test_a_compiler_that_is_missing_is_told_even_where_an_earlier_run_had_one(tmp_path: Path) -> None:
    assert run_check(tmp_path) == "compiles"
    assert "COMPILE_MODEL is True" in run_check(tmp_path, CXX=str(tmp_path / "no-such-compiler"))


@pytest.mark.slow
def test_a_compiler_that_is_missing_is_told_before_the_run(tmp_path: Path) -> None:
    message = run_check(tmp_path, CXX=str(tmp_path / "no-such-compiler"))
    assert "COMPILE_MODEL is True, but torch.compile cannot compile for cpu here (InvalidCxxCompiler" in message
    assert "install g++ or clang++, or name one in the environment variable CXX. Or set COMPILE_MODEL to" in message
