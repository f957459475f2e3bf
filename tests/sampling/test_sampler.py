"""Clips of different lengths from one call of the sampler."""

import copy
import math
from dataclasses import replace
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn

from compute.device import ComputeDevice
from config import Config
from data.lengths import ClipLengths
from data.records import to_pixels
from diffusion.guidance import Guidance
from diffusion.samplers import SamplerName
from diffusion.schedule import build_noise_schedule
from models.build import build_schedule
from models.layers import PIXEL_RATE, PixelConvolution
from models.text_encoder import CharacterEncoder
from models.tokens import CharacterTokenizer
from models.unet3d import TextToVideoModel, UNet3D, UNet3DSpecification
from sampling.sampler import ClipSampler, SamplingSettings, build_sampler

SPECIFICATION = UNet3DSpecification(
    image_size=(8, 8),
    num_timesteps=50,
    channels=(16,),
    blocks_per_level=1,
    patch_size=2,
    spatial_attention_sizes=(4,),
    head_channels=8,
    groups=4,
    text_channels=16,
)
TOKENIZER = CharacterTokenizer(tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"), 64)
CPU = ComputeDevice(torch.device("cpu"), None)
NATURAL = ClipLengths(12.0, 4, 24, is_natural=True)


def sampler(name: SamplerName = "ddim", **changes: Any) -> ClipSampler:
    schedule = build_noise_schedule("cosine", num_timesteps=50, zero_terminal_snr=True)
    settings = SamplingSettings(
        schedule, "v_prediction", name, 3, Guidance(2.0), NATURAL, image_size=(8, 8), frames_at_once=32
    )
    return ClipSampler(replace(settings, **changes), TOKENIZER, CPU)


@pytest.fixture(scope="module")
def model() -> TextToVideoModel:
    """A network that has learned nothing but answers something everywhere."""
    torch.manual_seed(1)
    made = TextToVideoModel(CharacterEncoder(28, 16, 1, 2), UNet3D(SPECIFICATION))
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.2)
    for module in made.modules():
        if isinstance(module, PixelConvolution):
            nn.init.normal_(module.weight, std=0.2 / PIXEL_RATE)
    nn.init.zeros_(made.text_encoder.duration.line.weight)
    nn.init.constant_(made.text_encoder.duration.line.bias, math.log(0.5))  # each letter takes half a second
    return made


def test_a_longer_clip_begins_with_the_noise_of_a_shorter_one() -> None:
    drawn = {frames: sampler().initial_noise(frames, 3, 1, 2) for frames in (4, 12, 40)}
    for frames, noise in drawn.items():
        assert (noise.shape, noise.dtype) == ((3, frames, 8, 8), torch.float32)
        assert torch.equal(noise, drawn[40][:, :frames])
    assert drawn[40].std().item() == pytest.approx(1.0, abs=0.05)
    for other in (sampler().initial_noise(12, 4, 1, 2), sampler().initial_noise(12, 3, 1, 3)):
        assert not torch.equal(other, drawn[12])


def test_durations_are_those_that_the_text_encoder_expects(model: TextToVideoModel) -> None:
    prompts = ["A", "ABC", "AB"]
    assert sampler().seconds(model, prompts) == pytest.approx([0.5, 1.5, 1.0])
    assert sampler().frames(model, prompts) == [8, 20, 12]  # of 6, 18 and 12 frames; half-way goes up
    assert sampler().frames(model, ["ABCDEFGH"]) == [24]
    assert sampler(lengths=replace(NATURAL, is_natural=False)).frames(model, prompts) == [24] * 3


@pytest.mark.parametrize(("log_seconds", "frames"), [(float("nan"), 4), (float("inf"), 24), (-200.0, 4), (200.0, 24)])
def test_a_network_that_has_diverged_still_gets_a_clip(
    model: TextToVideoModel, log_seconds: float, frames: int
) -> None:
    diverged = copy.deepcopy(model)
    nn.init.constant_(diverged.text_encoder.duration.line.bias, log_seconds)
    assert sampler().frames(diverged, ["AB"]) == [frames]


@pytest.mark.parametrize("name", ["ddim", "ddpm", "heun"])
def test_a_clip_is_the_same_alone_and_beside_clips_of_other_lengths(model: TextToVideoModel, name: SamplerName) -> None:
    own = sampler(name)
    prompts, lengths = ["AB", "C", "DEF"], [12, 4, 20]
    noises = [own.initial_noise(frames, 0, index) for index, frames in enumerate(lengths)]
    together = own.sample(model, prompts, noises, seed=7)
    assert [tuple(clip.shape) for clip in together] == [(3, frames, 8, 8) for frames in lengths]
    (alone,) = own.sample(model, prompts[:1], noises[:1], seed=7)
    assert torch.equal(alone, together[0])
    if name != "ddpm":  # which draws noise for a clip by its place
        for prompt, noise, clip in zip(prompts, noises, together, strict=True):
            assert torch.equal(own.sample(model, [prompt], [noise], seed=7)[0], clip)


def test_clips_come_back_in_their_order_whatever_passes_together(model: TextToVideoModel) -> None:
    prompts, lengths = ["A", "BC", "D", "EF", "G"], [8, 4, 8, 4, 8]
    noises = [sampler().initial_noise(frames, 0, index) for index, frames in enumerate(lengths)]
    few, many = (
        sampler(frames_at_once=frames_at_once).sample(model, prompts, noises, seed=0) for frames_at_once in (1, 100)
    )
    for one, other, frames in zip(few, many, lengths, strict=True):
        assert one.shape == (3, frames, 8, 8)
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
    distances = torch.stack([(few[0] - few[other]).abs().mean() for other in (2, 4)])
    assert (distances > 0.05).all()  # no two clips are alike


class Recording(nn.Module):
    """Remembers the clips and frames of each forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.passes: list[tuple[int, int]] = []

    def forward(self, video: Tensor, *_: Any) -> Tensor:
        assert not self.training
        self.passes.append((video.shape[0], video.shape[2]))
        if video.shape[2] > 40:
            raise RuntimeError("out of memory")
        return torch.zeros_like(video)


def test_no_more_frames_pass_at_once_than_allowed_but_every_clip_passes() -> None:
    own = replace(
        sampler(frames_at_once=16), settings=replace(sampler(frames_at_once=16).settings, guidance=Guidance(1.0))
    )
    recording = Recording().train()
    lengths = [4, 20, 4, 8, 4, 4, 4]
    noises, watched = [own.initial_noise(frames, 0) for frames in lengths], list[list[int]]()
    own.sample(recording, ["A"] * 7, noises, seed=0, watch=lambda groups: watched.extend(groups) or groups)
    assert watched == [[0, 2, 4, 5], [6], [1], [3]]
    assert sorted(recording.passes) == sorted([(4, 4), (1, 4), (1, 20), (1, 8)] * 3)  # in three sampling steps
    assert recording.training


def test_the_model_is_in_its_mode_again_where_sampling_fails() -> None:
    recording = Recording().train()
    with pytest.raises(RuntimeError, match="out of memory"):
        sampler().sample(recording, ["A"], [sampler().initial_noise(44, 0)], seed=0)
    assert recording.training


def test_words_of_any_number_of_letters_are_spelled_at_one_speed() -> None:
    """A run on clips that people bring has seen none that are longer than MAX_FRAMES; letters are the same ones."""
    expected = {
        Config(MAX_FRAMES=16): 48,
        Config(MAX_FRAMES=16, CLIP_TIMING="stretched"): 16,
        Config(MAX_FRAMES=16, DATA_ROOT="clips"): 16,
    }
    for config, frames in expected.items():
        built = build_sampler(config, build_schedule(config, CPU.device), TOKENIZER, CPU)
        assert built.settings.lengths.of(4.0) == frames


def test_pixels_are_bytes_with_colours_last() -> None:
    clip = torch.zeros(3, 4, 2, 5)
    clip[:, 1, 0, 3] = torch.tensor([1.0, -1.0, 2.0])
    pixels = to_pixels(clip)
    assert (pixels.shape, pixels.dtype) == ((4, 2, 5, 3), numpy.uint8)
    assert pixels[1, 0, 3].tolist() == [255, 0, 255]
    assert pixels[0, 0, 0].tolist() == [128] * 3
