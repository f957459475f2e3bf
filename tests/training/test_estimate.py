"""The estimate before a run: right about small things that can be counted by hand, and unnoticed by training."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import main
from common.errors import UserError
from common.settings import load_settings
from compute.device import ComputeDevice
from compute.memory import MemoryInUse
from config import PRESETS, Config
from data.records import ClipRow, FixedClips
from models.build import build_model, build_tokenizer
from tests.held_clock import HeldClock
from training import estimate as estimate_module
from training.announce import _announce_estimate as announce_estimate
from training.estimate import HELD_BY_CPU_ALLOCATOR, TrainingEstimate, estimate_training, measure_clip
from training.optimizer import build_adamw

CPU = ComputeDevice(torch.device("cpu"), None)
VIDEO_BYTES = 3 * 4 * 16 * 16 * 4
HIDDEN = 8


class TwoLayers(nn.Module):
    """Keeps its input, the input and the output of tanh (which autograd needs once), and the prediction's square."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3 * 4 * 16 * 16, HIDDEN, bias=False)
        self.second = nn.Linear(HIDDEN, HIDDEN, bias=False)

    def forward(self, video_BCTHW: Tensor, timestep_B: Tensor, tokens_BL: Tensor, drop_caption_B: Tensor) -> Tensor:
        assert tokens_BL.shape[0] == timestep_B.shape[0] == drop_caption_B.shape[0] == video_BCTHW.shape[0]
        return self.second(torch.tanh(self.first(video_BCTHW.flatten(1))))


class Failing(TwoLayers):
    def __init__(self, message: str) -> None:
        super().__init__()
        self.message = message

    def forward(self, video_BCTHW: Tensor, timestep_B: Tensor, tokens_BL: Tensor, drop_caption_B: Tensor) -> Tensor:
        raise RuntimeError(self.message)


def batch(clips: int = 3, *, frames: int = 4, size: int = 16) -> FixedClips:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (clips, frames, size, size, 3), generator=generator, dtype=torch.uint8)
    rows = tuple(ClipRow(str(clip), str(clip), frames, frames / 12) for clip in range(clips))
    return FixedClips(rows, tuple(pixels), torch.ones(clips, 2, dtype=torch.int64))


def optimizer_of(model: nn.Module) -> torch.optim.AdamW:
    return build_adamw(Config(LEARNING_RATE=1e-3, WEIGHT_DECAY=0.0), model)


def test_what_is_kept_for_the_backward_pass_is_counted_once_and_for_one_clip() -> None:
    """The video, the output of tanh, which both the tanh and the second product keep, and the prediction."""
    clip = measure_clip(TwoLayers(), batch(), 4, CPU)
    assert clip.activation_bytes == VIDEO_BYTES + 4 * HIDDEN + 4 * HIDDEN
    assert clip.cast_weight_bytes == 0
    assert clip.seconds > 0


def test_weights_in_a_lower_precision_are_counted_apart() -> None:
    model = TwoLayers()
    clip = measure_clip(model, batch(), 4, ComputeDevice(torch.device("cpu"), torch.bfloat16))
    assert clip.cast_weight_bytes in (2 * model.second.weight.numel(), 2 * (model.first.weight.numel() + HIDDEN**2))
    assert clip.activation_bytes < VIDEO_BYTES  # half of it, and a few numbers more


def test_the_first_pass_never_counts_and_slow_ones_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    model = TwoLayers()
    model.register_forward_hook(lambda *_: passes.append(1))
    measure_clip(model, batch(), 4, CPU)
    assert len(passes) == estimate_module.MOST_PASSES
    passes.clear()
    monkeypatch.setattr(estimate_module, "BUDGET_SECONDS", 0.0)
    measure_clip(model, batch(), 4, CPU)
    assert len(passes) == 2
    seconds = iter([9.0, 2.0])
    monkeypatch.setattr(estimate_module, "_time_pass", lambda *_: next(seconds))
    assert measure_clip(model, batch(), 4, CPU).seconds == 2.0


class HalfFrozen(TwoLayers):
    """Trains its first layer alone, and has one that it never uses."""

    def __init__(self) -> None:
        super().__init__()
        self.second.requires_grad_(False)
        self.unused = nn.Linear(2, 2)


def test_frozen_and_unused_layers_are_no_obstacle() -> None:
    assert measure_clip(HalfFrozen(), batch(), 4, CPU).seconds > 0


def sizes_of(
    forward_flops: int = 7, batch_size: int = 4, accumulation_steps: int = 2, **others: float
) -> dict[str, Any]:
    """Return what a step takes, of clips of four frames if nothing else is said."""
    clips = {"frames": 4, "most_at_once": batch_size, "clips_a_step": batch_size * accumulation_steps}
    sizes = {"forward_flops": forward_flops, "batch_size": batch_size, "accumulation_steps": accumulation_steps}
    return sizes | clips | others


def test_one_clip_is_scaled_to_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        estimate_module, "memory_in_use", lambda device, processes_here: MemoryInUse(1000, 4000 // processes_here)
    )
    cost = estimate_module.ClipCost(0.5, 10**6, 0)
    monkeypatch.setattr(estimate_module, "measure_clip", lambda *_: cost)
    model = TwoLayers()
    weights = sum(parameter.nbytes for parameter in model.parameters())
    optimizer = optimizer_of(model)
    sizes = sizes_of()
    monkeypatch.setattr(estimate_module, "time", HeldClock())
    fresh = estimate_training(model, optimizer, batch(), CPU, **sizes)
    assert fresh.parameters == weights / 4
    assert fresh.step_flops == 3 * 7 * 8
    assert fresh.step_seconds == 0.5 * 8
    assert fresh.memory_bytes == 1000 + 3 * weights + HELD_BY_CPU_ALLOCATOR * 4 * 10**6
    assert fresh.memory_limit == 4000
    uneven = estimate_training(model, optimizer, batch(), CPU, **sizes_of(most_at_once=5.25, clips_a_step=7.5))
    assert (uneven.step_flops, uneven.step_seconds) == (round(3 * 7 * 7.5), 0.5 * 7.5)
    assert uneven.memory_bytes == fresh.memory_bytes + HELD_BY_CPU_ALLOCATOR * 1.25 * 10**6
    assert estimate_training(model, optimizer, batch(), CPU, **sizes, processes_here=4) == replace(
        fresh, memory_limit=1000, processes_here=4
    )
    optimizer.state[model.first.weight] = {"step": torch.tensor(1.0)}  # of a resumed run: the moments are there
    assert estimate_training(model, optimizer, batch(), CPU, **sizes).memory_bytes == fresh.memory_bytes - 2 * weights
    cost = replace(cost, activation_bytes=0)
    monkeypatch.setattr(estimate_module, "measure_clip", lambda *_: cost)
    assert estimate_training(model, optimizer, batch(), CPU, **sizes).memory_bytes == 1000 + 2 * weights


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_training_does_not_notice(small_arguments: Callable[..., list[str]], precision: torch.dtype | None) -> None:
    config = load_settings(Config, PRESETS, small_arguments(), program="main.py").config
    model = build_model(config, build_tokenizer(config, None), torch.device("cpu")).train()
    optimizer = optimizer_of(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    compute = ComputeDevice(torch.device("cpu"), precision)
    estimate_training(model, optimizer, batch(frames=8), compute, **sizes_of(1, 2, 1, frames=8))
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [name for name, parameter in model.named_parameters() if parameter.grad is not None] == []
    assert not optimizer.state
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(
    "message",
    [
        "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried 1 byte",
        "MPS backend out of memory (MPS allocated: 1 GB)\nand more",
    ],
)
def test_a_clip_that_does_not_fit_is_a_message_with_a_remedy(message: str) -> None:
    with pytest.raises(UserError, match="lower MAX_FRAMES, IMAGE_SIZE or MODEL_CHANNELS") as raised:
        measure_clip(Failing(message), batch(), 4, CPU)
    assert message.splitlines()[0] in str(raised.value)
    assert "and more" not in str(raised.value)


def test_other_faults_of_a_model_are_not_taken_for_a_lack_of_memory() -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        measure_clip(Failing("shapes do not fit"), batch(), 4, CPU)


GIBIBYTE = 2**30
HERE = TrainingEstimate(
    parameters=3_930_000,
    step_flops=54_600_000_000,
    step_seconds=0.5,
    memory_bytes=11 * GIBIBYTE // 10,
    memory_limit=8 * GIBIBYTE,
    measuring_seconds=0.4,
)


def test_the_estimate_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    announce_estimate(HERE, CPU, steps=1200, max_minutes=13.5, is_compiled=False)
    assert capsys.readouterr().out == (
        "Estimate: 3.93 M parameters, 54.6 GFLOP a step; about 0.5 s a step on this CPU (1200 steps: 10 min), about "
        "1.1 GiB of memory. Training alone: validation, samples and checkpoints come on top. Measured on one clip in "
        "0.4 s.\n"
    )


def test_on_a_gpu_it_says_that_the_seconds_are_an_upper_and_the_memory_a_lower_bound(
    capsys: pytest.CaptureFixture[str],
) -> None:
    announce_estimate(HERE, ComputeDevice(torch.device("cuda"), None), steps=10**6, max_minutes=None, is_compiled=False)
    printed = capsys.readouterr().out
    assert "at most about 0.5 s a step on this GPU (1000000 steps: 5.8 days), at least 1.1 GiB" in printed


def test_too_much_memory_is_a_warning_with_a_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    announce_estimate(replace(HERE, memory_limit=GIBIBYTE), CPU, steps=1200, max_minutes=None, is_compiled=False)
    assert capsys.readouterr().out.splitlines()[1] == (
        "Warning: that is more than the 1 GiB that this run can have; lower BATCH_SIZE (and raise "
        "GRADIENT_ACCUMULATION_STEPS, for as many clips a step), MAX_FRAMES, IMAGE_SIZE or MODEL_CHANNELS."
    )


def test_several_processes_are_told_what_each_can_have(capsys: pytest.CaptureFixture[str]) -> None:
    announce_estimate(
        replace(HERE, memory_limit=GIBIBYTE, processes_here=4), CPU, steps=1200, max_minutes=None, is_compiled=False
    )
    printed = capsys.readouterr().out
    assert "about 1.1 GiB of memory for each of the 4 processes here. Training alone" in printed
    assert "Warning: that is more than the 1 GiB that each of them can have; lower BATCH_SIZE" in printed


@pytest.mark.parametrize(("steps", "says"), [(1200, True), (None, True), (600, False)])
def test_a_limit_of_time_that_comes_first_is_named(
    steps: int | None, says: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    announce_estimate(HERE, CPU, steps=steps, max_minutes=6.0, is_compiled=False)
    assert (
        "MAX_MINUTES (6) leaves time for at most about 720 steps; --max-minutes none" in capsys.readouterr().out
    ) is says


def test_a_compiled_run_says_what_is_slow_at_first_and_may_be_faster_than_estimated(
    capsys: pytest.CaptureFixture[str],
) -> None:
    announce_estimate(HERE, CPU, steps=1200, max_minutes=6.0, is_compiled=True)
    printed = capsys.readouterr().out
    assert "at most about 0.5 s a step" in printed
    assert "MAX_MINUTES (6) leaves time for about 720 steps;" in printed
    assert "The first step compiles the network (COMPILE_MODEL), which takes minutes.\n" in printed


@pytest.mark.slow
def test_a_run_and_its_resume_say_it_with_the_steps_that_are_left(
    small_arguments: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    quiet = ("--experiment-name=run", "--no-enable-video-logging", "--no-enable-noise-visualization")
    assert main.main(small_arguments(*quiet, "--max-steps=1")) == 0
    assert "(1 step: " in capsys.readouterr().out
    assert main.main(small_arguments(*quiet, "--max-steps=3", "--resume")) == 0
    assert "(2 steps: " in capsys.readouterr().out


MEASURE_MEMORY = """
import json, sys
import torch
from benchmarks.step_worker import build_training
from benchmarks.worker_process import peak_memory_gib
from tests.training.test_estimate import batch, optimizer_of, sizes_of
from common.settings import load_settings
from config import PRESETS, Config
from distributed.processes import Processes
from models.build import build_model, build_tokenizer
from compute.device import ComputeDevice
from training.optimizer import ExponentialMovingAverage
from training.estimate import estimate_training, memory_in_use

options = sys.argv[1:]
config = load_settings(Config, PRESETS, options, program="").config
cpu = ComputeDevice(torch.device("cpu"), None)
model = build_model(config, build_tokenizer(config, None), cpu.device)
average = ExponentialMovingAverage(model, 0.9)
start = memory_in_use(cpu.device).here
clips = batch(1, frames=config.MAX_FRAMES, size=config.IMAGE_SIZE[0])
estimate = estimate_training(
    model, optimizer_of(model), clips, cpu, **sizes_of(1, config.BATCH_SIZE, 1, frames=config.MAX_FRAMES)
)
del model, average
learner, clips, _ = build_training(config, Processes(), Processes())
for _ in range(3):
    learner.step.run(1, clips)
peak = peak_memory_gib() * 2**30
print(json.dumps({"estimated": estimate.memory_bytes - start, "measured": peak - start}))
"""


@pytest.mark.slow
def test_the_memory_of_real_steps_is_what_was_estimated_within_a_factor_of_two(tmp_path: Path) -> None:
    root = Path(main.__file__).resolve().parent
    options = [
        *(
            "--image-size=32",
            "--max-frames=8",
            "--clip-timing=stretched",
            "--model-channels=32,32",
            "--spatial-attention-sizes=8",
        ),
        *("--text-channels=32", "--text-layers=1", "--batch-size=16", "--device=cpu", "--mixed-precision=off"),
        f"--cache-dir={tmp_path}",
    ]
    finished = subprocess.run(
        [sys.executable, "-c", MEASURE_MEMORY, *options], cwd=root, capture_output=True, text=True, timeout=120
    )
    assert finished.returncode == 0, finished.stderr
    memory = json.loads(finished.stdout.splitlines()[-1])
    assert memory["measured"] > 100 * 2**20  # enough for a comparison to mean something
    assert 0.5 < memory["estimated"] / memory["measured"] < 2, memory


GPU = ComputeDevice(torch.device("cuda"), None)


@pytest.mark.parametrize(("fits", "seconds", "measured"), [(True, 0.25 * 2, 4), (False, 0.5 * 8, 1)])
def test_on_a_gpu_a_whole_batch_is_measured_and_a_clip_scaled_only_where_it_does_not_fit(
    fits: bool, seconds: float, measured: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Passes take as long as they say; the device is the CPU by another name."""
    sizes: list[int] = []

    def time_pass(model: nn.Module, inputs: tuple[Tensor, ...], compute: ComputeDevice) -> float:
        sizes.append(inputs[0].shape[0])
        assert {len(each) for each in inputs} == {sizes[-1]}
        if sizes[-1] > 1 and not fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 0.25 if sizes[-1] > 1 else 0.5

    monkeypatch.setattr(estimate_module, "_time_pass", time_pass)
    monkeypatch.setattr(estimate_module, "memory_in_use", lambda *_: MemoryInUse(1000, 4000))
    given = estimate_module.first_clips
    monkeypatch.setattr(estimate_module, "first_clips", lambda *wanted: given(*wanted[:-1], CPU.device))
    monkeypatch.setattr(estimate_module, "BUDGET_SECONDS", 0.0)
    model = TwoLayers()
    options = sizes_of()
    found = estimate_training(model, optimizer_of(model), batch(3), GPU, **options)
    assert (found.step_seconds, found.clips_measured, found.batch_fits) == (seconds, measured, fits)
    assert sizes == [1, 1, 4, 4] if fits else [1, 1, 4]
    sizes.clear()
    on_cpu = estimate_training(model, optimizer_of(model), batch(3), CPU, **options)
    assert (on_cpu.step_seconds, on_cpu.clips_measured, on_cpu.batch_fits, sizes) == (0.5 * 8, 1, True, [1, 1])


def test_what_was_measured_on_a_batch_is_no_upper_bound_and_a_batch_that_does_not_fit_is_a_warning(
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = {"steps": 10, "max_minutes": None}
    announce_estimate(replace(HERE, clips_measured=4), GPU, **options, is_compiled=False)
    printed = capsys.readouterr().out
    assert "a step; about 0.5 s a step on this GPU" in printed
    assert "Measured on a batch of 4 in 0.4 s." in printed
    announce_estimate(replace(HERE, clips_measured=4), GPU, **options, is_compiled=True)
    assert "a step; at most about 0.5 s a step" in capsys.readouterr().out
    announce_estimate(replace(HERE, batch_fits=False), GPU, **options, is_compiled=False)
    printed = capsys.readouterr().out.splitlines()
    assert printed[1].startswith("Warning: a batch forward and back did not fit into the memory of this GPU; set ACTIV")
