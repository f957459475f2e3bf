"""What training does on a device between forward passes, on a CUDA device that is only imagined, and its memory."""

from typing import Any, get_args

import pytest
import torch
from torch import nn

from compute.device import ComputeDevice
from compute.memory import MemoryInUse, memory_in_use
from data.lengths import ClipLengths
from data.order import Part
from data.records import to_pixels
from diffusion.guidance import Guidance
from diffusion.samplers import SamplerName
from diffusion.schedule import build_noise_schedule
from distributed.processes import Processes
from logging_system.statistics.system import CudaReadings, MpsReadings, device_readings
from models.text_encoder import CharacterEncoder
from models.tokens import CharacterTokenizer
from models.unet3d import TextToVideoModel, UNet3D, UNet3DSpecification
from sampling.sampler import ClipSampler, SamplingSettings
from tests.grids import mostly_slow
from tests.training.step_rig import Rig, batch
from training.optimizer import ExponentialMovingAverage, LossScale, build_loss_scale
from training.skipped import SkippedSteps
from training.stopping import EndOfRun, StoppingLimits, StopRequest


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
    # What others hold, 80 - 30 - 12, is out of reach; other processes of the run have GPUs of their own.
    assert memory_in_use(device) == memory_in_use(device, 8) == MemoryInUse(here=7, limit=42)
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
    assert LossScale().update(loss).overflowed.device == torch.device(imagined_cuda.name)
    assert imagined_cuda.transfers == 0


@pytest.mark.parametrize("sampler", mostly_slow(get_args(SamplerName), fast=2))
@pytest.mark.parametrize("guidance", mostly_slow([Guidance(3.0, 0.7, (0.2, 0.9)), Guidance(1.0), Guidance(3.0, 0.7)]))
def test_clips_of_the_real_network_reach_the_host(imagined_cuda: Any, sampler: SamplerName, guidance: Guidance) -> None:
    specification = UNet3DSpecification(
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
    device = torch.device(imagined_cuda.name)
    model = TextToVideoModel(CharacterEncoder(28, 16, 1, 2), UNet3D(specification)).to(device)
    schedule = build_noise_schedule("cosine", num_timesteps=50, zero_terminal_snr=True).to(device)
    lengths = ClipLengths(12.0, 4, 8, is_natural=True)
    settings = SamplingSettings(
        schedule, "v_prediction", sampler, 3, guidance, lengths, image_size=(8, 8), frames_at_once=8
    )
    tokenizer = CharacterTokenizer(tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"), 64)
    clip_sampler = ClipSampler(settings, tokenizer, ComputeDevice(device, None))
    noises = [clip_sampler.initial_noise(frames, 0, index) for index, frames in enumerate((4, 8, 4))]
    clips = clip_sampler.sample(model, ("CAB", "A", "B"), noises, seed=0)
    assert [(clip.device.type, tuple(clip.shape)) for clip in clips] == [
        ("cpu", (3, frames, 8, 8)) for frames in (4, 8, 4)
    ]
    assert imagined_cuda.transfers == 2  # clips of two lengths pass one after another
    assert to_pixels(clips[1]).shape == (8, 8, 8, 3)
    imagined_cuda.transfers = 0
    assert len(clip_sampler.frames(model, ("CAB", "A"))) == 2
    assert imagined_cuda.transfers == 1  # for the durations of all


class Mark:
    """A `torch.cuda.Event`."""

    def __init__(self, enable_timing: bool = False) -> None:
        self.was_waited_for = False

    def record(self) -> None:
        pass

    def synchronize(self) -> None:
        self.was_waited_for = True


@pytest.fixture
def imagined_training(imagined_cuda: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The imagined device with what training asks of a GPU beside arithmetic; it has no backward pass."""

    def backward(loss: torch.Tensor) -> None:
        assert loss.requires_grad
        assert loss.device == torch.device(imagined_cuda.name)
        for parameter in imagined_cuda.parameters:
            parameter.grad = torch.ones_like(parameter)

    monkeypatch.setattr(torch.cuda, "Event", Mark)
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    monkeypatch.setattr(torch.autograd, "backward", backward)
    return imagined_cuda


def rig_on(device: Any, loss_scale: LossScale, accumulation_steps: int = 2) -> Rig:
    rig = Rig(accumulation_steps, loss_scale=loss_scale, device=device.name)
    device.parameters = list(rig.model.parameters())
    return rig


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")  # copy.deepcopy does
@pytest.mark.parametrize("is_scaled", [False, True])
def test_nothing_in_a_step_waits_for_the_device(imagined_training: Any, is_scaled: bool) -> None:
    device = torch.device(imagined_training.name)
    imagined_training.has_float64 = is_scaled  # PyTorch's GradScaler, for CUDA alone, inverts its scale in it
    rig = rig_on(imagined_training, build_loss_scale(ComputeDevice(device, torch.float16 if is_scaled else None)))
    for step in (1, 2):
        rig.step.draw_ahead(step + 1, batch().clips_BTHWC.shape)
        outcome = rig.run(step)
    assert imagined_training.transfers == 0
    left = [outcome, outcome.samples, outcome.tensors]
    tensors = {name: each for part in left for name, each in vars(part).items() if isinstance(each, torch.Tensor)}
    assert ("loss_scale" in tensors) == is_scaled
    assert {name for name, each in tensors.items() if each.device != device} == set()
    assert {parameter.grad.device for parameter in rig.model.parameters()} == {device}


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
def test_what_the_loop_learns_of_a_step_it_waits_for_two_steps_later(
    imagined_training: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute, marks = ComputeDevice(torch.device(imagined_training.name), None), []

    def mark() -> Mark:
        marks.append(Mark())
        return marks[-1]

    rig = rig_on(imagined_training, LossScale())
    of_two = Processes(Part(0, 2))
    end = EndOfRun(StoppingLimits(10, None), StopRequest(), of_two, compute)
    skipped = SkippedSteps(
        already_skipped=0, max_skipped_steps_in_a_row=9, compute=compute, rank=0, keep=lambda *_: None
    )
    waited_for = []
    for step in range(1, 5):
        outcome = rig.run(step)
        with monkeypatch.context() as patch:
            patch.setattr(torch.cuda, "Event", mark)
            skipped.add(step, batch(), outcome.skipped, outcome.fault)
            assert end.after(step, outcome.request) is None
        skipped.check()
        assert len(marks) == 2 * step
        waited_for.append(sum(each.was_waited_for for each in marks))
    assert waited_for == [0, 0, 2, 4]
    assert not any(each.was_waited_for for each in marks[4:])
    assert (imagined_training.transfers, imagined_training.under_way) == (0, 8)
    assert skipped.total() == 4  # a stand-in of 1 is a rank
    assert all(each.was_waited_for for each in marks[::2])
