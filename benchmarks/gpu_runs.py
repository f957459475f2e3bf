"""The checks of benchmarks.gpu that run main.py or measure; and the process that does one check.

Its one argument is a `CheckPlan` as JSON. It prints an empty JSON object at the end; what it found is in a file.
"""

import itertools
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from tempfile import TemporaryDirectory

import safetensors.torch
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import gpu_checks
from benchmarks.evaluated_rows import ROOT
from benchmarks.gpu_checks import Findings, build, losses_of, peak_gib, relative_difference, run_steps
from benchmarks.runner import SMALL_NETWORK, points_of
from benchmarks.worker_process import read_plan
from common.console import program
from compute.memory import keep_freed_memory
from data.records import Batch
from training.learner import Learner

CATEGORIES = 15
LONGEST_TABLE = 40  # kernels, and operators on the host, that a profile names
AROUND_SECONDS = 60.0  # of a run that is to learn: its start, the recogniser, the last samples and checkpoint
CURVES = (
    "01_Training/Loss",
    "02_Loss_Components/Validation/Text_Gap_Shuffled",
    "12_Generated_Samples/Letter_Error_Rate",
    "12_Generated_Samples/Real_Letter_Error_Rate",
    "05_Performance/Step_Time_Seconds",
)


@dataclass(frozen=True)
class Check:
    """One of the checks."""

    title: str
    seconds: float  # that it is expected to take on a GPU
    run: Callable[[Findings], None]


@dataclass(frozen=True)
class CheckPlan:
    """What a process is to do."""

    check: int
    device: str
    path: str  # of the findings
    cache: str
    seconds: float


@program
def main(arguments: Sequence[str]) -> None:
    """Do one check."""
    plan = CheckPlan(**read_plan(arguments, __doc__))
    keep_freed_memory()  # as main.py does
    end = time.monotonic() + plan.seconds
    findings = Findings(Path(plan.path), torch.device(plan.device), Path(plan.cache).resolve(), end)
    with findings.part(CHECKS[plan.check].title):
        CHECKS[plan.check].run(findings)
    print(json.dumps({}))


def check_main(findings: Findings) -> None:
    """Train preset tiny with all categories, resume it half-way against straight through, and generate a clip."""
    steps = 4 if findings.is_small else 60
    with TemporaryDirectory() as name:
        folder = Path(name)
        options = [
            *(f"--max-steps={steps}", f"--save-every-steps={steps // 2}", f"--sample-every-steps={steps // 2}"),
            *(f"--validate-every-steps={steps // 4}", f"--diagnostic-log-every-steps={steps // 4}"),
            *("--log-every-steps=1", f"--recogniser-steps={steps}", f"--log-dir={folder}"),
        ]
        findings.note("seconds", _train(findings, "tiny", *options, "--experiment-name=straight"))
        straight, resumed = folder / "straight", folder / "resumed"
        with findings.part("the dashboard"):
            tags = points_of(straight).keys()
            written = {tag.partition("/")[0] for tag in tags}
            findings.note("tags", sorted(tags))
            findings.expect(len(written) >= CATEGORIES - 2, f"only these categories have scalars: {sorted(written)}")
        with findings.part("resuming"):
            shutil.copytree(straight, resumed)
            last = f"checkpoints/step_{steps:08d}"
            shutil.rmtree(resumed / last)
            _train(findings, "tiny", *options, "--experiment-name=resumed", "--resume")
            off = {file: _difference(straight / last, resumed / last, file) for file in ("model", "ema", "optimizer")}
            findings.note("resumed_off_by", off)
            if findings.is_small:  # a GPU promises less (docs/reliability.md)
                findings.expect(max(off.values()) == 0, f"the resumed run is another: {off}")
        with findings.part("generating"):
            clip = folder / "clip.mp4"
            where = ("--run", str(straight), "--device", findings.device.type)
            _python(findings, "generate.py", "--text", "CAB", "--output", str(clip), *where)
            findings.expect(clip.stat().st_size > 0, "generate.py made an empty clip")


def _train(findings: Findings, preset: str, *options: str) -> float:
    """Run main.py and return how long it took."""
    start = time.monotonic()
    size = SMALL_NETWORK if findings.is_small else (f"--preset={preset}",)
    _python(findings, "main.py", *size, f"--device={findings.device.type}", f"--cache-dir={findings.cache}", *options)
    return time.monotonic() - start


def _python(findings: Findings, *arguments: str) -> None:
    """Run a program of the project; RuntimeError with what it said last, if it fails."""
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=findings.seconds_left)
    if done.returncode != 0:
        raise RuntimeError(f"{arguments[0]} ended with exit code {done.returncode}: {done.stderr[-1000:]}")


def _difference(one: Path, other: Path, file: str) -> float:
    """Return the largest difference between two files of tensors."""
    tensors, others = (safetensors.torch.load_file(folder / f"{file}.safetensors") for folder in (one, other))
    return max(float((tensor - others[name]).abs().max()) for name, tensor in tensors.items())


def check_profile(findings: Findings) -> None:
    """Profile a step of base, not compiled: kernels by time, how busy the device is, the host's part."""
    learner, batch = build(findings, "base")
    _note_speed(findings, "step", learner, batch)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if findings.device.type == "cuda" else [])]
    steps = 2
    with profile(activities=activities) as profiler:
        run_steps(learner, batch, steps)
        findings.wait()
    events = profiler.key_averages()
    # What optimizers and the like mark as theirs would count kernels twice.
    kernels = [event for event in events if event.device_type.name == "CUDA" and not event.is_user_annotation]
    operators = [event for event in events if event.device_type.name == "CPU"]
    for name, found, time_of in (
        ("kernels", kernels, lambda event: event.self_device_time_total),
        ("host", operators, lambda event: event.self_cpu_time_total),
    ):
        longest = sorted(found, key=time_of, reverse=True)
        rows = [
            {"name": event.key[:120], "ms": time_of(event) / 1000 / steps, "calls": event.count / steps}
            for event in longest
        ]
        findings.note(name, rows[:LONGEST_TABLE])
        findings.note(f"{name}_ms", sum(row["ms"] for row in rows))
    launches = sum(event.count for event in operators if "LaunchKernel" in event.key)
    findings.note("launches", launches / steps)


def _note_speed(findings: Findings, name: str, learner: Learner, batch: Batch) -> None:
    """Note seconds of a step, the host's part of it, the share of the peak, and the most memory."""
    peak_gib()
    steps = itertools.count(1)
    repeats = 1 if findings.is_small else 8
    step_seconds = findings.seconds_each(lambda: run_steps(learner, batch, 1, first=next(steps)), repeats)
    start = time.perf_counter()
    (outcome,) = run_steps(learner, batch, 1, first=next(steps))
    host_seconds = time.perf_counter() - start
    peak = learner.compute.peak_flops_per_second
    loss = float(outcome.loss)
    figures = {
        "step_ms": 1000 * step_seconds,
        "host_ms": 1000 * host_seconds,
        "clips_per_second": len(batch.captions) / step_seconds,
        "tflops": 1e-12 * learner.estimate.step_flops / step_seconds,
        "share_of_peak": None if peak is None else learner.estimate.step_flops / step_seconds / peak,
        "estimated_ms": 1000 * learner.estimate.step_seconds,
        "peak_gib": peak_gib(),
        "loss": loss,
    }
    findings.note(name, figures)
    findings.expect(isfinite(loss), f"{name}: the loss is not finite")


def check_settings(findings: Findings) -> None:
    """Time base with DETERMINISTIC and with cuDNN's attention, in other batches, large, and tiny."""
    for name, preset, *options in (
        ("DETERMINISTIC", "base", "--deterministic"),  # first: cuBLAS reads its settings once
        ("cuDNN attention", "base", "--cudnn-attention"),
        ("half the batch", "base", "--batch-size=4"),
        ("twice the batch", "base", "--batch-size=16"),
        ("large", "large"),
        ("1.5 times the batch", "base", "--batch-size=12"),
        ("tiny", "tiny"),
    ):
        with findings.part(name):
            learner, batch = build(findings, preset, *options)
            _note_speed(findings, name, learner, batch)
            del learner  # before the next is built


def check_compiled(findings: Findings) -> None:
    """Compile base: how long that takes, a step, what is compiled anew, and the losses of an eager run."""
    learner, batch = build(findings, "base")
    right = losses_of(run_steps(learner, batch, 4))
    learner, batch = build(findings, "base", "--compile-model")
    torch._dynamo.utils.counters.clear()
    start = time.perf_counter()
    found = losses_of(run_steps(learner, batch, 1))
    findings.note("compile_seconds", time.perf_counter() - start)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    found += losses_of(run_steps(learner, batch, 3, first=2))
    _note_speed(findings, "step", learner, batch)
    again = torch._dynamo.utils.counters["stats"]["unique_graphs"] - graphs
    worst = relative_difference(found, right)
    findings.note("compiled", {"graphs": graphs, "later_graphs": again, "losses": found, "eager_losses": right})
    findings.expect(worst <= gpu_checks.BFLOAT16_TOLERANCE, f"compiled losses differ by {worst:.1%}")
    findings.expect(again == 0, f"{again} more graphs were compiled after the first step")


def check_learning(findings: Findings) -> None:
    """Train preset speedrun for the rest of the time: does it learn, and does it read?"""
    minutes = max(0.2, (findings.seconds_left - AROUND_SECONDS) / 60)
    small = ("--max-steps=4", "--log-every-steps=1", "--recogniser-steps=2", "--learning-rate=0.005")
    # Compiling, and a recogniser of 2,000 steps, would take most of the time.
    length = small if findings.is_small else (f"--max-minutes={minutes:.2f}", "--recogniser-steps=500")
    with TemporaryDirectory() as folder:
        _train(findings, "speedrun", *length, "--no-compile-model", f"--log-dir={folder}", "--experiment-name=run")
        points = points_of(Path(folder) / "run")
    curves = {tag: points[tag] for tag in CURVES if tag in points}
    findings.note("curves", curves)
    findings.expect(curves[CURVES[0]][-1] < curves[CURVES[0]][0], "the loss did not fall")


CHECKS = (
    Check("machine and its ceilings", 15, gpu_checks.check_machine),
    Check("attention at every place", 30, gpu_checks.check_attention),
    Check("self-check of kernels", 10, gpu_checks.check_self_check),
    Check("network against the CPU", 35, gpu_checks.check_network),
    Check("training step", 35, gpu_checks.check_step),
    Check("DDP and FSDP", 20, gpu_checks.check_processes),
    Check("main.py and generate.py", 75, check_main),
    Check("profile of base", 60, check_profile),
    Check("settings of base, large, tiny", 45, check_settings),
    Check("base compiled", 100, check_compiled),
    Check("speedrun learns", 135, check_learning),
)
"""In the order of their worth; the number of a check is its place."""

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
