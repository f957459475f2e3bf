"""What a training takes of the machine does not grow with its steps."""

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy
import psutil
import pytest

from tests.reliability.faults import wait_after_steps
from tests.reliability.launch import Launch, launch

WORKERS = 2
READ_EVERY = 5  # steps
EVERYTHING = (
    f"--num-workers={WORKERS}",
    "--diagnostic-log-every-steps=5",
    "--tensorboard-flush-every-steps=5",
    "--sample-every-steps=10",
    "--validate-every-steps=5",
    "--save-every-steps=5",
    "--recogniser-steps=2",
    "--system-sample-seconds=1",
)
MEBIBYTE = 2**20


@dataclass(frozen=True)
class Reading:
    """What the process and its loader workers hold after a step."""

    step: int
    memory: float  # resident, MiB
    files: int
    threads: int
    workers: int
    memory_of_workers: float


def read(process: psutil.Process, step: int) -> Reading:
    workers = process.children(recursive=True)
    return Reading(
        step=step,
        memory=process.memory_info().rss / MEBIBYTE,
        files=process.num_fds(),
        threads=process.num_threads(),
        workers=len(workers),
        memory_of_workers=sum(worker.memory_info().rss for worker in workers) / MEBIBYTE,
    )


def watch(training: Launch, first_step: int, last_step: int, was_read: Path) -> list[Reading]:
    """Read every few steps, from outside; the last step is left out, for with it everything is closed."""
    process, readings = psutil.Process(training.process.pid), []
    for step in range(READ_EVERY, last_step, READ_EVERY):
        training.wait_for(f"waits after {step}\n")
        if step > first_step:
            readings.append(read(process, step))
        (was_read / str(step)).touch()
    (was_read / str(last_step)).touch()
    return readings


def growth(readings: list[Reading], name: str) -> float:
    """Return the slope of the line that fits best, per 1,000 steps."""
    steps = [reading.step for reading in readings]
    return 1000 * float(numpy.polyfit(steps, [getattr(reading, name) for reading in readings], 1)[0])


def usual(readings: list[Reading], name: str) -> float:
    return float(numpy.median([getattr(reading, name) for reading in readings]))


@pytest.mark.parametrize(
    ("steps", "warm_up", "memory_limit"),
    [
        # So early the allocator still asks for more, by up to 50 MiB per 1,000 steps: this finds what is gross. The
        # copies that are saved would be 280 MiB if they were kept.
        pytest.param(200, 60, 90.0, marks=pytest.mark.slow),
        # What may grow: every scalar in memory, 16 bytes each and 0.8 MiB per 1,000 steps, up to 2,048 points a tag.
        pytest.param(2000, 500, 5.0, marks=pytest.mark.slow),
    ],
)
def test_memory_files_and_threads_do_not_grow_with_everything_on(
    tmp_path: Path, steps: int, warm_up: int, memory_limit: float
) -> None:
    was_read = tmp_path / "was_read"
    was_read.mkdir()
    faults = [functools.partial(wait_after_steps, READ_EVERY, was_read)]
    training = launch(tmp_path, f"--max-steps={steps}", *EVERYTHING, faults=faults)
    readings = watch(training, warm_up, steps, was_read)
    assert training.end() == 0, training.said
    assert "Logging: " not in training.said
    assert training.saved_steps == list(range(5, steps + 1, 5))
    assert len(readings) == (steps - warm_up) / READ_EVERY - 1
    middle = len(readings) // 2
    for name in ("memory", "memory_of_workers", "files", "threads", "workers"):
        first, last = usual(readings[:middle], name), usual(readings[middle:], name)
        print(f"{name}: {growth(readings, name):+.2f} per 1,000 steps; {first:.1f}, then {last:.1f}")
    assert growth(readings, "memory") < memory_limit
    assert growth(readings, "memory_of_workers") < memory_limit / 5
    for name in ("files", "threads", "workers"):
        assert usual(readings[:middle], name) == usual(readings[middle:], name)
        assert max(getattr(reading, name) for reading in readings) <= usual(readings, name) + 3  # for a moment
    assert usual(readings, "workers") == WORKERS
