"""A real training run whose steps are logged in every other block, to see what logging adds to a step."""

import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest.mock import patch

import torch

import training.dashboard
from benchmarks.spread import Spread, ratio_of, spread_of
from benchmarks.whole_run import train_whole
from common.errors import UserError
from common.settings import load_settings
from config import PRESETS, Config
from logging_system.cadence import LoggingSettings
from logging_system.dispatcher import Dispatcher
from logging_system.files.writer import Writer
from logging_system.records import StepRecord
from logging_system.registry import CATEGORIES
from logging_system.statistics.devices import device_readings
from logging_system.statistics.system_sampler import HostReadings
from logging_system.view import TrainingView

WARM_UP_STEPS = 10
NEVER = 10**9
SYSTEM_READINGS = 9
SWITCHES = tuple(name for name in Config.model_fields if name.startswith("ENABLE_"))
LIVE_TAG = "05_Performance/Logging_Overhead_Percent"


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

    by_block: dict[int, list[float]] = field(default_factory=dict)  # whole steps, but for the last of each block
    processor_by_block: dict[int, list[float]] = field(default_factory=dict)  # of the process, all its threads
    observing: list[float] = field(default_factory=list)  # what logging takes in a step that writes nothing
    points: list[float] = field(default_factory=list)  # in a step that writes scalars
    diagnostics: list[float] = field(default_factory=list)  # in a step with diagnostics, flush left out
    flushes: list[float] = field(default_factory=list)


class AlternatingDispatcher(Dispatcher):
    """Passes on the steps of every other block; the last step of such a block brings diagnostics and a flush.

    In the other blocks a step costs one comparison: no category, no writer.
    """

    def set_plan(self, plan: BlockPlan, log_every_steps: int) -> None:
        """Say which steps are logged. Call before the first step."""
        self.times = StepTimes()
        self._plan = plan
        self._log_every_steps = log_every_steps
        self._before_seconds = self._flush_seconds = 0.0
        self._step_started = self._processor_started = 0.0

    def before_step(self, step: int, view: TrainingView, *, is_first: bool, is_last: bool) -> None:
        if self._plan.is_logged(step):
            start = time.perf_counter()
            wants_diagnostics = is_first or self._plan.ends_block(step)
            super().before_step(step, view, is_first=wants_diagnostics, is_last=is_last)
            self._before_seconds = time.perf_counter() - start

    def on_step(self, record: StepRecord, view: TrainingView) -> None:
        if self._plan.is_logged(record.step):
            self._flush_seconds = 0.0
            ends_block = self._plan.ends_block(record.step)
            start = time.perf_counter()
            super().on_step(replace(record, is_first=record.is_first or ends_block), view)
            self._note(record.step, time.perf_counter() - start)
        now, processor_now, block = time.perf_counter(), time.process_time(), self._plan.block(record.step)
        if block is not None and not self._plan.ends_block(record.step):
            self.times.by_block.setdefault(block, []).append(now - self._step_started)
            self.times.processor_by_block.setdefault(block, []).append(processor_now - self._processor_started)
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
    """What logging costs in a run of the default preset; seconds, but for the ratio and the percentages."""

    step_without: Spread
    step_with: Spread  # scalar points included, diagnostics and flush left out
    ratio: Spread  # of a block with logging and the block without before it
    processor_ratio: Spread  # the same for processor time, which other programs on the machine disturb less
    observing: Spread
    point: Spread
    diagnostics: Spread
    flush: Spread
    system_reading: Spread
    amortised_percent: dict[str, float]  # of a step without logging, at the cadences of config.py
    videos_seconds: float  # one round, on the training thread
    videos_percent: float  # the same at the cadence of config.py
    percent_of_this_run: float  # logging as a share of logging and training in the logged blocks, diagnostics in each
    live_percent: float  # Logging_Overhead_Percent at this run's end; it counts the start and the first steps too


def measure_overhead(plan: BlockPlan, folder: Path, options: Sequence[str]) -> Overhead:
    """Train in `folder` with main.py's options and measure. The networks, data and optimizer are those of a run.

    Raises:
        UserError: an option cannot work, a switch turns a part of logging off, or a signal ended the run.
    """
    config = load_settings(Config, PRESETS, list(options), program="main.py").config
    for name in SWITCHES:
        if not config.model_dump()[name]:
            raise UserError(f"{name} is False, but what full logging costs is to be measured: leave it on")
    arguments = [
        *options,
        f"--max-steps={plan.steps}",
        "--max-minutes=none",
        f"--log-dir={folder / 'logs'}",
        f"--cache-dir={folder / 'cache'}",
        "--experiment-name=run",
        *(f"--{name}-every-steps={NEVER}" for name in ("diagnostic-log", "tensorboard-flush", "validate", "save")),
        f"--sample-every-steps={NEVER}",
    ]
    made: list[AlternatingDispatcher] = []

    def build_dispatcher(*, run_folder: Path, settings: LoggingSettings, start_step: int) -> Dispatcher:
        writer = Writer(run_folder, first_new_step=start_step)
        dispatcher = AlternatingDispatcher(CATEGORIES, settings=settings, run_folder=run_folder, writer=writer)
        dispatcher.set_plan(plan, config.LOG_EVERY_STEPS)
        made.append(dispatcher)
        return dispatcher

    with patch.object(training.dashboard, "build_dispatcher", build_dispatcher):
        train_whole(arguments)
    return _overhead(made[0].times, config, folder / "logs" / "run")


def _overhead(times: StepTimes, config: Config, run_folder: Path) -> Overhead:
    without, with_logging = _block_means(times.by_block)
    processor_without, processor_with = _block_means(times.processor_by_block)
    observing = spread_of(times.observing)
    point, diagnostics = ([value - observing.median for value in kind] for kind in (times.points, times.diagnostics))
    readings = _time_system_readings(run_folder)
    step = spread_of(without)
    shares = {
        "every step": observing.median / step.median,
        "scalar points": spread_of(point).median / config.LOG_EVERY_STEPS / step.median,
        "diagnostics": spread_of(diagnostics).median / config.DIAGNOSTIC_LOG_EVERY_STEPS / step.median,
        "flushes": spread_of(times.flushes).median / config.TENSORBOARD_FLUSH_EVERY_STEPS / step.median,
        "system readings": spread_of(readings).median / config.SYSTEM_SAMPLE_SECONDS,
    }
    live = _last_points(run_folder)
    logging_seconds = sum(map(sum, (times.observing, times.points, times.diagnostics, times.flushes)))
    logged_steps = sum(map(len, (times.observing, times.points, times.diagnostics)))
    videos = live["05_Performance/Sampling_Seconds"]
    return Overhead(
        step_without=step,
        step_with=spread_of(with_logging),
        ratio=ratio_of(with_logging, without),
        processor_ratio=ratio_of(processor_with, processor_without),
        observing=observing,
        point=spread_of(point),
        diagnostics=spread_of(diagnostics),
        flush=spread_of(times.flushes),
        system_reading=spread_of(readings),
        amortised_percent={name: 100 * share for name, share in shares.items()},
        videos_seconds=videos,
        videos_percent=100 * videos / config.SAMPLE_EVERY_STEPS / step.median,
        percent_of_this_run=100 * logging_seconds / (logging_seconds + logged_steps * step.median),
        live_percent=live[LIVE_TAG],
    )


def _block_means(by_block: dict[int, list[float]]) -> tuple[list[float], list[float]]:
    """Return the mean step of each block without logging, then of each with it."""
    means = [statistics.fmean(by_block[number]) for number in sorted(by_block)]
    return means[0::2], means[1::2]


def _time_system_readings(run_folder: Path) -> list[float]:
    """Time what the thread of 14_System does. It runs beside training in both kinds of blocks."""
    readings, seconds = HostReadings(run_folder, device_readings(torch.device("cpu"))), []
    for _ in range(SYSTEM_READINGS):
        start = time.perf_counter()
        readings.read()
        seconds.append(time.perf_counter() - start)
    return seconds


def _last_points(run_folder: Path) -> dict[str, float]:
    """Return the last value of every scalar of a run."""
    lines = (run_folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return {point["tag"]: float(point["value"]) for point in map(json.loads, lines)}
