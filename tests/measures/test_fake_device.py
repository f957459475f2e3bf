"""The measures on a CUDA device that is only imagined: what is computed there, and what comes to the host."""

from typing import Any

import pytest
import torch
from torch import Tensor

from diffusion.loss import DiffusionObjective
from diffusion.schedule import build_noise_schedule
from measures.clips import (
    are_copies,
    frozen_share,
    hold_share,
    mean_of,
    motion_energy,
    nearest_distances,
    ratio_to_real,
    sharpness,
    small_copies,
)
from measures.recogniser import LetterRecogniser
from measures.text_use import GaugeClips, measure_text_use, sensitivity_interval, text_sensitivity
from models.text_encoder import CharacterEncoder
from models.unet3d import TextToVideoModel, UNet3D, UNet3DSpecification

SPECIFICATION = UNet3DSpecification(
    image_size=(16, 16),
    num_timesteps=50,
    channels=(16, 32),
    blocks_per_level=1,
    patch_size=2,
    spatial_attention_sizes=(4,),
    head_channels=8,
    groups=4,
    text_channels=16,
)


def clips(device: str, count: int = 5) -> list[Tensor]:
    return [torch.zeros(3, 4 + 4 * (index % 2), 16, 16, device=device) for index in range(count)]


@pytest.mark.slow
@pytest.mark.parametrize("has_shuffled", [True, False])
def test_text_use_of_the_real_network(imagined_cuda: Any, has_shuffled: bool) -> None:
    device = imagined_cuda.name
    model = TextToVideoModel(CharacterEncoder(28, 16, 1, 2), UNet3D(SPECIFICATION)).to(device)
    tokens = torch.ones(5, 3, dtype=torch.int64, device=device)
    gauge = GaugeClips(tuple(clips(device)), tuple(clips(device)), tokens, tokens if has_shuffled else None)
    schedule = build_noise_schedule("cosine", num_timesteps=50, zero_terminal_snr=True).to(device)
    objective = DiffusionObjective(schedule, "v_prediction", "uniform", 5.0, 0.1, motion_weight=0.0)
    use = measure_text_use(model, objective, gauge, most_frames=16, seed=0)
    assert 0.25 <= use.correct <= 0.75  # a stand-in came to the host
    assert len(use.correct_by_bin) == 8
    assert (use.shuffled_gap is None) == (not has_shuffled)


def test_text_sensitivity(imagined_cuda: Any) -> None:
    device = imagined_cuda.name
    assert text_sensitivity(clips(device, 3), clips(device, 2)) is not None
    assert sensitivity_interval(torch.zeros(3, 2, 3, 4, 8, 8, device=device), 0) is not None


@pytest.mark.parametrize("measure", [motion_energy, hold_share, sharpness])
def test_ratios_to_real_clips(imagined_cuda: Any, measure: Any) -> None:
    assert ratio_to_real(measure, clips(imagined_cuda.name), clips(imagined_cuda.name, 3)) is not None
    assert imagined_cuda.transfers > 0


def test_frozen_frames_and_holds(imagined_cuda: Any) -> None:
    assert mean_of(frozen_share, clips(imagined_cuda.name)) > 0
    assert hold_share(clips(imagined_cuda.name)[0]).device == torch.device(imagined_cuda.name)


def test_memorisation(imagined_cuda: Any) -> None:
    generated, training = small_copies(clips(imagined_cuda.name)), small_copies(clips(imagined_cuda.name, 7))
    distances = nearest_distances(generated, training)
    imagined_cuda.has_float64 = True  # PyTorch 2.15 counts up to a quantile in it, on MPS in float32
    assert are_copies(distances, distances).device == torch.device(imagined_cuda.name)


@pytest.mark.parametrize("size", [16, 96])
def test_the_recogniser_reads_on_its_own_device_whatever_the_clips_are_on(imagined_cuda: Any, size: int) -> None:
    recogniser = LetterRecogniser(("A", "B")).to(imagined_cuda.name)
    for device in ("cpu", imagined_cuda.name):
        read = recogniser.read([torch.zeros(3, frames, size, size, device=device) for frames in (4, 8, 4)])
        assert read == [("A",)] * 3  # what came to the host says class 1 everywhere
    assert imagined_cuda.transfers > 0


def test_a_tensor_on_the_wrong_device_would_be_found(imagined_cuda: Any) -> None:
    with pytest.raises(RuntimeError, match="on the same device"):
        clips(imagined_cuda.name)[0] + torch.zeros(3, 4, 16, 16)


def test_float64_on_the_device_would_be_found(imagined_cuda: Any) -> None:
    with pytest.raises(AssertionError, match="float64 on the device"):
        clips(imagined_cuda.name)[0].double()
    assert clips(imagined_cuda.name)[0].cpu().double().dtype == torch.float64
