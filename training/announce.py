"""What a run prints: its announcements before it starts, and the progress bar while it trains."""

import math
import os
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from checkpoints.checkpoint import Checkpoint
from checkpoints.run_folder import RunFolder
from common.console import command, counted
from common.settings import LoadedSettings
from compute.device import ComputeDevice, Place
from compute.memory import SMALLER_BATCH, SMALLER_CLIP, device_name
from config import Config
from data.records import DataSplits
from distributed.processes import Processes
from logging_system.dashboard_server import FIRST_PORT
from training.estimate import TrainingEstimate
from training.learner import Learner
from training.stopping import StoppingLimits

LINE_SECONDS = 30.0  # between two lines of progress where there is no terminal
FIRST_LINE_SECONDS = 10.0  # between the line of the first step and that which knows how fast the run is


def announce(
    loaded: LoadedSettings[Config],
    learner: Learner,
    splits: DataSplits,
    folder: RunFolder,
    differences: Sequence[str],
    checkpoint: Checkpoint | None,
) -> None:
    """Print where the run lives, what it trains on, what a preset or a resume changed, and how to watch it.

    `differences` from the checkpoint that the run resumes from are a sentence each.
    """
    config, compute, processes = learner.config, learner.compute, learner.processes
    print(f"Run: {folder.path}")
    if checkpoint is not None:
        print(f"Going on from step {checkpoint.state.step}: {checkpoint.folder}")
    for line in splits.summary.lines():
        print(f"Data: {line}")
    print(f"Device: {compute.device.type}, {compute.precision}")
    if processes.are_several:
        count = processes.part.world_size
        frames = config.frames_per_step
        share = "each has a part of the model" if config.PARALLELISM == "fsdp" else "each has the whole model"
        print(f"Processes: {count}, {share}; a step takes up to {count} * {frames} = {count * frames} frames.")
    if compute.device.type != "cpu" and not loaded.preset_asked_for:
        print("This machine has a GPU: --preset speedrun (10 minutes) or base (an hour) trains a model meant for one.")
    for name, (old, new) in loaded.preset_changes.items():
        print(f"Preset {loaded.preset}: {name} = {new!r} (config.py says {old!r})")
    for difference in differences:
        print(f"Differs from the checkpoint: {difference}")
    if config.ENABLE_VIDEO_LOGGING or config.ENABLE_NOISE_VISUALIZATION:
        print(f"Sample videos are made every {counted(config.SAMPLE_EVERY_STEPS, 'step')} and at the end.")
    print("The curves of 03_Epoch_Summary get their first point when the first epoch, or the run, ends.")
    _announce_dashboard(config.LOG_DIR, knows_held_out_words=splits.validation_of_trained is None)
    if learner.limits.plan is not None:
        print(f"Plan of the checkpoint: {learner.limits.plan}.")
    _announce_estimate(
        learner.estimate,
        compute,
        steps=learner.steps_left,
        max_minutes=config.MAX_MINUTES,
        is_compiled=config.COMPILE_MODEL,
    )


def _announce_dashboard(log_dir: Path, *, knows_held_out_words: bool) -> None:
    """Print how to watch the run, and which figure says whether it reads its text (see docs/dashboard.md)."""
    figure = "Text_Gap_Shuffled" if knows_held_out_words else "Trained_Text_Gap_Shuffled"
    print(f"Watch it: {command('python', 'launch_tensorboard.py', '--logdir', log_dir)}")
    print(
        f"It serves http://localhost:{FIRST_PORT}, or the next free port. Look first at "
        f"02_Loss_Components/Validation/{figure}: while it is 0, the model ignores its text.",
        flush=True,
    )


def _announce_estimate(
    estimate: TrainingEstimate,
    compute: ComputeDevice,
    *,
    steps: int | None,
    max_minutes: float | None,
    is_compiled: bool,
) -> None:
    """Print what the run will take, and warn if memory or time will not suffice. None stands for no limit."""
    on_cpu = compute.device.type == "cpu"
    most = "at most " if is_compiled or (estimate.clips_measured == 1 and not on_cpu) else ""
    measured = "one clip" if estimate.clips_measured == 1 else f"a batch of {estimate.clips_measured}"
    each = f" for each of the {estimate.processes_here} processes here" if estimate.processes_here > 1 else ""
    all_steps = "" if steps is None else f" ({counted(steps, 'step')}: {_duration(steps * estimate.step_seconds)})"
    print(
        f"Estimate: {estimate.parameters / 1e6:.3g} M parameters, {_flops(estimate.step_flops)} a step; "
        f"{most}about {_duration(estimate.step_seconds)} a step on this "
        f"{device_name(compute.device)}{all_steps}, {'about' if on_cpu else 'at least'} "
        f"{_gibibytes(estimate.memory_bytes)} of memory{each}. Training alone: validation, samples and checkpoints "
        f"come on top. Measured on {measured} in {_duration(estimate.measuring_seconds)}.",
        flush=True,
    )
    if not estimate.batch_fits:
        print(
            f"Warning: a batch forward and back did not fit into the memory of this {device_name(compute.device)}; set "
            f"ACTIVATION_CHECKPOINTING, or lower {SMALLER_BATCH}, {SMALLER_CLIP}.",
            flush=True,
        )
    elif estimate.memory_bytes > estimate.memory_limit:
        who = "each of them" if estimate.processes_here > 1 else "this run"
        print(
            f"Warning: that is more than the {_gibibytes(estimate.memory_limit)} that {who} can have; lower "
            f"{SMALLER_BATCH}, {SMALLER_CLIP}.",
            flush=True,
        )
    if max_minutes is not None and (steps is None or steps * estimate.step_seconds > 60 * max_minutes):
        count = counted(int(60 * max_minutes / estimate.step_seconds), "step")
        print(
            f"MAX_MINUTES ({max_minutes:g}) leaves time for {'' if most else 'at most '}about {count}; "
            "--max-minutes none lifts it.",
            flush=True,
        )
    if is_compiled:
        print("The first step compiles the network (COMPILE_MODEL), which takes minutes.", flush=True)


def _flops(count: int) -> str:
    return f"{count / 1e12:.3g} TFLOP" if count >= 1e12 else f"{count / 1e9:.3g} GFLOP"


def _gibibytes(count: int) -> str:
    return f"{count / 2**30:.2g} GiB" if count < 10 * 2**30 else f"{count / 2**30:.0f} GiB"


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}" if seconds < 10 * length else f"{seconds / length:.0f} {unit}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"


def announce_place(place: Place, processes: Processes) -> None:
    """Print on the other machines which one prints the run's messages. Call on all processes."""
    host = processes.from_main(socket.gethostname())
    if place.rank > 0 and place.local_rank == 0:
        last = place.rank + place.processes_here - 1
        ranks = f"ranks {place.rank} to {last}" if last > place.rank else f"rank {last}"
        print(f"This machine has {ranks} of {place.world_size}; the run speaks on {host}.", file=sys.stderr)


class ProgressBar:
    """How far the run is, with loss, learning rate and remaining time: a bar in a terminal, elsewhere lines."""

    def __init__(self, start_step: int, limits: StoppingLimits, *, is_shown: bool) -> None:
        self._step, self._first_step, self._limits = start_step, start_step + 1, limits
        self._launched = self._started = self._next_line = time.monotonic()
        has_bar = sys.stderr.isatty() and os.get_terminal_size(sys.stderr.fileno()).columns > 0  # some have no width
        self._has_lines = is_shown and not (sys.stdout.isatty() and has_bar)
        self._bar = tqdm(
            total=limits.total_steps,
            initial=start_step,
            unit="step",
            mininterval=0.5,
            dynamic_ncols=True,
            smoothing=0.05,
            disable=None if is_shown and has_bar else True,
        )

    def advance(self) -> None:
        """Count one step."""
        self._step += 1
        if self._step == self._first_step:  # it takes longer than others, so the pace is that of those after it
            self._started = time.monotonic()
        self._bar.total = self._limits.total_steps  # which may have been planned just now
        self._bar.update()

    @property
    def line_is_due(self) -> bool:
        """Whether `show` would print a line: where there is no terminal, if it printed none for a while."""
        return self._has_lines and time.monotonic() >= self._next_line

    def show(self, loss: float, learning_rate: float, *, is_ending: bool) -> None:
        """Show figures of the step that was counted last: after the bar at its next redraw, and in a line if due."""
        self._bar.set_postfix({"loss": f"{loss:.4f}", "learning rate": f"{learning_rate:.2e}"}, refresh=False)
        if not self.line_is_due and not (is_ending and self._has_lines):
            return
        now, total, minutes = time.monotonic(), self._limits.total_steps, self._limits.max_minutes
        line = f"Step {self._step}{'' if total is None else f' of {total}'}: loss {loss:.4f}"
        line += f", learning rate {learning_rate:.2e}"
        if self._step > self._first_step:
            pace = (now - self._started) / (self._step - self._first_step)
            left = min(
                math.inf if total is None else (total - self._step) * pace,
                math.inf if minutes is None else max(0.0, self._launched + 60 * minutes - now),
            )
            line += f", {_duration(pace)} a step"
            line += "" if is_ending or left == math.inf else f", about {_duration(left)} left"
        self.write(line)
        self._next_line = now + (FIRST_LINE_SECONDS if self._step == self._first_step else LINE_SECONDS)

    def write(self, line: str) -> None:
        """Print a line above the bar."""
        self._bar.write(line, file=sys.stdout)
        sys.stdout.flush()

    def close(self) -> None:
        """Draw the last state and leave it on the screen."""
        self._bar.refresh()
        self._bar.close()
