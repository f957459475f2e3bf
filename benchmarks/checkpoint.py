"""What a checkpoint costs beside a plain torch.save: python -m benchmarks.checkpoint [--preset base]

Saves the same state again and again: torch.save of one file, as most trainers do it; the same with fsync; and this
trainer's folder of safetensors with hashes, everything forced to the disk, with training waiting for it and beside
training. What counts is how long training stands still. The steps that go on meanwhile are measured too: the writing
takes processor time from them.
"""

import argparse
import dataclasses
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.machine import machine_line
from benchmarks.output import INTERRUPTED, save_figures, say
from benchmarks.spread import Spread, spread_of
from checkpoints.checkpoint import Retention, RunState, TrainingState
from checkpoints.saver import CheckpointSaver
from common.errors import UserError
from common.settings import config_as_json, load_settings
from compute.device import choose_device
from compute.memory import keep_freed_memory
from config import PRESETS, Config
from data.batches import load_batch
from data.build import build_data
from data.records import Batch
from distributed.processes import Processes
from logging_system.records import CheckpointRecord
from models.build import build_tokenizer
from training.learner import Learner, build_learner
from training.optimizer import optimizer_tensors
from training.step import TrainStep, build_train_step

STEPS_BESIDE = 8  # training steps timed with and without a save beside them


@dataclass(frozen=True)
class CheckpointCost:
    """Seconds, each with its spread over the repeats."""

    preset: str
    parameters: int
    size_bytes: int
    torch_save: Spread
    torch_save_synced: Spread
    foreground: Spread  # training waits until all is on the disk
    stall: Spread  # in the background: training waits for the copy alone
    write: Spread  # in the background: until all is on the disk, with steps beside it where they are measured
    steps_alone: Spread | None  # STEPS_BESIDE of them
    steps_beside: Spread | None


def main(arguments: Sequence[str]) -> int:
    """Measure and print; return the exit code."""
    options = _parse(arguments)
    keep_freed_memory()  # as main.py does
    try:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder, redirect_stdout(sys.stderr):
            cost = measure(options.preset, Path(folder), options.repeats, with_steps=options.steps)
    except UserError as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    print("\n".join(report(cost)))
    save_figures(options.json, dataclasses.asdict(cost))
    return 0


def measure(preset: str, folder: Path, repeats: int, *, with_steps: bool) -> CheckpointCost:
    """Build the preset's network and save it again and again, one way after the other."""
    arguments = [f"--preset={preset}", f"--cache-dir={folder / 'cache'}"]
    config = load_settings(Config, PRESETS, arguments, program="benchmark").config
    compute = choose_device(config.DEVICE, config.MIXED_PRECISION)
    splits = build_data(config)
    tokenizer = build_tokenizer(config, splits.symbols)
    processes = Processes()
    learner = build_learner(config, splits, tokenizer, None, compute, processes)
    for parameter in learner.model.parameters():  # so that the optimizer has its moments
        parameter.grad = torch.zeros_like(parameter)
    learner.optimizer.step()
    batch = load_batch(
        splits.training, [splits.training.row(0, index) for index in range(config.BATCH_SIZE)], tokenizer
    )
    step = build_train_step(
        config,
        learner.shared,
        learner.ema,
        learner.optimizer,
        learner.objective,
        compute,
        processes,
        learner.loss_scale,
    )
    beside = _Steps(step, batch, compute.wait) if with_steps else None
    savers = {
        kind: _saver(learner, config, folder / kind, kind == "background") for kind in ("foreground", "background")
    }
    times = _Times()
    for repeat in range(repeats + 1):
        say(f"round {repeat} of {repeats}" + (", which does not count" if repeat == 0 else ""))
        times.add(_one_round(learner, folder, savers, repeat + 1, beside), counts=repeat > 0)
    return times.summary(preset, learner)


@dataclass(frozen=True)
class _Steps:
    step: TrainStep
    batch: Batch
    wait: Callable[[], None]

    def seconds(self) -> float:
        """Do STEPS_BESIDE steps; return how long they took."""
        start = time.perf_counter()
        for number in range(1, STEPS_BESIDE + 1):
            self.step.run(number, self.batch)
        self.wait()
        return time.perf_counter() - start


@dataclass(frozen=True)
class _Round:
    torch_save: float
    torch_save_synced: float
    foreground: CheckpointRecord
    background: CheckpointRecord
    steps_alone: float | None
    steps_beside: float | None


def _one_round(
    learner: Learner, folder: Path, savers: Mapping[str, CheckpointSaver], number: int, beside: _Steps | None
) -> _Round:
    plain, synced = (_torch_save(learner, folder / "plain.pt", sync=sync) for sync in (False, True))
    progress = RunState(number, 0, 0)
    os.sync()
    foreground = _saved(savers["foreground"], progress)
    alone = None if beside is None else beside.seconds()
    os.sync()
    savers["background"].save(progress, wait=False)
    with_save = None if beside is None else beside.seconds()
    return _Round(plain, synced, foreground, _saved(savers["background"], progress), alone, with_save)


def _saved(saver: CheckpointSaver, progress: RunState) -> CheckpointRecord:
    """Wait for the save of this step, which may have been begun, and return it."""
    saver.save(progress, wait=True)
    (outcome,) = saver.collect()
    if not isinstance(outcome, CheckpointRecord):
        raise UserError(f"a checkpoint could not be written: {outcome.error}")
    return outcome


def _torch_save(learner: Learner, path: Path, *, sync: bool) -> float:
    os.sync()  # each way begins with nothing left to write, or it would wait for what the one before has left
    start = time.perf_counter()
    state = {
        "model": learner.model.state_dict(),
        "ema": learner.ema.model.state_dict(),
        "optimizer": learner.optimizer.state_dict(),
    }
    with path.open("wb") as file:
        torch.save(state, file)
        if sync:
            file.flush()
            os.fsync(file.fileno())
    return time.perf_counter() - start


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


class _Times:
    def __init__(self) -> None:
        self._rounds: list[_Round] = []

    def add(self, one: _Round, *, counts: bool) -> None:
        if counts:
            self._rounds.append(one)

    def summary(self, preset: str, learner: Learner) -> CheckpointCost:
        rounds = self._rounds
        alone = [one.steps_alone for one in rounds if one.steps_alone is not None]
        beside = [one.steps_beside for one in rounds if one.steps_beside is not None]
        return CheckpointCost(
            preset=preset,
            parameters=sum(parameter.numel() for parameter in learner.model.parameters()),
            size_bytes=rounds[0].foreground.size_bytes,
            torch_save=spread_of([one.torch_save for one in rounds]),
            torch_save_synced=spread_of([one.torch_save_synced for one in rounds]),
            foreground=spread_of([one.foreground.stall_seconds for one in rounds]),
            stall=spread_of([one.background.stall_seconds for one in rounds]),
            write=spread_of([one.background.write_seconds for one in rounds]),
            steps_alone=spread_of(alone) if alone else None,
            steps_beside=spread_of(beside) if beside else None,
        )


def report(cost: CheckpointCost) -> list[str]:
    """Return the figures as Markdown."""
    rows = [
        ("torch.save, one file", cost.torch_save, "not forced to the disk"),
        ("torch.save, one file, fsync", cost.torch_save_synced, "durable"),
        ("here, training waits", cost.foreground, "durable, hashed"),
        ("here, beside training", cost.stall, f"durable, hashed, after {cost.write.text(2, 's')}"),
    ]
    lines = [
        machine_line(),
        "",
        f"Preset {cost.preset}: {cost.parameters / 1e6:.3g} M parameters, {cost.size_bytes / 1e6:.0f} MB a checkpoint; "
        f"median (smallest to largest) of {cost.stall.repeats}",
        "",
        "| | training stands still, s | times torch.save | |",
        "|---|---|---|---|",
        *(
            f"| {name} | {spread.text(3)} | {spread.median / cost.torch_save.median:.2f} | {note} |"
            for name, spread, note in rows
        ),
    ]
    if cost.steps_alone is not None and cost.steps_beside is not None:
        more = cost.steps_beside.median - cost.steps_alone.median
        lines += [
            "",
            f"{STEPS_BESIDE} training steps: {cost.steps_alone.text(2, 's')}; with a save beside them "
            f"{cost.steps_beside.text(2, 's')}: {more:.2f} s more, beside the stall.",
        ]
    return lines


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.checkpoint",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--preset", default="tiny", choices=list(PRESETS))
    parser.add_argument("--repeats", type=int, default=9, help="rounds that count (default 9)")
    parser.add_argument(
        "--no-steps", dest="steps", action="store_false", help="leave out the steps beside a save (large presets)"
    )
    parser.add_argument(
        "--folder", type=Path, default=None, help="where to write (default: the system's, for temporary files)"
    )
    parser.add_argument("--json", type=Path, default=None, help="also write the figures to this file")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
