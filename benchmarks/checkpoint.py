"""What a checkpoint costs, compared with a plain torch.save: python -m benchmarks.checkpoint [--preset base]

Saves the same state again and again: with torch.save into one file, with and without fsync; and as the trainer does,
with everything forced to the disk, while training waits and in the background. What counts is how long training stands
still. The steps that go on meanwhile are measured too.
"""

import argparse
import dataclasses
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks import runner
from benchmarks.step_worker import build_training
from checkpoints.checkpoint import Retention, RunState, TrainingState
from checkpoints.saver import CheckpointSaver
from common.console import program
from common.errors import UserError
from common.settings import config_as_json, load_settings
from compute.memory import keep_freed_memory
from config import PRESETS, Config
from distributed.processes import Processes
from logging_system.records import CheckpointRecord
from training.learner import Learner
from training.optimizer import optimizer_tensors

STEPS_BESIDE = 8  # training steps timed with and without a save beside them
PLAIN, SYNCED = "torch.save, one file", "torch.save, one file, fsync"
WAITING, BESIDE, STEPS = "here, training waits", "here, in the background", "training steps alone"


@dataclass(frozen=True)
class Saved:
    """Seconds of one save, or of training steps alone."""

    stall: float = 0.0  # that training stands still
    durable: float = 0.0  # until all is on the disk
    steps: float = 0.0  # of STEPS_BESIDE training steps


@program
def main(arguments: Sequence[str]) -> int:
    """Measure and print; return the exit code."""
    parser = runner.build_parser("checkpoint", __doc__)
    parser.add_argument("--preset", default="tiny", choices=list(PRESETS))
    parser.add_argument("--repeats", type=runner.at_least_one, default=9, help="rounds that count (default 9)")
    parser.add_argument("--no-steps", dest="steps", action="store_false", help="leave out the steps (large presets)")
    options = parser.parse_args(arguments)
    keep_freed_memory()  # as main.py does
    return _run(options)


def _run(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
        about, saves = measure(options.preset, Path(folder), options.repeats, with_steps=options.steps)
    figures = {way: [dataclasses.asdict(each) for each in found] for way, found in saves.items()}
    runner.publish(runner.machine_line(), [about, "", *report(saves)], {"saves": figures}, options.json)
    return 0


def measure(preset: str, folder: Path, repeats: int, *, with_steps: bool) -> tuple[str, dict[str, list[Saved]]]:
    """Save the preset's network in every way in turn, `repeats` times after a first round that does not count.

    Returns:
        What was saved, for people, and the seconds of every way.
    """
    arguments = [f"--preset={preset}", f"--cache-dir={folder / 'cache'}"]
    config = load_settings(Config, PRESETS, arguments, program="benchmark").config
    learner, batch, _ = build_training(config, Processes(), Processes())
    for parameter in learner.model.parameters():  # so that the optimizer has its moments
        parameter.grad = torch.zeros_like(parameter)
    learner.optimizer.step()
    savers = {way: _saver(learner, config, folder / way, way == BESIDE) for way in (WAITING, BESIDE)}
    sizes: list[int] = []

    def train() -> None:
        for number in range(1, STEPS_BESIDE + 1):
            learner.step.run(number, batch)
        learner.compute.wait()

    def save(way: str, number: int) -> Saved:
        os.sync()  # each way begins with nothing left to write, or it would wait for what the one before has left
        if way in (PLAIN, SYNCED):
            seconds = _torch_save(learner, folder / "plain.pt", sync=way == SYNCED)
            return Saved(seconds, seconds)
        if way == STEPS:
            return Saved(steps=runner.seconds_of(train))
        progress = RunState(number + 1, 0, 0)
        steps = 0.0
        if way == BESIDE:
            savers[way].save(progress, wait=False)
            steps = runner.seconds_of(train) if with_steps else 0.0
        savers[way].save(progress, wait=True)  # of this step, which may have been begun
        (outcome,) = savers[way].collect()
        if not isinstance(outcome, CheckpointRecord):
            raise UserError(f"a checkpoint could not be written: {outcome.error}")
        sizes.append(outcome.size_bytes)
        return Saved(outcome.stall_seconds, outcome.write_seconds, steps)

    ways = [PLAIN, SYNCED, WAITING, *([STEPS] if with_steps else []), BESIDE]
    rounds = runner.alternate(ways, 1 + repeats, save).complete()
    parameters = sum(parameter.numel() for parameter in learner.model.parameters())
    about = f"Preset {preset}: {parameters / 1e6:.3g} M parameters, {sizes[0] / 1e6:.0f} MB a checkpoint; median "
    return about + "(smallest to largest).", {way: found[1:] for way, found in rounds.items()}


def _torch_save(learner: Learner, path: Path, *, sync: bool) -> float:
    def save() -> None:
        weights = {"model": learner.model.state_dict(), "ema": learner.ema.model.state_dict()}
        with path.open("wb") as file:
            torch.save({**weights, "optimizer": learner.optimizer.state_dict()}, file)
            if sync:
                file.flush()
                os.fsync(file.fileno())

    return runner.seconds_of(save)


def _saver(learner: Learner, config: Config, checkpoints: Path, in_background: bool) -> CheckpointSaver:
    checkpoints.mkdir()
    saved = config_as_json(config)

    def describe(progress: RunState) -> TrainingState:
        facts = dataclasses.asdict(progress)
        return TrainingState(**facts, config=saved, config_file=saved, symbols=(), schedule=learner.schedule.state())

    return CheckpointSaver(
        checkpoints=checkpoints,
        describe=describe,
        tensors=lambda: {
            "model": learner.model.state_dict(),
            "ema": learner.ema.model.state_dict(),
            "optimizer": optimizer_tensors(learner.optimizer, learner.model),
        },
        retention=Retention(1),
        in_background=in_background,
        saved_step=0,
        processes=Processes(),
    )


def report(saves: Mapping[str, Sequence[Saved]]) -> list[str]:
    """Return the figures as Markdown."""
    plain = [each.stall for each in saves[PLAIN]]
    rows = []
    for way in (PLAIN, SYNCED, WAITING, BESIDE):
        stalls = [each.stall for each in saves[way]]
        durable = runner.spread_of([each.durable for each in saves[way]]).text(2)
        rows.append([way, runner.spread_of(stalls).text(3), runner.ratio_of(stalls, plain).text(2), durable])
    rows[0][-1] = "not forced to the disk"
    lines = runner.table(["", "training stands still, s", "times torch.save", "durable after, s"], rows)
    if STEPS in saves:
        alone, beside = (runner.spread_of([each.steps for each in saves[way]]) for way in (STEPS, BESIDE))
        more = beside.median - alone.median
        lines.append(
            f"{STEPS_BESIDE} training steps: {alone.text(2, 's')}; with a save beside them {beside.text(2, 's')}: "
            f"{more:.2f} s more, beside the stall."
        )
    return lines


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
