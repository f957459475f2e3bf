"""One of the processes that train together: a worker of benchmarks.processes, started alone or by torchrun.

Its one argument is a `WorkPlan` as JSON. The trainer's own parts are built as main.py builds them, and take steps on
clips that are ready in memory. The first process prints a `Work` as one JSON object.
"""

import dataclasses
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout

import psutil
import torch

from benchmarks import runner
from benchmarks.worker_process import peak_memory_gib, read_plan
from common.settings import load_settings
from compute.device import choose_device, place_of_this_process
from compute.memory import keep_freed_memory
from config import PRESETS, Config
from data.batches import load_batch
from data.build import build_data
from distributed.processes import Processes, connected_processes
from models.build import build_tokenizer
from training.learner import build_learner

WARM_UP_STEPS = 2  # after the first, DDP divides the gradients into buckets anew


@dataclasses.dataclass(frozen=True)
class WorkPlan:
    """One way of training."""

    options: tuple[str, ...]  # of main.py
    steps: int  # that are measured; the less disturbed half counts
    threads: int = 1  # of PyTorch, of each process
    is_pinned: bool = True  # each process keeps to one core, the first to the first
    is_apart: bool = False  # several processes train each on its own, only starting together


@dataclasses.dataclass(frozen=True)
class TimedStep:
    """A step of one process, in seconds."""

    seconds: float  # by the clock
    own: float  # that its threads worked
    everybody: float  # that the cores it may use worked, for anyone


@dataclasses.dataclass(frozen=True)
class Work:
    """What one way of training took."""

    step_seconds: float  # median of the steps that count; of the slowest process
    clips_per_second: float  # of all processes
    parameters: int
    memory_gib: float  # peak of the largest process
    other_cores: float  # of its own, that other programs or the machine's host kept busy during the steps that count


def quietest(steps_of_rank: Sequence[Sequence[TimedStep]]) -> tuple[list[float], float]:
    """Choose the half of the steps that other programs disturbed least, not those that took least.

    Args:
        steps_of_rank: of each process as many, taken at the same time.

    Returns:
        The median seconds of each process, and how many cores other programs kept busy meanwhile.
    """
    others = [
        max(0.0, sum((step.everybody - step.own) / step.seconds for step in steps))
        for steps in zip(*steps_of_rank, strict=True)
    ]
    chosen = sorted(range(len(others)), key=others.__getitem__)[: (len(others) + 1) // 2]
    medians = [statistics.median(steps[place].seconds for place in chosen) for steps in steps_of_rank]
    return medians, statistics.fmean(others[place] for place in chosen)


def main(arguments: Sequence[str]) -> None:
    """Do the plan and print."""
    plan = WorkPlan(**read_plan(arguments, __doc__))
    place = place_of_this_process()
    if plan.is_pinned:
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[place.local_rank]})
    torch.set_num_threads(plan.threads)
    keep_freed_memory()  # as main.py does
    with redirect_stdout(sys.stderr), connected_processes(place, torch.device("cpu")) as processes:
        work = _work(plan, processes)
    if processes.is_main:
        print(json.dumps(dataclasses.asdict(work)))


def _work(plan: WorkPlan, processes: Processes) -> Work:
    step, clips, parameters = _build(plan, processes)
    for _ in range(WARM_UP_STEPS):
        step()
    processes.wait()
    seconds_of_rank, others = quietest(processes.gather([_timed(step) for _ in range(plan.steps)]))
    memory_gib = max(processes.gather(peak_memory_gib()))
    return Work(
        step_seconds=max(seconds_of_rank),
        clips_per_second=sum(clips / each for each in seconds_of_rank),
        parameters=parameters,
        memory_gib=memory_gib,
        other_cores=others,
    )


def _build(plan: WorkPlan, processes: Processes) -> tuple[Callable[[], object], int, int]:
    """Return what makes a step, the clips of one step of this process, and the number of parameters."""
    config = load_settings(Config, PRESETS, list(plan.options), program="main.py").config
    compute = choose_device("cpu", config.MIXED_PRECISION)
    splits = processes.first_on_each_machine(lambda: build_data(config))
    tokenizer = build_tokenizer(config, splits.symbols)
    together = Processes() if plan.is_apart else processes
    learner = build_learner(config, splits, tokenizer, None, compute, together)
    step = learner.step
    clips = config.clips_per_step
    batch = load_batch(splits.training, [splits.training.row(0, place) for place in range(clips)], tokenizer)
    return lambda: step.run(1, batch), clips, sum(parameter.numel() for parameter in learner.model.parameters())


def _timed(step: Callable[[], object]) -> TimedStep:
    own, everybody = time.process_time(), _processor_seconds()
    seconds = runner.seconds_of(step)
    return TimedStep(seconds, time.process_time() - own, _processor_seconds() - everybody)


def _processor_seconds() -> float:
    """Return what the cores of this process have worked so far, for whomever, or were taken away by the host."""
    cores = psutil.cpu_times(percpu=True)
    kinds = ("user", "system", "irq", "softirq", "steal")
    return float(sum(getattr(cores[core], kind) for core in os.sched_getaffinity(0) for kind in kinds))


if __name__ == "__main__":
    main(sys.argv[1:])
