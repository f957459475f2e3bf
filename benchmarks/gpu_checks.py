"""Is everything right on a device? The first checks of benchmarks.gpu; each is a function of its `Findings`."""

import functools
import gc
import json
import os
import re
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.runner import SMALL_NETWORK, machine_line
from benchmarks.step_worker import build_training
from benchmarks.worker_process import GIBIBYTE
from common.randomness import torch_generator
from common.settings import load_settings
from compute.device import ALONE, ComputeDevice, choose_device
from compute.environment import describe_environment
from compute.memory import first_line
from compute.self_check import check_kernels, kernel_cases
from config import PRESETS, Config
from data.records import Batch
from distributed.processes import Processes, ProcessGroup, waiting_group
from logging_system.categories.c14_system import TAGS
from logging_system.statistics.system import device_readings
from models.attention import attend
from models.build import build_model, build_objective, build_tokenizer
from training.learner import Learner
from training.optimizer import optimizer_tensors
from training.step import StepOutcome

BFLOAT16_TOLERANCE = 0.05
"""Largest difference in bfloat16 from float32, as a share of the largest value. A wrong kernel is off by far more."""
_BLOCK = re.compile(r"stem|output|middle|(middle|(down|up)\.\d+)(\.(block|spatial|text|temporal))?")

State = dict[str, Tensor]


@dataclass(frozen=True)
class Findings:
    """Where a check writes what it finds, each finding at once, so that what ends the check loses none.

    Attributes:
        path: of the file, one JSON object a line.
        device: that is checked; on the CPU, sizes are small.
        cache: CACHE_DIR.
        end: when the check has to be over, by `time.monotonic`.
    """

    path: Path
    device: torch.device
    cache: Path
    end: float

    @property
    def is_small(self) -> bool:
        """Whether only the code is tried, not a GPU."""
        return self.device.type == "cpu"

    @property
    def seconds_left(self) -> float:
        """Until the check has to be over."""
        return self.end - time.monotonic()

    def note(self, figure: str, value: object) -> None:
        """Write a figure."""
        self._write({"figure": figure, "value": value})

    def expect(self, is_so: bool, otherwise: str) -> None:
        """Write a fault unless something is so."""
        if not is_so:
            self._write({"fault": otherwise})

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Let an error in the ``with`` block be a fault, so that the other parts of the check run all the same."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  whatever it is, it is a finding
            traceback.print_exc()
            self.expect(False, f"{name}: {type(error).__name__}: {first_line(error)[:300]}")
        gc.collect()
        torch.cuda.empty_cache()

    def wait(self) -> None:
        """Wait until the device has done all it was given."""
        ComputeDevice(self.device, None).wait()

    def seconds_each(self, work: Callable[[], object], repeats: int = 10) -> float:
        """Return the mean time of repeated work, after two times that do not count."""
        for _ in range(2):
            work()
        self.wait()
        start = time.perf_counter()
        for _ in range(repeats):
            work()
        self.wait()
        return (time.perf_counter() - start) / repeats

    def _write(self, finding: dict[str, object]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(finding, default=str) + "\n")
            file.flush()
            os.fsync(file.fileno())


def load_config(findings: Findings, preset: str, *options: str, device: str | None = None) -> Config:
    """Return a preset's settings with further options, not compiled unless they say so; on a CPU, a small network's."""
    size = SMALL_NETWORK if findings.is_small else (f"--preset={preset}",)
    where = (f"--device={device or findings.device.type}", f"--cache-dir={findings.cache}")
    compiled = () if "--compile-model" in options else ("--no-compile-model",)
    return load_settings(Config, PRESETS, [*size, *where, *compiled, *options], program="main.py").config


def build(findings: Findings, preset: str, *options: str, device: str | None = None) -> tuple[Learner, Batch]:
    """Build what takes training steps, and the clips of a step."""
    learner, batch, _ = build_training(load_config(findings, preset, *options, device=device), Processes(), Processes())
    return learner, batch


def check_machine(findings: Findings) -> None:
    """Note versions and the device, what the device can do at best, and what the dashboard reads of it."""
    config = load_config(findings, "tiny")
    compute = choose_device(config.DEVICE, config.MIXED_PRECISION)
    findings.note("environment", describe_environment(compute, sys.argv))
    findings.note("machine", machine_line())
    if findings.device.type == "cuda":
        properties = torch.cuda.get_device_properties(findings.device)
        findings.note(
            "device", {name: getattr(properties, name) for name in ("name", "total_memory", "major", "minor")}
        )
        libraries = {
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "nccl": torch.cuda.nccl.version(),
        }
        findings.note("libraries", libraries)
        findings.note("peak_flops_per_second", compute.peak_flops_per_second)
    with findings.part("ceilings"):
        _note_ceilings(findings)
    with findings.part("readings"):
        readings = device_readings(findings.device).read()
        findings.note("readings", readings)
        wanted = {name for name in TAGS if name.startswith("GPU_")} if findings.device.type == "cuda" else set()
        findings.expect(
            wanted <= readings.keys(), f"the dashboard reads no {', '.join(sorted(wanted - readings.keys()))}"
        )


def _note_ceilings(findings: Findings) -> None:
    device, side, count = findings.device, *((256, 2**20) if findings.is_small else (8192, 2**28))
    for name, dtype, precision in (
        ("bfloat16", torch.bfloat16, "highest"),
        ("float32", torch.float32, "highest"),
        ("tf32", torch.float32, "high"),
    ):
        torch.set_float32_matmul_precision(precision)
        one, other = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        findings.note(f"matmul_tflops_{name}", 2e-12 * side**3 / findings.seconds_each(lambda: one @ other))  # noqa: B023
    torch.set_float32_matmul_precision("highest")
    source, target = torch.zeros(count, device=device), torch.empty(count, device=device)
    findings.note("copy_gb_per_second", 2e-9 * source.nbytes / findings.seconds_each(lambda: target.copy_(source)))
    if device.type == "cuda":
        pinned = torch.zeros(count // 4).pin_memory()
        sending = findings.seconds_each(lambda: target[: count // 4].copy_(pinned, non_blocking=True))
        findings.note("host_to_device_gb_per_second", 1e-9 * pinned.nbytes / sending)
    small = torch.zeros(8, device=device)
    findings.note("launch_microseconds", 1e6 * findings.seconds_each(lambda: small.add_(1), 2000))


@dataclass(frozen=True)
class Place:
    """A call of attention: sequences, heads, queries and keys in each, and what is added to the logits."""

    name: str
    sequences: int
    heads: int
    queries: int
    keys: int
    bias: str = ""  # "learned": [N, h, Q, K], with a gradient; "hides": [N, 1, 1, K], without one; "": nothing

    def inputs(self, device: torch.device, head_channels: int) -> list[Tensor]:
        """Return query, key, value and perhaps a bias, in bfloat16 and laid out as in the network."""

        def heads_of(length: int) -> Tensor:
            made = torch.randn(self.sequences, length, self.heads, head_channels, device=device, dtype=torch.bfloat16)
            return made.transpose(1, 2).requires_grad_()

        inputs = [heads_of(self.queries), heads_of(self.keys), heads_of(self.keys)]
        if self.bias:
            is_learned = self.bias == "learned"
            shape = (self.sequences, *((self.heads, self.queries) if is_learned else (1, 1)), self.keys)
            bias = torch.randn(shape, device=device, dtype=torch.bfloat16)
            bias[..., max(1, 3 * self.keys // 4) :] = float("-inf")  # as padding
            inputs.append(bias.requires_grad_(is_learned))
        return inputs


def attention_places(*, is_small: bool) -> list[Place]:
    """Return where preset base calls attention, with captions of many lengths, and batches around 65,535 sequences."""
    sequences, heads, frames, pixels = (3, 2, 4, 16) if is_small else (16, 4, 32, 256)
    lengths = (1, 13) if is_small else (*range(1, 9), 13, 64)
    temporal = ((6, 4),) if is_small else ((16, 2 * 1024), (1, 65_535), (1, 65_536), (65_536, 2))
    return [
        *(Place(f"space, {size} positions", sequences * frames, heads, size, size) for size in (pixels, pixels // 4)),
        *(Place(f"caption of {length}", sequences, heads, length, length, "hides") for length in lengths),
        *(Place(f"text of {length}", sequences, heads, frames * pixels, length, "learned") for length in lengths),
        *(Place(f"text of {length}, no bias", sequences, heads, frames * pixels, length) for length in lengths),
        # Positions are side by side, like heads. Last: they may fail.
        *(Place(f"time, {clips} x {heads}", clips, heads, frames, frames) for clips, heads in temporal),
    ]


Attention = Callable[..., Tensor]


def check_attention(findings: Findings) -> None:
    """Compare every backend, and the project's own choice, with float32 at each place that calls attention."""
    kinds = (SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.MATH)
    ways: dict[str, Attention] = {kind.name: functools.partial(_attend_by, kind) for kind in kinds}
    ways["attend"] = lambda query, key, value, bias=None: attend(query, key, value, bias)
    for place in attention_places(is_small=findings.is_small):
        with findings.part(place.name):
            inputs = place.inputs(findings.device, 16 if findings.is_small else 64)
            weights = torch.randn_like(inputs[0])
            exact = [each.detach().float().requires_grad_(each.requires_grad) for each in inputs]
            right = _with_gradients(ways["MATH"], exact, weights.float())
            found = {name: _compare(findings, way, inputs, weights, right) for name, way in ways.items()}
            bias = inputs[3] if place.bias else None
            chosen = torch._fused_sdp_choice(inputs[0], inputs[1], inputs[2], attn_mask=bias, scale=1.0)
            findings.note(place.name, {"chosen": SDPBackend(chosen).name, **found})
            own = found["attend"]
            findings.expect(own.get("difference", inf) <= BFLOAT16_TOLERANCE, f"attention ({place.name}): {own}")


def _attend_by(kind: SDPBackend, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
    with sdpa_kernel(kind):
        return nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=1.0)


def _with_gradients(way: Attention, inputs: list[Tensor], weights: Tensor) -> list[Tensor]:
    result = way(*inputs)
    learned = [each for each in inputs if each.requires_grad]
    return [result.detach(), *torch.autograd.grad(result, learned, weights)]


def _compare(
    findings: Findings, way: Attention, inputs: list[Tensor], weights: Tensor, right: list[Tensor]
) -> dict[str, Any]:
    """Return the largest difference of result and gradients, and milliseconds; or why it does not work."""
    try:
        found = _with_gradients(way, inputs, weights)
        worst = max(share_off(one, other) for one, other in zip(found, right, strict=True))
        seconds = findings.seconds_each(lambda: _with_gradients(way, inputs, weights), 1 if findings.is_small else 5)
    except RuntimeError as error:  # not every backend takes every shape
        return {"error": first_line(error)[:200]}
    return {"difference": worst, "ms": 1000 * seconds}


def share_off(found: Tensor, right: Tensor) -> float:
    """Return the largest difference as a share of the largest right value; infinite where something is not finite."""
    difference = (found.float() - right).abs().max() / right.abs().max().clamp(min=1e-2)
    return float(difference.nan_to_num(nan=inf))


def check_self_check(findings: Findings) -> None:
    """Run the self-check of kernels in exact float32, and again with those that autocast runs in bfloat16."""
    torch.backends.cudnn.allow_tf32 = False
    for dtype in (None, torch.bfloat16):
        with findings.part(str(dtype)):
            check_kernels(findings.device, kernel_cases(dtype))


def check_network(findings: Findings) -> None:
    """Compare loss and gradients of base's network with the CPU's, and see that all stays channels last."""
    torch.backends.cudnn.allow_tf32 = False
    config = load_config(findings, "base", "--batch-size=2")
    right = pass_through(config, ComputeDevice(torch.device("cpu"), None))
    for dtype, least in ((None, 0.9999), (torch.bfloat16, 0.98)):
        compute = ComputeDevice(findings.device, dtype)
        with findings.part(compute.precision):
            found = pass_through(config, compute)
            cosines = {name: _cosine(found.gradients[name], gradient) for name, gradient in right.gradients.items()}
            mean = statistics.fmean(cosines.values())  # each parameter alike: a few have most of the whole's length
            lowest = dict(sorted(cosines.items(), key=lambda item: item[1])[:8])
            figures = {"loss": found.loss, "loss_on_cpu": right.loss, "cosine": mean, "lowest_cosines": lowest}
            findings.note(compute.precision, {**figures, "not_channels_last": found.not_channels_last})
            findings.expect(mean >= least, f"{compute.precision}: the gradients' cosines to the CPU's are {mean:.5f}")
            findings.expect(abs(found.loss / right.loss - 1) < 1 - least, f"{compute.precision}: loss {found.loss}")
            layouts = f"{compute.precision}: not channels last after {', '.join(found.not_channels_last)[:300]}"
            findings.expect(not found.not_channels_last, layouts)


@dataclass(frozen=True)
class Pass:
    """What one forward and backward pass left: gradients float32 on the CPU, by parameter."""

    loss: float
    gradients: State
    not_channels_last: list[str]  # blocks of the U-Net whose frames came in another layout


def pass_through(config: Config, compute: ComputeDevice) -> Pass:
    """Pass random clips, the same on every device, through a network whose weights are all away from zero."""
    host = torch.device("cpu")
    generator = torch_generator(0, "gpu_check")
    tokenizer = build_tokenizer(config, tuple("ABCDEFGH"))
    model = build_model(config, tokenizer, host)
    with torch.no_grad():
        for parameter in model.parameters():  # closed blocks would pass no gradient on
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.02)
    model = model.to(compute.device).train()
    others: list[str] = []
    for name, module in model.unet.named_modules():
        if _BLOCK.fullmatch(name):
            module.register_forward_hook(functools.partial(_note_layout, others, name))
    shape = (config.BATCH_SIZE, 3, config.MAX_FRAMES, *config.IMAGE_SIZE)
    video, noise = (torch.randn(shape, generator=generator).clamp(-1, 1).to(compute.device) for _ in range(2))
    timestep = torch.linspace(0, config.NUM_TRAIN_TIMESTEPS - 1, len(video)).long().to(compute.device)
    tokens = tokenizer([("ABCDEFGH" * 2)[: 3 + index] for index in range(len(video))]).to(compute.device)
    objective = build_objective(config, compute.device)
    sample = objective.noise(video, noise, timestep)
    with compute.autocast():
        prediction = model(sample.noisy_video, timestep, tokens, torch.zeros_like(timestep, dtype=torch.bool))
    loss = objective.loss(sample, video, prediction).loss
    torch.autograd.backward(loss)
    return Pass(float(loss.detach()), gradients_of(model), others)


def _note_layout(others: list[str], name: str, _module: nn.Module, _inputs: object, frames_NCHW: Tensor) -> None:
    if not frames_NCHW.is_contiguous(memory_format=torch.channels_last):
        others.append(name)


def gradients_of(model: nn.Module) -> State:
    """Return the gradients that are there, float32 on the CPU, by parameter."""
    return {
        name: parameter.grad.detach().float().cpu()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def _cosine(one: Tensor, other: Tensor) -> float:
    return float(nn.functional.cosine_similarity(one.flatten(), other.flatten(), dim=0, eps=1e-30))


def check_step(findings: Findings) -> None:
    """Take training steps of preset tiny, in all the ways in which a GPU's could be wrong."""
    for name, part in (
        ("five steps against the CPU", _compare_steps),
        ("a step that is not finite", _spoil_step),
        ("an overflow of float16", _overflow),
        ("4 x 4 clips against 16, and recomputation", _compare_batches),
        ("waiting for the device", _forbid_waiting),
    ):
        with findings.part(name):
            part(findings)


def run_steps(learner: Learner, batch: Batch, count: int, first: int = 1) -> list[StepOutcome]:
    """Take steps on the same clips, and draw the noise of the next meanwhile, as training does."""
    outcomes = []
    for step in range(first, first + count):
        learner.step.draw_ahead(step + 1, batch.clips_BTHWC.shape)
        outcomes.append(learner.step.run(step, batch))
    return outcomes


def losses_of(outcomes: Sequence[StepOutcome]) -> list[float]:
    """Return the losses, after waiting for them."""
    return [float(outcome.loss) for outcome in outcomes]


def relative_difference(found: Sequence[float], right: Sequence[float]) -> float:
    """Return the largest, as a share of the right value."""
    return max(abs(one / other - 1) for one, other in zip(found, right, strict=True))


def _compare_steps(findings: Findings) -> None:
    found, right = (
        losses_of(run_steps(*build(findings, "tiny", "--mixed-precision=off", device=device), 5))
        for device in (findings.device.type, "cpu")
    )
    findings.note("losses", {"device": found, "cpu": right})
    worst = relative_difference(found, right)
    findings.expect(worst <= 0.01, f"losses of five steps differ from the CPU's by {worst:.2%}")


def state_of(learner: Learner) -> State:
    """Return copies of the weights, their average and the optimizer's state."""
    tensors = {f"model.{name}": tensor for name, tensor in learner.model.state_dict().items()}
    tensors |= {f"ema.{name}": tensor for name, tensor in learner.ema.model.state_dict().items()}
    tensors |= optimizer_tensors(learner.optimizer, learner.model)
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def changed(before: State, after: State) -> list[str]:
    """Return the names of tensors that are not equal to the last bit."""
    return [name for name, tensor in before.items() if not torch.equal(tensor, after[name])]


def _spoil_step(findings: Findings) -> None:
    learner, batch = build(findings, "tiny")
    run_steps(learner, batch, 2)
    learner.model.register_forward_hook(lambda _module, _inputs, found: (found[0] * float("nan"), *found[1:]))
    before = state_of(learner)
    (outcome,) = run_steps(learner, batch, 1, first=3)
    different = changed(before, state_of(learner))
    findings.note("not_finite", {"skipped": bool(outcome.skipped), "changed": different})
    findings.expect(bool(outcome.skipped) and not different, f"a step with NaN changed {different[:3] or 'no tensor'}")


def _overflow(findings: Findings) -> None:
    if findings.device.type != "cuda":
        findings.note("overflow", "float16 is for CUDA devices")
        return
    learner, batch = build(findings, "tiny", "--mixed-precision=float16")
    run_steps(learner, batch, 2)
    learner.loss_scale.load_state({"scale": 2.0**60, "growth_tracker": 0.0})
    before = state_of(learner)
    (outcome,) = run_steps(learner, batch, 1, first=3)
    different, scale = changed(before, state_of(learner)), learner.loss_scale.state()["scale"]
    learner.loss_scale.load_state({"scale": 2.0**12, "growth_tracker": 0.0})
    after = run_steps(learner, batch, 3, first=4)
    figures = {"overflowed": bool(outcome.overflowed), "changed": different, "scale": scale, "losses": losses_of(after)}
    findings.note("overflow", figures)
    is_right = bool(outcome.overflowed) and not different and scale == 2.0**59 and not any(map(_is_left_out, after))
    findings.expect(is_right, f"an overflow of float16: {figures}")


def _is_left_out(outcome: StepOutcome) -> bool:
    return bool(outcome.skipped) or bool(outcome.overflowed)


def _compare_batches(findings: Findings) -> None:
    """Compare the gradient of 16 clips at once with those of 4 x 4, and of activations that are computed again."""
    whole = ("--mixed-precision=off", "--batch-size=16")
    ways = {
        "16": whole,
        "4 x 4": ("--mixed-precision=off", "--batch-size=4", "--gradient-accumulation-steps=4"),
        "recomputed": (*whole, "--activation-checkpointing"),
    }
    gradients, peaks = {}, {}
    for name, options in ways.items():
        learner, batch = build(findings, "tiny", *options)
        peak_gib()
        run_steps(learner, batch, 1)
        gradients[name] = torch.cat([each.flatten() for each in gradients_of(learner.model).values()])
        peaks[name] = peak_gib()
    right = gradients["16"]
    off = {name: float((each - right).norm() / right.norm()) for name, each in gradients.items()}
    findings.note("batches", {"off": off, "peak_gib": peaks})
    findings.expect(max(off.values()) <= 1e-3, f"gradients of the same clips differ: {off}")


def peak_gib() -> float:
    """Return the most memory of tensors on the GPU since it was last asked; 0 without CUDA."""
    if not torch.cuda.is_available():
        return 0.0
    peak = torch.cuda.max_memory_allocated() / GIBIBYTE
    torch.cuda.reset_peak_memory_stats()
    return peak


def _forbid_waiting(findings: Findings) -> None:
    learner, batch = build(findings, "tiny")
    run_steps(learner, batch, 3)
    findings.wait()
    if findings.device.type != "cuda":
        findings.note("waiting", "only CUDA tells")
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        run_steps(learner, batch, 5, first=4)
    finally:
        torch.cuda.set_sync_debug_mode("default")


class _OneOfSeveral(ProcessGroup):
    """The only process of its group, which takes itself for one of several."""

    @property
    def are_several(self) -> bool:
        return True


def check_processes(findings: Findings) -> None:
    """Take steps with DDP and with FSDP, in a group of one process, and compare them with those of a process alone."""
    store = dist.HashStore()  # type: ignore[attr-defined]
    backend = "cpu:gloo,cuda:nccl" if findings.device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=0, world_size=1)
    group = _OneOfSeveral(ALONE, waiting_group(), store, store)
    ways = (("alone", "ddp", Processes()), ("ddp", "ddp", group), ("fsdp", "fsdp", group))
    for precision, most in (("off", 1e-3), ("auto", BFLOAT16_TOLERANCE)):
        losses = {}
        for name, parallelism, processes in ways:
            with findings.part(f"{name}, MIXED_PRECISION {precision}"):
                options = (f"--mixed-precision={precision}", f"--parallelism={parallelism}")
                learner, batch, _ = build_training(load_config(findings, "tiny", *options), Processes(), processes)
                losses[name] = losses_of(run_steps(learner, batch, 3))
                worst = relative_difference(losses[name], losses["alone"])
                findings.expect(worst <= most, f"losses with {name} differ by {worst:.2%}")
        findings.note(f"losses, MIXED_PRECISION {precision}", losses)
    dist.destroy_process_group()
