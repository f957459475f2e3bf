"""What logging costs: python -m benchmarks.logging_overhead

Trains the default preset in one process, with full logging and without in alternate blocks of steps, and times the
parts of logging. Freed memory is kept as in a run of main.py. Further options are passed on to the run, as main.py's.
"""

import argparse
import dataclasses
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch

import training.build
from benchmarks import runner
from common.errors import UserError
from common.settings import load_settings
from compute.memory import keep_freed_memory
from config import PRESETS, Config
from logging_system.cadence import SECONDS_UNTIL_SEEN
from logging_system.categories import CATEGORIES
from logging_system.dispatcher import Dispatcher, WeightCopies
from logging_system.files.writer import Writer
from logging_system.records import StepRecord, TrainingView
from logging_system.statistics.system import HostReadings, device_readings
from main import main as train

WARM_UP_STEPS = 10
SYSTEM_READINGS = 9
SWITCHES = tuple(name for name in Config.model_fields if name.startswith("ENABLE_"))
LIVE_TAG = "05_Performance/Logging_Overhead_Percent"
VIDEOS_TAG = "05_Performance/Sampling_Seconds"


@dataclass(frozen=True)
class BlockPlan:
    """First steps to warm up, then blocks without and with logging in turn, then one step that ends the run."""

    steps_per_block: int
    alternations: int

    @property
    def steps(self) -> int:
        return WARM_UP_STEPS + 2 * self.alternations * self.steps_per_block + 1

    def block(self, step: int) -> int | None:
        """Return the number of a step's block, even without logging; None before and after the blocks."""
        if WARM_UP_STEPS < step < self.steps:
            return (step - WARM_UP_STEPS - 1) // self.steps_per_block
        return None

    def is_logged(self, step: int) -> bool:
        block = self.block(step)
        return block is None or block % 2 == 1

    def ends_block(self, step: int) -> bool:
        return self.block(step) is not None and self.block(step) != self.block(step + 1)


@dataclass
class StepTimes:
    """Seconds on the training thread."""

    # Of complete steps, but for the last of each block; the second of all threads of the process.
    by_block: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    processor_by_block: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    observing: list[float] = field(default_factory=list)  # what logging takes in a step that writes nothing
    points: list[float] = field(default_factory=list)  # in a step that writes scalars
    diagnostics: list[float] = field(default_factory=list)  # in a step with diagnostics, flush left out
    flushes: list[float] = field(default_factory=list)


class AlternatingDispatcher(Dispatcher):
    """Passes on the steps of every other block; the last step of such a block brings diagnostics and a flush."""

    def set_plan(self, plan: BlockPlan, log_every_steps: int) -> None:
        """Say which steps are logged. Call before the first step."""
        self.times = StepTimes()
        self._plan = plan
        self._log_every_steps = log_every_steps
        self._before_seconds = self._flush_seconds = 0.0
        self._step_started = self._processor_started = 0.0

    def before_step(self, step: int, *, is_first: bool, is_last: bool) -> None:
        if self._plan.is_logged(step):
            start = time.perf_counter()
            wants_diagnostics = is_first or self._plan.ends_block(step)
            super().before_step(step, is_first=wants_diagnostics, is_last=is_last)
            self._before_seconds = time.perf_counter() - start

    def on_step(self, record: StepRecord) -> None:
        if self._plan.is_logged(record.step):
            self._flush_seconds = 0.0
            ends_block = self._plan.ends_block(record.step)
            start = time.perf_counter()
            super().on_step(replace(record, is_first=record.is_first or ends_block))
            self._note(record.step, time.perf_counter() - start)
        now, processor_now, block = time.perf_counter(), time.process_time(), self._plan.block(record.step)
        if block is not None and not self._plan.ends_block(record.step):
            self.times.by_block[block].append(now - self._step_started)
            self.times.processor_by_block[block].append(processor_now - self._processor_started)
        self._step_started, self._processor_started = now, processor_now

    def flush(self) -> None:
        start = time.perf_counter()
        super().flush()
        self._flush_seconds += time.perf_counter() - start

    def _note(self, step: int, seconds: float) -> None:
        if self._plan.block(step) is None:
            return
        if self._plan.ends_block(step):
            self.times.diagnostics.append(seconds + self._before_seconds - self._flush_seconds)
            self.times.flushes.append(self._flush_seconds)
        elif step % self._log_every_steps == 0:
            self.times.points.append(seconds)
        else:
            self.times.observing.append(seconds)


@dataclass(frozen=True)
class Overhead:
    """What logging costs in a run of the default preset."""

    seconds: dict[str, runner.Spread]  # by what took them
    ratios: dict[str, runner.Spread]  # of a block with logging and the block without before it
    amortised_percent: dict[str, float]  # of a step without logging, at the cadences of config.py
    videos_seconds: float  # one round, on the training thread
    videos_percent: float  # the same at the cadence of config.py
    live_percent: float  # Logging_Overhead_Percent at this run's end; it counts the start and the first steps too


def main(arguments: Sequence[str]) -> int:
    """Measure and print; return the exit code."""
    parser = runner.build_parser("logging_overhead", __doc__, alternations=6)
    parser.add_argument("--steps-per-block", type=partial(runner.at_least, 3), metavar="N", default=20)
    options, training_options = parser.parse_known_args(arguments)
    keep_freed_memory()
    return runner.run_command(lambda: _run(options, training_options))


def _run(options: argparse.Namespace, training_options: Sequence[str]) -> int:
    plan = BlockPlan(options.steps_per_block, options.alternations)
    with tempfile.TemporaryDirectory() as folder:
        overhead = measure_overhead(plan, Path(folder), training_options)
    figures = {"overhead": dataclasses.asdict(overhead)}
    runner.publish(runner.machine_line(), report(overhead, plan), figures, options.json)
    return 0


def measure_overhead(plan: BlockPlan, folder: Path, options: Sequence[str]) -> Overhead:
    """Train in `folder` with main.py's options and measure.

    Raises:
        UserError: an option cannot work, a switch turns a part of logging off, or a signal ended the run.
    """
    config = load_settings(Config, PRESETS, list(options), program="main.py").config
    for name in SWITCHES:
        if not config.model_dump()[name]:
            raise UserError(f"{name} is False, but what full logging costs is to be measured: leave it on")
    never = ("diagnostic-log", "tensorboard-flush", "validate", "save", "sample")
    arguments = [
        *options,
        *(f"--max-steps={plan.steps}", "--max-minutes=none", "--experiment-name=run"),
        *(f"--log-dir={folder / 'logs'}", f"--cache-dir={folder / 'cache'}"),
        *(f"--{name}-every-steps={10**9}" for name in never),
    ]
    made: list[AlternatingDispatcher] = []

    def build_dispatcher(
        run_config: Config, run_folder: Path, view: TrainingView, start_step: int, copies: WeightCopies | None
    ) -> Dispatcher:
        writer = Writer(run_folder, first_new_step=start_step)
        dispatcher = AlternatingDispatcher(
            CATEGORIES, config=run_config, run_folder=run_folder, view=view, writer=writer, copies=copies
        )
        dispatcher.set_plan(plan, config.LOG_EVERY_STEPS)
        made.append(dispatcher)
        return dispatcher

    replaced = patch.object(training.build, "build_dispatcher", build_dispatcher)
    with replaced, redirect_stdout(sys.stderr):  # what a run says is progress here
        if train(arguments) != 0:
            raise UserError("the training came to no end")
    return _overhead(made[0].times, config, folder / "logs" / "run")


def _overhead(times: StepTimes, config: Config, run_folder: Path) -> Overhead:
    without, with_logging = _block_means(times.by_block)
    processor_without, processor_with = _block_means(times.processor_by_block)
    step, observing, flush = map(runner.spread_of, (without, times.observing, times.flushes))
    point = runner.spread_of([value - observing.median for value in times.points])
    diagnostics = runner.spread_of([value - observing.median for value in times.diagnostics])
    # What the thread of 14_System does: it runs beside training in both kinds of blocks.
    readings = HostReadings(run_folder, device_readings(torch.device("cpu")))
    system_reading = runner.spread_of([runner.seconds_of(readings.read) for _ in range(SYSTEM_READINGS)])
    shares = {
        "every step": observing.median / step.median,
        "scalar points": point.median / config.LOG_EVERY_STEPS / step.median,
        "diagnostics": diagnostics.median / config.DIAGNOSTIC_LOG_EVERY_STEPS / step.median,
        "flushes": flush.median / min(config.TENSORBOARD_FLUSH_EVERY_STEPS * step.median, SECONDS_UNTIL_SEEN),
        "system readings": system_reading.median / config.SYSTEM_SAMPLE_SECONDS,
    }
    logged = runner.points_of(run_folder)
    videos_seconds = logged[VIDEOS_TAG][-1]
    return Overhead(
        seconds={
            "a step without logging": step,
            "a step with logging, diagnostics and flushes left out": runner.spread_of(with_logging),
            "what logging does in every step": observing,
            "more in a step with scalar points": point,
            "more in a step with diagnostics": diagnostics,
            "a flush": flush,
            "a reading of the system (own thread)": system_reading,
        },
        ratios={
            "step with / without, by pair of blocks": runner.ratio_of(with_logging, without),
            "the same in processor time": runner.ratio_of(processor_with, processor_without),
        },
        amortised_percent={name: 100 * share for name, share in shares.items()},
        videos_seconds=videos_seconds,
        videos_percent=100 * videos_seconds / config.SAMPLE_EVERY_STEPS / step.median,
        live_percent=logged[LIVE_TAG][-1],
    )


def _block_means(by_block: dict[int, list[float]]) -> tuple[list[float], list[float]]:
    """Return the mean step of each block without logging, then of each with it."""
    means = [statistics.fmean(by_block[number]) for number in sorted(by_block)]
    return means[0::2], means[1::2]


def report(overhead: Overhead, plan: BlockPlan) -> list[str]:
    """Return the figures as a table."""
    parts = ", ".join(f"{name} {percent:.3f}" for name, percent in overhead.amortised_percent.items())
    total = f"{sum(overhead.amortised_percent.values()):.3f} % of a step without logging ({parts})"
    videos = f"{overhead.videos_seconds:.2f} s, {overhead.videos_percent:.1f} % at config.py's cadence"
    rows = [
        *([name, spread.text(2, "ms", 1000)] for name, spread in overhead.seconds.items()),
        *([name, ratio.text(4)] for name, ratio in overhead.ratios.items()),
        ["amortised at config.py's cadences, videos apart", total],
        ["this run's own Logging_Overhead_Percent, start included", f"{overhead.live_percent:.2f} %"],
        ["a round of videos, their encoding on a thread beside training left out", videos],
    ]
    blocks = f"{plan.alternations} pairs of blocks of {plan.steps_per_block} steps; median (smallest to largest)."
    return [f"{blocks} {runner.MEMORY_NOTE}", "", *runner.table(["measured", "figure"], rows)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
