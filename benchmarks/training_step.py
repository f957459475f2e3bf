"""Median training step and peak memory of a preset: python -m benchmarks.training_step [--host] [main.py options]

Runs main.py in a process of its own with every category logged, and watches all its processes from outside. Memory is
proportional set size (PSS), which counts pages that loader workers share with their parent once.

With --host, it measures what the training thread does for a GPU before it starts the network: taking noise, timesteps
and dropped captions, and copying all into pinned memory. Ordinary memory takes its place, so that no GPU is needed.
"""

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import torch
from torch import Tensor, nn

from benchmarks import runner
from benchmarks.evaluated_rows import ROOT
from benchmarks.worker_process import GIBIBYTE
from common.console import program
from common.settings import load_settings
from compute.device import ComputeDevice
from compute.memory import keep_freed_memory
from config import PRESETS, Config
from data.records import Batch
from distributed.models import SharedModel
from distributed.processes import Processes
from models.build import build_objective
from training.optimizer import ExponentialMovingAverage, LossScale, build_adamw
from training.step import TrainStep

STEPS, STEPS_A_POINT, WARM_UP_POINTS = 60, 5, 2
HOST_STEPS, CAPTION_LENGTH = 20, 16
STEP_TAG = "05_Performance/Step_Time_Seconds"


@program
def main(arguments: Sequence[str]) -> int:
    """Run, watch and print; return the exit code."""
    parser = runner.build_parser("training_step", __doc__)
    parser.add_argument("--host", action="store_true", help="measure the host's part of a GPU's step instead")
    options, training_options = parser.parse_known_args(arguments)
    if options.host:
        config = load_settings(Config, PRESETS, training_options, program="main.py").config
        seconds = host_seconds(config, HOST_STEPS)
        line = f"host's part of a step: {runner.spread_of(seconds).text(2, 'ms', factor=1e3)}, one thread"
        runner.publish(runner.machine_line(), [line], {"host_seconds": seconds}, options.json)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "main.py", f"--max-steps={STEPS}", f"--log-every-steps={STEPS_A_POINT}"]
        command += [f"--log-dir={folder}/logs", "--experiment-name=run", f"--cache-dir={folder}/cache"]
        errors = Path(folder) / "stderr"
        code, peak = _run([*command, "--recogniser-steps=0", *training_options], errors)
        if code != 0:
            runner.say(errors.read_text(encoding="utf-8", errors="replace"))
            runner.say(f"error: main.py ended with exit code {code}")
            return 1
        points = runner.points_of(Path(folder) / "logs/run")[STEP_TAG][WARM_UP_POINTS:]
    report = [
        f"step: {runner.spread_of(points).text(3, 's')}, median (smallest to largest) of means of {STEPS_A_POINT}",
        f"peak memory of all processes, samples and validation included: {peak / GIBIBYTE:.2f} GiB PSS",
    ]
    runner.publish(runner.machine_line(), report, {"step_seconds": points, "peak_bytes": peak}, options.json)
    return 0


@dataclass(frozen=True)
class _WithoutGpu(ComputeDevice):
    """Copies on the host as for a GPU, from ordinary memory to ordinary memory, but not to the GPU."""

    pinned: list[int] = field(default_factory=list)  # addresses

    def empty_on_host(self, shape: Sequence[int]) -> Tensor:
        memory = torch.empty(shape)
        self.pinned[:] = [*self.pinned[-1:], memory.untyped_storage().data_ptr()]
        return memory

    def send(self, tensor: Tensor) -> Tensor:
        return tensor if tensor.untyped_storage().data_ptr() in self.pinned else tensor.clone()


def host_seconds(config: Config, steps: int) -> list[float]:
    """Return the processor seconds of the training thread in each step, with one thread; noise is drawn in another."""
    keep_freed_memory()
    torch.set_num_threads(1)
    compute, network = _WithoutGpu(torch.device("cpu"), None), nn.Linear(1, 1)
    step = TrainStep(
        shared=SharedModel(network),
        ema=ExponentialMovingAverage(network, config.EMA_DECAY),
        optimizer=build_adamw(config, network),
        loss_scale=LossScale(),
        objective=build_objective(config, compute.device),
        compute=compute,
        processes=Processes(),
        config=config,
    )
    count = config.frames_per_step // config.MAX_FRAMES
    clips = torch.randint(256, (count, config.MAX_FRAMES, *config.IMAGE_SIZE, 3), dtype=torch.uint8)
    tokens = torch.zeros(count, CAPTION_LENGTH, dtype=torch.int64)
    names = ("",) * count
    batch = Batch(clips, torch.ones(count), tokens, names, names, epoch=0, index_in_epoch=0, clips_in_step=count)
    step.draw_ahead(1, clips.shape)
    found = []
    for number in range(1, steps + 1):
        time.sleep(0.2)  # of a GPU's work, in which the noise is drawn
        begun = time.thread_time()
        step.draw_ahead(number + 1, clips.shape)
        for tensor in (clips, tokens, *step.draw(number, batch)):
            for part in tensor.tensor_split(config.GRADIENT_ACCUMULATION_STEPS):
                compute.send(part)
        found.append(time.thread_time() - begun)
    return found


def _run(command: Sequence[str], errors: Path) -> tuple[int, int]:
    """Return the exit code and the peak of memory; standard error goes to a file."""
    peak = 0
    with errors.open("wb") as file:
        child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=file)
        while child.poll() is None:
            with contextlib.suppress(psutil.Error):  # a process ended in between
                watched = psutil.Process(child.pid)
                members = [watched, *watched.children(recursive=True)]
                peak = max(peak, sum(member.memory_full_info().pss for member in members))
            time.sleep(0.5)
        return child.wait(), peak


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
