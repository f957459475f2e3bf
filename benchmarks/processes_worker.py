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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout

import psutil
import torch
import torch.distributed as dist
from torch import Tensor

from benchmarks.common import seconds_of
from benchmarks.worker_process import peak_memory_gib, read_plan
from common.settings import load_settings
from config import PRESETS, Config
from data.batches import load_batch
from data.records import Batch
from logging_system.records import SampleStatistics
from training.allocator import keep_freed_memory
from training.build_data import build_data
from training.build_learner import build_learner, clips_a_step
from training.build_model import build_tokenizer
from training.build_step import build_train_step
from training.device import choose_device
from training.process_group import connected_processes, place_of_this_process
from training.processes import Processes
from training.shared_model import SharedModel

WARM_UP_STEPS = 2  # after the first, DDP divides the gradients into buckets anew
REPEATS = 9  # of each thing that processes send
NUMBERS_OF_THE_STEP = 3  # that a step gathers with each clip's: loss, norm, request (training.step)
FIRST_BUCKET_BYTES = 2**20  # of torch.nn.parallel.DistributedDataParallel, so that sending begins early
BUCKET_BYTES = 25 * 2**20  # its `bucket_cap_mb`


@dataclasses.dataclass(frozen=True)
class WorkPlan:
    """One way of training.

    Attributes:
        options: of main.py.
        steps: that are measured; the less disturbed half counts.
        threads: of PyTorch, of each process.
        is_pinned: whether each process keeps to one core, the first to the first.
        is_apart: whether several processes train each on its own, only starting together.
        sends_always: whether gradients are sent after every micro-batch.
        measures_communication: whether to time what a step sends, too.
    """

    options: tuple[str, ...]
    steps: int
    threads: int = 1
    is_pinned: bool = True
    is_apart: bool = False
    sends_always: bool = False
    measures_communication: bool = False


@dataclasses.dataclass(frozen=True)
class TimedStep:
    """A step of one process, in seconds."""

    seconds: float  # by the clock
    own: float  # that its threads worked
    everybody: float  # that the cores it may use worked, for anyone


@dataclasses.dataclass(frozen=True)
class Communication:
    """Seconds that sending takes by itself, medians."""

    gradient_bytes: int
    gradients_seconds: float  # the all-reduce of all gradients, in the buckets of DDP
    statistics_seconds: float  # of gathering what each process has to tell


@dataclasses.dataclass(frozen=True)
class Work:
    """What one way of training took."""

    step_seconds: float  # median of the steps that count; of the slowest process
    clips_per_second: float  # of all processes
    parameters: int
    memory_gib: float  # peak of the largest process
    other_cores: float  # of its own, that other programs or the machine's host kept busy during the steps that count
    communication: Communication | None = None


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


def gradient_buckets(gradient_bytes: int) -> list[int]:
    """Return the sizes of the messages in which DDP sends gradients, in the order of the backward pass.

    Buckets end between two tensors, so that the real ones are a little larger.
    """
    sizes = [min(FIRST_BUCKET_BYTES, gradient_bytes)]
    while sum(sizes) < gradient_bytes:
        sizes.append(min(BUCKET_BYTES, gradient_bytes - sum(sizes)))
    return sizes


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
    trainee = _build(plan, processes)
    for _ in range(WARM_UP_STEPS):
        trainee.step()
    processes.wait()
    seconds_of_rank, others = quietest(processes.gather([_timed(trainee.step) for _ in range(plan.steps)]))
    memory_gib = max(processes.gather(peak_memory_gib()))
    communicates = plan.measures_communication and processes.are_several
    return Work(
        step_seconds=max(seconds_of_rank),
        clips_per_second=sum(trainee.clips / each for each in seconds_of_rank),
        parameters=trainee.parameters,
        memory_gib=memory_gib,
        other_cores=others,
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
    clips = clips_a_step(config)
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
    numbers_KB = torch.zeros(len(dataclasses.fields(SampleStatistics)) + NUMBERS_OF_THE_STEP, trainee.clips)
    return Communication(
        gradient_bytes=trainee.gradient_bytes,
        gradients_seconds=_typical(lambda: [dist.all_reduce(bucket) for bucket in buckets], processes),
        statistics_seconds=_typical(lambda: processes.gather_clips(numbers_KB), processes),
    )


def _typical(work: Callable[[], object], processes: Processes) -> float:
    """Return the median seconds, all processes beginning at once."""
    seconds = []
    for _ in range(REPEATS + 1):
        processes.wait()
        seconds.append(seconds_of(work))
    return statistics.median(seconds[1:])


def _timed(step: Callable[[], object]) -> TimedStep:
    own, everybody = time.process_time(), _processor_seconds()
    seconds = seconds_of(step)
    return TimedStep(seconds, time.process_time() - own, _processor_seconds() - everybody)


def _processor_seconds() -> float:
    """Return what the cores of this process have worked so far, for whomever, or were taken away by the host."""
    cores = psutil.cpu_times(percpu=True)
    kinds = ("user", "system", "irq", "softirq", "steal")
    return float(sum(getattr(cores[core], kind) for core in os.sched_getaffinity(0) for kind in kinds))


if __name__ == "__main__":
    main(sys.argv[1:])
