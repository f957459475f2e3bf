"""What training does on a device between forward passes, on a CUDA device that is only imagined, and its memory."""

from typing import Any, get_args

import pytest
import torch
from torch import nn

from diffusion.guidance import Guidance
from diffusion.samplers import SamplerName
from diffusion.schedule import build_noise_schedule
from logging_system.devices import CudaReadings, MpsReadings, device_readings
from models.text_encoder import CharacterEncoder
from models.text_to_video import TextToVideoModel
from models.tokens import CharacterTokenizer
from models.unet3d import UNet3D, UNet3DSpecification
from training.device import ComputeDevice
from training.ema import ExponentialMovingAverage
from training.estimate import MemoryInUse, memory_in_use
from training.loss_scale import NoLossScale
from training.sampling import ClipSampler, SamplingSettings, to_pixels


class Backend:
    """Answers the memory queries of `torch.cuda` and `torch.mps`, and remembers which device was asked for."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[str, object]] = []
        self._patch = patch

    def answer(self, module: object, name: str, value: object) -> None:
        def query(*device: object) -> object:
            self.asked.append((name, *device))
            return value

        self._patch.setattr(module, name, query)


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Backend:
    return Backend(monkeypatch)


def test_memory_of_a_gpu_is_asked_of_that_gpu_and_its_cache_counts_as_free(backend: Backend) -> None:
    backend.answer(torch.cuda, "mem_get_info", (30, 80))
    backend.answer(torch.cuda, "memory_allocated", 7)
    backend.answer(torch.cuda, "memory_reserved", 12)
    device = torch.device("cuda", 3)
    assert memory_in_use(device) == MemoryInUse(here=7, limit=42)  # what others hold, 80 - 30 - 12, is out of reach
    assert {asked for _, asked in backend.asked} == {device}


def test_memory_of_mps_has_the_limit_that_metal_recommends(backend: Backend) -> None:
    backend.answer(torch.mps, "current_allocated_memory", 5)
    backend.answer(torch.mps, "recommended_max_memory", 16)
    assert memory_in_use(torch.device("mps")) == MemoryInUse(here=5, limit=16)


def test_memory_of_the_cpu_asks_no_gpu(backend: Backend) -> None:
    for module, name in ((torch.cuda, "mem_get_info"), (torch.mps, "recommended_max_memory")):
        backend.answer(module, name, None)
    memory = memory_in_use(torch.device("cpu"))
    assert 0 < memory.here < memory.limit
    assert backend.asked == []


def test_readings_of_a_gpu_are_asked_of_that_gpu(backend: Backend) -> None:
    for name in ("memory_allocated", "memory_reserved", "max_memory_allocated", "utilization", "temperature"):
        backend.answer(torch.cuda, name, 2_000_000_000)
    backend.answer(torch.cuda, "memory_stats", {"num_alloc_retries": 1})
    backend.answer(torch.cuda, "power_draw", 90_000)
    readings = device_readings(torch.device("cuda", 2))
    assert isinstance(readings, CudaReadings)
    values = readings.read()
    assert values["GPU_Memory_Allocated_GB"] == values["GPU_Memory_Peak_GB"] == 2.0
    assert values["GPU_Power_Watts"] == 90.0
    assert {device for _, device in backend.asked} == {2}
    assert len(backend.asked) == 7


def test_readings_of_mps(backend: Backend) -> None:
    backend.answer(torch.mps, "current_allocated_memory", 10**9)
    backend.answer(torch.mps, "driver_allocated_memory", 3 * 10**9)
    readings = device_readings(torch.device("mps"))
    assert isinstance(readings, MpsReadings)
    assert readings.read() == {"MPS_Memory_Allocated_GB": 1.0, "MPS_Driver_Memory_GB": 3.0}


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (torch.cuda, ("mem_get_info", "memory_allocated", "memory_reserved", "device_count", "set_device")),
        (torch.mps, ("current_allocated_memory", "recommended_max_memory", "driver_allocated_memory", "synchronize")),
        (torch.backends.mps, ("is_available", "is_macos_or_newer")),
    ],
)
def test_what_is_called_exists_in_this_pytorch(module: Any, names: tuple[str, ...]) -> None:
    assert all(callable(vars(module)[name]) for name in names)


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")  # copy.deepcopy does
def test_the_average_moves_on_the_device_without_waiting_for_it(imagined_cuda: Any) -> None:
    device = imagined_cuda.name
    model = nn.Linear(4, 3).to(device)
    ema = ExponentialMovingAverage(model, 0.9)
    ema.update(3, torch.zeros((), dtype=torch.bool, device=device))
    assert {parameter.device for parameter in ema.model.parameters()} == {torch.device(device)}
    assert imagined_cuda.transfers == 0


def test_whether_a_step_counts_is_decided_on_the_device(imagined_cuda: Any) -> None:
    loss = torch.zeros((), device=imagined_cuda.name)
    assert NoLossScale().update(loss).device == torch.device(imagined_cuda.name)
    assert imagined_cuda.transfers == 0


@pytest.mark.parametrize("sampler", get_args(SamplerName))
@pytest.mark.parametrize("guidance", [Guidance(1.0), Guidance(3.0, 0.7), Guidance(3.0, 0.7, (0.2, 0.9))])
def test_clips_of_the_real_network_reach_the_host(imagined_cuda: Any, sampler: SamplerName, guidance: Guidance) -> None:
    specification = UNet3DSpecification(
        image_size=8,
        num_timesteps=50,
        channels=(16,),
        blocks_per_level=1,
        patch_size=2,
        spatial_attention_sizes=(4,),
        head_channels=8,
        groups=4,
        text_channels=16,
    )
    device = torch.device(imagined_cuda.name)
    model = TextToVideoModel(CharacterEncoder(28, 16, 1, 2), UNet3D(specification)).to(device)
    schedule = build_noise_schedule("cosine", num_timesteps=50, zero_terminal_snr=True).to(device)
    settings = SamplingSettings(schedule, "v_prediction", sampler, 3, guidance, num_frames=4, image_size=8)
    tokenizer = CharacterTokenizer(tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"), 64)
    clip_sampler = ClipSampler(settings, tokenizer, ComputeDevice(device, None))
    noise = torch.stack([clip_sampler.initial_noise(0, index) for index in range(2)])
    clips = clip_sampler.sample(model, ("CAB", "A"), noise, seed=0)
    assert (clips.device.type, clips.shape) == ("cpu", (2, 3, 4, 8, 8))
    looks_at_the_timestep = guidance.interval != (0.0, 1.0)  # once a step
    assert (imagined_cuda.transfers == 1) == (not looks_at_the_timestep)
    assert to_pixels(clips).shape == (2, 4, 8, 8, 3)
