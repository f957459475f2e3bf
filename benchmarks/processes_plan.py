"""What benchmarks.processes asks of a worker, and what it answers."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

NUMBERS_OF_THE_STEP = 3  # that a step gathers beside each clip's: loss, norm, request (training.step)
MEBIBYTE = 2**20
FIRST_BUCKET_BYTES = MEBIBYTE  # of torch.nn.parallel.DistributedDataParallel, so that sending begins early
BUCKET_BYTES = 25 * MEBIBYTE  # its `bucket_cap_mb`


@dataclass(frozen=True)
class WorkPlan:
    """One way of training.

    Attributes:
        options: of main.py.
        steps: that are measured; the less disturbed half counts.
        threads: of PyTorch, of each process.
        is_pinned: whether each process keeps to one core, the first to the first.
        is_apart: whether several processes train each on its own, only starting together.
        sends_always: whether gradients travel after every micro-batch.
        measures_communication: whether to time what a step sends, too.
    """

    options: tuple[str, ...]
    steps: int
    threads: int = 1
    is_pinned: bool = True
    is_apart: bool = False
    sends_always: bool = False
    measures_communication: bool = False


@dataclass(frozen=True)
class TimedStep:
    """A step of one process, in seconds."""

    seconds: float  # by the clock
    own: float  # that its threads worked
    everybody: float  # that the cores it may use worked, for whomever


@dataclass(frozen=True)
class QuietSteps:
    """The steps of some processes that other programs disturbed least."""

    seconds_of_rank: tuple[float, ...]  # medians
    other_cores: float  # of theirs, that other programs or the machine's host kept busy meanwhile; the mean


def quietest(steps_of_rank: Sequence[Sequence[TimedStep]]) -> QuietSteps:
    """Choose the less disturbed half of the steps.

    Which ones these are, what other programs do decides, not how long a step took.

    Args:
        steps_of_rank: of each process as many, taken at the same time.
    """
    others = [
        max(0.0, sum((step.everybody - step.own) / step.seconds for step in steps))
        for steps in zip(*steps_of_rank, strict=True)
    ]
    chosen = sorted(range(len(others)), key=others.__getitem__)[: (len(others) + 1) // 2]
    return QuietSteps(
        seconds_of_rank=tuple(statistics.median(steps[place].seconds for place in chosen) for steps in steps_of_rank),
        other_cores=statistics.fmean(others[place] for place in chosen),
    )


@dataclass(frozen=True)
class Communication:
    """Seconds that sending takes by itself, medians."""

    gradient_bytes: int
    gradients_seconds: float  # the all-reduce of all gradients, in the buckets of DDP
    statistics_numbers: int  # that each process has to tell
    statistics_seconds: float  # of gathering them
    seconds_of_bytes: dict[str, float]  # of an all-reduce of so many bytes


@dataclass(frozen=True)
class Work:
    """What one way of training took."""

    step_seconds: float  # median of the steps that count; of the slowest process
    clips_per_second: float  # of all processes
    parameters: int
    memory_gib: float  # peak of the largest process
    other_cores: float  # of its own, that other programs or the machine's host kept busy during the steps that count
    communication: Communication | None = None


def gradient_buckets(gradient_bytes: int) -> list[int]:
    """Return the sizes of the messages in which DDP sends gradients, in the order of the backward pass.

    Buckets end between two tensors, so that the real ones are a little larger.
    """
    sizes = [min(FIRST_BUCKET_BYTES, gradient_bytes)]
    left = gradient_bytes - sizes[0]
    while left > 0:
        sizes.append(min(BUCKET_BYTES, left))
        left -= sizes[-1]
    return sizes
