"""The trainer's own step in a process of its own: a worker of benchmarks.processes and benchmarks.scaling.

Its one argument is a `WorkPlan` as JSON. The trainer's own parts are built as main.py builds them, and take steps on
clips that are ready in memory. torchrun may start several, which train together. The first prints a `Work` as JSON.
"""

import dataclasses
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import closing, redirect_stdout

import psutil
import torch

from benchmarks import runner
from benchmarks.worker_process import GIBIBYTE, peak_memory_gib, read_plan
from common.console import program
from common.settings import load_settings
from compute.device import ALONE, build_device, place_of_this_process
from compute.memory import keep_freed_memory
from config import PRESETS, Config
from data.batches import BatchOrder, training_batches
from data.build import build_data
from data.records import Batch
from distributed.processes import Processes, connected_processes
from models.build import build_tokenizer
from training.learner import Learner, build_learner

WARM_UP_STEPS = 2  # after the first, DDP divides the gradients into buckets anew


@dataclasses.dataclass(frozen=True)
class WorkPlan:
    """One way of training."""

    options: tuple[str, ...]  # of main.py
    steps: int  # that are measured; the less disturbed half counts
    threads: int | None = 1  # of PyTorch, of each process; None leaves the number to PyTorch
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
    learner_gib: float  # the same above what the process had before the learner was built
    other_cores: float  # of its own, that other programs or the machine's host kept busy during the steps that count


def quietest(steps_of_rank: Sequence[Sequence[TimedStep]]) -> tuple[list[float], float]:
    """Choose the half of the steps that other programs disturbed least, not those that took least.

    All processes take as many steps, at the same time.

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


@program
def main(arguments: Sequence[str]) -> None:
    """Do the plan and print."""
    plan = WorkPlan(**read_plan(arguments, __doc__))
    place = place_of_this_process()
    if plan.is_pinned:
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[place.local_rank]})
    if plan.threads is not None:
        torch.set_num_threads(plan.threads)
    keep_freed_memory()  # as main.py does
    with redirect_stdout(sys.stderr), connected_processes(place, torch.device("cpu")) as processes:
        work = _work(plan, processes)
    if processes.is_main:
        print(json.dumps(dataclasses.asdict(work)))


def _work(plan: WorkPlan, processes: Processes) -> Work:
    config = load_settings(Config, PRESETS, list(plan.options), program="main.py").config
    learner, batch, before_gib = build_training(config, processes, Processes() if plan.is_apart else processes)
    for _ in range(WARM_UP_STEPS):
        learner.step.run(1, batch)
    clips_of_rank = processes.gather(len(batch.ids))
    seconds_of_rank, others = quietest(processes.gather([_timed(learner, batch) for _ in range(plan.steps)]))
    peak_gib = peak_memory_gib()
    return Work(
        step_seconds=max(seconds_of_rank),
        clips_per_second=sum(clips / each for clips, each in zip(clips_of_rank, seconds_of_rank, strict=True)),
        parameters=sum(parameter.numel() for parameter in learner.model.parameters()),
        memory_gib=max(processes.gather(peak_gib)),
        learner_gib=max(processes.gather(peak_gib - before_gib)),
        other_cores=others,
    )


def build_training(config: Config, processes: Processes, together: Processes) -> tuple[Learner, Batch, float]:
    """Build what a training step needs: `processes` open the data in turn, those `together` train together.

    Returns:
        The learner, this process's clips of one step with the longest clips, and the GiB that it had before the learner
        was built.
    """
    splits = processes.first_on_each_machine(lambda: build_data(config))
    tokenizer = build_tokenizer(config, splits.symbols)
    frames_in_batch, longest = config.frames_per_step * together.part.world_size, splits.training.lengths().max()
    order = BatchOrder(splits.training, frames_in_batch, config.SEED, 0, together.part)
    with closing(training_batches(splits.training, order, num_workers=0, tokenize=tokenizer)) as batches:
        batch = next(each for each in batches if each.clips_BTHWC.shape[1] == longest)
    compute = build_device(config, ALONE)
    before_gib: float = psutil.Process().memory_info().rss / GIBIBYTE
    return build_learner(config, splits, tokenizer, None, compute, together), batch, before_gib


def _timed(learner: Learner, batch: Batch) -> TimedStep:
    own, everybody = time.process_time(), _processor_seconds()
    seconds = runner.seconds_of(lambda: learner.step.run(1, batch))
    return TimedStep(seconds, time.process_time() - own, _processor_seconds() - everybody)


def _processor_seconds() -> float:
    """Return what the cores of this process have worked so far, for whomever, or were taken away by the host."""
    if not hasattr(os, "sched_getaffinity"):  # such a system does not tell
        return 0.0
    cores = psutil.cpu_times(percpu=True)
    kinds = ("user", "system", "irq", "softirq", "steal")
    return float(sum(getattr(cores[core], kind) for core in os.sched_getaffinity(0) for kind in kinds))


if __name__ == "__main__":
    main(sys.argv[1:])
