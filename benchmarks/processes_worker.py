"""One of the processes that train together: a worker of benchmarks.processes, started alone or by torchrun.

One argument, a `WorkPlan` as JSON. The trainer's own parts are built as main.py builds them, and take steps on clips
that are ready in memory. The first process prints a `Work` as one JSON object.
"""

import dataclasses
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout

import psutil
import torch
import torch.distributed as dist
from torch import Tensor

from benchmarks.machine import peak_memory_gib
from benchmarks.processes_plan import (
    NUMBERS_OF_THE_STEP,
    Communication,
    TimedStep,
    Work,
    WorkPlan,
    gradient_buckets,
    quietest,
)
from common.settings import load_settings
from compute.device import choose_device, place_of_this_process
from compute.memory import keep_freed_memory
from config import PRESETS, Config
from data.batches import load_batch
from data.build import build_data
from data.records import Batch
from distributed.models import SharedModel
from distributed.processes import Processes, connected_processes
from logging_system.records import SampleStatistics
from models.build import build_tokenizer
from training.learner import build_learner
from training.step import build_train_step

WARM_UP_STEPS = 2  # after the first, DDP divides the gradients into buckets anew
REPEATS = 9  # of each thing that processes send
PROBE_BYTES = (4, 2**22, 2**26)  # of all-reduces that show latency and bandwidth


class SendsAlways(SharedModel):
    """Sends the gradients after every backward pass, as code without `no_sync` does."""

    def __init__(self, shared: SharedModel) -> None:
        super().__init__(shared.model)
        self._shared = shared

    def __call__(self, video_BCTHW: Tensor, timestep_B: Tensor, tokens_BL: Tensor, drop_caption_B: Tensor) -> Tensor:
        return self._shared(video_BCTHW, timestep_B, tokens_BL, drop_caption_B)

    @contextmanager
    def gradients_stay_here(self) -> Iterator[None]:
        yield


@dataclasses.dataclass(frozen=True)
class _Trainee:
    """What takes steps."""

    step: Callable[[], object]
    clips: int  # of one step of this process
    parameters: int
    gradient_bytes: int


def main(arguments: Sequence[str]) -> None:
    """Do the plan and print."""
    plan = WorkPlan(**json.loads(arguments[0]))
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
    trainee = _build(plan, processes)
    for _ in range(WARM_UP_STEPS):
        trainee.step()
    processes.wait()
    steps = quietest(processes.gather([_timed(trainee.step) for _ in range(plan.steps)]))
    memory_gib = max(processes.gather(peak_memory_gib()))
    communicates = plan.measures_communication and processes.are_several
    return Work(
        step_seconds=max(steps.seconds_of_rank),
        clips_per_second=sum(trainee.clips / each for each in steps.seconds_of_rank),
        parameters=trainee.parameters,
        memory_gib=memory_gib,
        other_cores=steps.other_cores,
        communication=_communication(trainee, processes) if communicates else None,
    )


def _build(plan: WorkPlan, processes: Processes) -> _Trainee:
    config = load_settings(Config, PRESETS, list(plan.options), program="main.py").config
    compute = choose_device("cpu", config.MIXED_PRECISION)
    splits = processes.first_on_each_machine(lambda: build_data(config))
    tokenizer = build_tokenizer(config, splits.symbols)
    together = Processes() if plan.is_apart else processes
    learner = build_learner(config, splits, tokenizer, None, compute, together)
    shared = SendsAlways(learner.shared) if plan.sends_always else learner.shared
    step = build_train_step(
        config, shared, learner.ema, learner.optimizer, learner.objective, compute, together, learner.loss_scale
    )
    clips = config.clips_per_step
    batch: Batch = load_batch(splits.training, [splits.training.row(0, place) for place in range(clips)], tokenizer)
    parameters = [parameter for parameter in learner.model.parameters() if parameter.requires_grad]
    return _Trainee(
        step=lambda: step.run(1, batch),
        clips=clips,
        parameters=sum(parameter.numel() for parameter in parameters),
        gradient_bytes=sum(parameter.numel() * parameter.itemsize for parameter in parameters),
    )


def _communication(trainee: _Trainee, processes: Processes) -> Communication:
    """Time what a step sends, with nothing else to do."""
    buckets = [torch.zeros(size // 4) for size in gradient_buckets(trainee.gradient_bytes)]
    probes = {size: torch.zeros(size // 4) for size in PROBE_BYTES}
    numbers_KB = torch.zeros(len(dataclasses.fields(SampleStatistics)) + NUMBERS_OF_THE_STEP, trainee.clips)
    return Communication(
        gradient_bytes=trainee.gradient_bytes,
        gradients_seconds=_typical(lambda: [dist.all_reduce(bucket) for bucket in buckets], processes),
        statistics_numbers=numbers_KB.numel(),
        statistics_seconds=_typical(lambda: processes.gather_clips(numbers_KB), processes),
        seconds_of_bytes={
            str(size): _typical(lambda probe=probe: dist.all_reduce(probe), processes)  # type: ignore[misc]
            for size, probe in probes.items()
        },
    )


def _typical(work: Callable[[], object], processes: Processes) -> float:
    """Return the median seconds, all processes beginning at once."""
    seconds = []
    for _ in range(REPEATS + 1):
        processes.wait()
        seconds.append(_seconds(work))
    return statistics.median(seconds[1:])


def _timed(step: Callable[[], object]) -> TimedStep:
    own, everybody = time.process_time(), _processor_seconds()
    seconds = _seconds(step)
    return TimedStep(seconds, time.process_time() - own, _processor_seconds() - everybody)


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _processor_seconds() -> float:
    """Return what the cores of this process have worked so far, for whomever, or were taken away by the host."""
    cores = psutil.cpu_times(percpu=True)
    kinds = ("user", "system", "irq", "softirq", "steal")
    return float(sum(getattr(cores[core], kind) for core in os.sched_getaffinity(0) for kind in kinds))


if __name__ == "__main__":
    main(sys.argv[1:])
