"""How long the steps of real training runs wait for data."""

import json
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import training.build
from benchmarks.spread import Spread, spread_of
from benchmarks.whole_run import train_whole
from config import Config
from data.batches import training_batches
from data.build import build_data
from data.records import Batch, DataSplits

NEVER = 10**9
WAIT_TAG = "05_Performance/Data_Wait_Percent"


@dataclass(frozen=True)
class RunPlan:
    """One block of steps to warm up, then blocks that are measured, then one step that ends the run."""

    steps_per_block: int
    blocks: int

    @property
    def steps(self) -> int:
        return (1 + self.blocks) * self.steps_per_block + 1


@dataclass(frozen=True)
class DataWait:
    """What one run waited; every figure but the first over its blocks."""

    data: str
    cache: str  # "cold", "warm" or "emptied" when the data set was opened
    opening_seconds: float  # of a folder that is new, every video is decoded into the cache
    step_seconds: Spread  # from one request for a batch to the next
    logged_percent: Spread  # 05_Performance/Data_Wait_Percent
    clocked_percent: Spread  # the same by a clock of this benchmark's own
    longest_wait_seconds: float


@dataclass
class _Clock:
    opening_seconds: float = 0.0
    requested: list[float] = field(default_factory=list)  # when each batch was asked for
    received: list[float] = field(default_factory=list)

    def timed_data(self, config: Config) -> DataSplits:
        start = time.perf_counter()
        splits = build_data(config)
        self.opening_seconds = time.perf_counter() - start
        return splits

    def timed_batches(self, *arguments: Any, **named: Any) -> Generator[Batch, None, None]:
        batches = training_batches(*arguments, **named)
        try:
            while True:
                self.requested.append(time.perf_counter())
                batch = next(batches)
                self.received.append(time.perf_counter())
                yield batch
        finally:
            batches.close()


def measure_data_wait(
    data: str, cache: str, plan: RunPlan, folder: Path, options: Sequence[str], *, cache_folder: Path
) -> DataWait:
    """Train with main.py's options and time what every step waits for its batch.

    Args:
        data: name of the data set, for the result.
        cache: whether `cache_folder` holds its clips before the data set is opened, for the result.
        plan: the steps.
        folder: an empty folder for the run.
        options: main.py's, among them those that choose the data.
        cache_folder: CACHE_DIR of the run.

    Raises:
        UserError: an option cannot work, or a signal ended the run.
    """
    arguments = [
        *options,
        f"--max-steps={plan.steps}",
        "--max-minutes=none",
        "--num-epochs=none",
        f"--log-dir={folder}",
        f"--cache-dir={cache_folder}",
        "--experiment-name=run",
        *(f"--{name}-every-steps={NEVER}" for name in ("diagnostic-log", "tensorboard-flush", "validate", "save")),
        f"--sample-every-steps={NEVER}",
        f"--log-every-epochs={NEVER}",
        f"--log-every-steps={plan.steps_per_block}",
        "--no-enable-video-logging",  # the last step would make videos, which takes long and is not measured
        "--no-enable-noise-visualization",
        "--enable-performance-profiling",
    ]
    clock = _Clock()
    with (
        patch.object(training.build, "build_data", clock.timed_data),
        patch.object(training.build, "training_batches", clock.timed_batches),
        redirect_stdout(sys.stderr),  # what a run says is progress here
    ):
        train_whole(arguments)
    return _summary(data, cache, plan, clock, _logged_points(folder / "run"))


def _summary(data: str, cache: str, plan: RunPlan, clock: _Clock, logged: Sequence[float]) -> DataWait:
    """Leave out the block that warms up and the last step."""
    # A batch is asked for when the step before is done, its logging included.
    waits = [received - asked for asked, received in zip(clock.requested, clock.received, strict=True)]
    steps = [after - before for before, after in zip(clock.requested, clock.requested[1:], strict=False)]
    blocks = [
        slice(start, start + plan.steps_per_block)
        for start in range(plan.steps_per_block, plan.steps - 1, plan.steps_per_block)
    ]
    return DataWait(
        data=data,
        cache=cache,
        opening_seconds=clock.opening_seconds,
        step_seconds=spread_of([sum(steps[block]) / plan.steps_per_block for block in blocks]),
        logged_percent=spread_of(logged[1 : 1 + plan.blocks]),
        clocked_percent=spread_of([100 * sum(waits[block]) / sum(steps[block]) for block in blocks]),
        longest_wait_seconds=max(max(waits[block]) for block in blocks),
    )


def _logged_points(run_folder: Path) -> list[float]:
    """Return the points of Data_Wait_Percent in order: one a block, and one of the last step."""
    lines = (run_folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [float(point["value"]) for point in map(json.loads, lines) if point["tag"] == WAIT_TAG]
