"""How many steps fit into MAX_MINUTES: by a clock that the test moves, and in whole runs."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from safetensors.torch import load_file

import main
from checkpoints.checkpoint import Checkpoint, list_checkpoints
from config import Config
from tests.held_clock import HeldClock
from tests.training.test_run import ALL_OFF, points
from training import planning, stopping
from training.estimate import TrainingEstimate
from training.learner import stopping_limits
from training.planning import StepPlanner
from training.step import TrainStep
from training.stopping import StoppingLimits

ESTIMATE = TrainingEstimate(
    parameters=1, step_flops=1, step_seconds=3.0, memory_bytes=1, memory_limit=1, measuring_seconds=0.1
)
PLAIN = {
    "VALIDATION_CLIPS": 12,
    "VALIDATE_EVERY_STEPS": 70,
    "SAMPLE_EVERY_STEPS": 150,
    "LR_WARMUP_STEPS": 40,
}


def planner(
    total_steps: int | None = None, *, start_step: int = 0, sample_passes: int = 48, **changes: object
) -> StepPlanner:
    config = Config().model_copy(update=PLAIN | changes)
    limits = StoppingLimits(total_steps, config.MAX_MINUTES)
    return StepPlanner(config, limits, start_step, ESTIMATE, sample_passes, clips_a_step=4)


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> HeldClock:
    held = HeldClock()
    monkeypatch.setattr(planning, "time", held)
    return held


def train(of: StepPlanner, time: HeldClock, steps: range, seconds_a_step: float) -> StepPlanner:
    """Do the steps; the first takes a minute more, as one that is compiled does, and each is logged for a second."""
    for step in steps:
        time.now += seconds_a_step + (60.0 if step == steps[0] else 0.0)
        of.on_step(step)
        time.now += 1.0
    return of


def seconds_until(last: int, step_seconds: float, clip_pass: float) -> float:
    """Live through the steps after 40, without the closing round."""
    seconds = 0.0
    for step in range(41, last + 1):
        seconds += step_seconds
        if step < last:
            seconds += 5 * 12 * clip_pass * (step % 70 == 0) + 48 * clip_pass * (step % 150 == 0)
    return seconds


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("seconds_left", [80.0, 400.0, 3000.0])
def test_the_plan_is_the_last_step_that_fits_with_validation_samples_and_logging(
    time: HeldClock, seconds_left: float, compiled: bool
) -> None:
    found = train(planner(COMPILE_MODEL=compiled), time, range(1, 41), 1.0).plan(seconds_left)
    assert found is not None
    # A step and its logging take 2 s. A clip's forward pass takes a third of a clip's share of a step that is not
    # compiled: the measured one, or else the one of the estimate.
    clip_pass = (3.0 if compiled else 2.0) / (3 * 4)
    closing = (5 * 12 + 48) * clip_pass
    for last, fits in ((found, True), (found + 1, False)):
        assert (seconds_until(last, 2.0, clip_pass) + closing <= 0.95 * seconds_left) == fits


def test_nothing_is_planned_where_all_steps_fit_to_the_second(time: HeldClock) -> None:
    needed = seconds_until(400, 2.0, 2.0 / 12)
    assert train(planner(400), time, range(1, 41), 1.0).plan(needed + 0.01) is None
    planned = train(planner(400), time, range(1, 41), 1.0).plan(needed - 0.01)
    assert planned is not None
    assert 300 < planned < 400


def test_what_a_plan_counts_by_itself_is_not_part_of_a_step(time: HeldClock) -> None:
    expected = train(planner(), time, range(1, 41), 1.0).plan(1000.0)
    interrupted = train(planner(), time, range(1, 31), 1.0)
    with interrupted.aside():
        time.now += 500.0
    for step in range(31, 41):
        time.now += 1.0
        interrupted.on_step(step)
        time.now += 1.0
    assert interrupted.plan(1000.0) == expected


def test_there_is_always_one_more_step(time: HeldClock) -> None:
    assert train(planner(), time, range(1, 41), 1.0).plan(-5.0) == 41


@pytest.mark.parametrize(("warmup", "start_step"), [(0, 0), (15, 0), (40, 25)])
def test_few_steps_are_not_believed_but_the_estimate_is(time: HeldClock, warmup: int, start_step: int) -> None:
    of = planner(LR_WARMUP_STEPS=warmup, start_step=start_step, sample_passes=0, VALIDATE_EVERY_STEPS=10**6)
    assert of.after_step == warmup
    planned = train(of, time, range(start_step + 1, warmup + 1), 99.0).plan(1000.0)
    assert planned == warmup + int((0.95 * 1000 - 5 * 12 * 3 / 12) / 3.0)


@pytest.mark.parametrize(
    ("total_steps", "start_step", "changes", "after_step"),
    [
        (400, 0, {}, 40),
        (None, 0, {}, 40),
        (400, 0, {"LR_SCHEDULE": "polynomial"}, 40),
        (400, 0, {"LR_WARMUP_STEPS": 5000}, 100),
        (400, 39, {}, 40),
        (400, 40, {}, None),  # an earlier launch found that all steps fit
        (None, 90, {}, 90),  # MAX_STEPS was lifted since
        (400, 0, {"LR_SCHEDULE": "constant"}, None),
        (None, 0, {"LR_SCHEDULE": "plateau"}, None),
        (400, 0, {"MAX_MINUTES": None}, None),
    ],
)
def test_when_to_plan(
    total_steps: int | None, start_step: int, changes: dict[str, object], after_step: int | None
) -> None:
    assert planner(total_steps, start_step=start_step, **changes).after_step == after_step


def test_a_plan_that_is_known_is_not_made_again() -> None:
    config = Config()
    assert StepPlanner(config, StoppingLimits(1200, 13.0, 800), 0, ESTIMATE, 1, 4).after_step is None


def test_the_limits_name_what_ends_the_run() -> None:
    limits = StoppingLimits(1200, 13.0)
    assert (limits.total_steps, limits.plan) == (1200, None)
    limits.planned_steps = 800
    assert limits.total_steps == 800
    assert "has room for 800 steps" in str(limits.plan)
    assert "--max-steps 800 --max-minutes none repeats" in str(limits.plan)
    ending = limits.ending_after(800, is_out_of_time=False)
    assert ending is not None
    assert ending.reason == "all 800 steps are done (as planned for MAX_MINUTES)"
    limits.warmup_steps = 799
    assert "and the learning rate falls until then" in str(limits.plan)
    limits.warmup_steps = 800
    assert "and LR_WARMUP_STEPS (800) is no less, so the learning rate does not fall" in str(limits.plan)
    limits.asked_steps = 500
    assert (limits.total_steps, limits.plan) == (500, None)


@pytest.mark.parametrize(
    ("changes", "planned"),
    [
        ({}, 800),
        ({"LR_SCHEDULE": "polynomial", "MAX_MINUTES": 99.0}, 800),
        ({"MAX_MINUTES": None}, None),
        ({"LR_SCHEDULE": "constant"}, None),
    ],
)
def test_a_resume_keeps_the_plan_of_its_checkpoint_where_minutes_and_a_falling_rate_need_one(
    changes: dict[str, object], planned: int | None
) -> None:
    state = SimpleNamespace(schedule={"last_epoch": 300.0, "planned_steps": 800.0})
    config = Config().model_copy(update=changes)
    limits = stopping_limits(config, 512, cast(Checkpoint, SimpleNamespace(state=state)))
    assert limits == StoppingLimits(config.MAX_STEPS, config.MAX_MINUTES, planned, config.LR_WARMUP_STEPS)


# Whole runs

WARMUP, SECONDS_A_STEP = 20, 0.5
OPTIONS = (
    *(option for option in ALL_OFF if not option.startswith("--log-every-steps")),
    "--log-every-steps=1",
    f"--lr-warmup-steps={WARMUP}",
    *("--clip-timing=stretched", "--batch-size=4"),  # four clips a step
    "--validate-every-steps=1000",
    "--save-every-steps=15",
    "--keep-checkpoints=100",
)


@pytest.fixture
def run(
    small_arguments: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Path]:
    """Train by a clock that stands still but in steps; return the run folder."""
    held = HeldClock()
    for module in (planning, stopping):
        monkeypatch.setattr(module, "time", held)
    step_of = TrainStep.run

    def take_time(self: TrainStep, *arguments: object) -> object:
        held.now += SECONDS_A_STEP
        return step_of(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(TrainStep, "run", take_time)

    def start(name: str, *more: str) -> Path:
        assert main.main(small_arguments(*OPTIONS, f"--experiment-name={name}", *more)) == 0
        return tmp_path / "logs" / name

    return start


def newest(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
    checkpoint = list_checkpoints(folder / "checkpoints")[0]
    tensors = {name: load_file(checkpoint / f"{name}.safetensors") for name in ("model", "ema", "optimizer")}
    flat = {f"{group}/{key}": value for group, values in tensors.items() for key, value in values.items()}
    return flat, json.loads((checkpoint / "state.json").read_text())


def assert_equal(first: Path, second: Path) -> None:
    (one, _), (other, _) = newest(first), newest(second)
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    for tag in ("01_Training/Loss", "04_Learning_Rate/Current_LR"):
        assert points(first)[tag] == points(second)[tag]


@pytest.mark.slow
def test_a_run_that_its_minutes_would_cut_short_anneals_and_can_be_repeated_and_resumed(
    run: Callable[..., Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    minutes = "--max-minutes=0.5"  # 60 steps, of which 20 are over when the others are planned
    planned = run("planned", minutes, "--max-steps=1000")
    said = capsys.readouterr().out
    # 95 % of 20 s, without the closing validation of 4 clips, 5 times a third of a clip's share of a step.
    steps = WARMUP + int((0.95 * 20.0 - 4 * 5 * SECONDS_A_STEP / (3 * 4)) / SECONDS_A_STEP)
    assert f"Step 20: MAX_MINUTES has room for {steps} steps, and the learning rate falls until then; " in said
    assert f"Stopped at step {steps}: all {steps} steps are done (as planned for MAX_MINUTES)." in said
    assert newest(planned)[1]["schedule"] == {"last_epoch": float(steps), "planned_steps": float(steps)}
    rates = dict(points(planned)["04_Learning_Rate/Current_LR"])
    assert rates[steps] == pytest.approx(Config().LEARNING_RATE * Config().LR_FINAL_FRACTION)
    assert points(planned)["04_Learning_Rate/Scheduler_State/planned_steps"][0] == (21, steps)
    assert points(planned)["04_Learning_Rate/LR_At_End"][-1][1] == pytest.approx(rates[steps])

    assert_equal(planned, run("repeated", f"--max-steps={steps}", "--max-minutes=none"))

    # Killed after the plan: the checkpoint of step 20, which falls on no cadence, has it.
    killed = planned.parent / "killed"
    shutil.copytree(planned, killed)
    assert [int(each.name[5:]) for each in list_checkpoints(killed / "checkpoints")] == [steps, 45, 30, 20, 15]
    for step in (steps, 45, 30):
        shutil.rmtree(killed / "checkpoints" / f"step_{step:08}")
    with monkeypatch.context() as patch:
        patch.setattr(StepPlanner, "plan", None)  # nobody plans again
        run("killed", "--resume", "--max-minutes=9", "--max-steps=1000")
    said = capsys.readouterr().out
    assert f"Plan of the checkpoint: MAX_MINUTES has room for {steps} steps" in said
    assert_equal(planned, killed)

    run("killed", "--resume", "--max-minutes=9", "--max-steps=1000")
    said = capsys.readouterr().out
    assert "Nothing to do" in said
    assert "Add --max-minutes none and set MAX_STEPS to go on" in said
    run("killed", "--resume", "--max-minutes=none", f"--max-steps={steps + 1}")
    assert f"all {steps + 1} steps are done (MAX_STEPS or NUM_EPOCHS)" in capsys.readouterr().out
    assert newest(killed)[1]["schedule"] == {"last_epoch": steps + 1.0}


@pytest.mark.slow
def test_a_run_without_max_steps_is_planned_and_one_that_fits_stays_as_it_is(
    run: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run("open", "--max-minutes=0.25", "--max-steps=none")
    assert "(as planned for MAX_MINUTES)" in capsys.readouterr().out
    fitting = run("fitting", "--max-minutes=0.25", "--max-steps=29")
    assert "has room" not in capsys.readouterr().out
    assert [int(each.name[5:]) for each in list_checkpoints(fitting / "checkpoints")] == [29, 15]
    assert_equal(fitting, run("unlimited", "--max-minutes=none", "--max-steps=29"))


@pytest.mark.slow
def test_a_machine_that_becomes_slower_ends_the_run_at_its_minutes(
    run: Callable[..., Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StepPlanner, "plan", lambda *_: 500)
    run("slower", "--max-minutes=0.25", "--max-steps=1000")
    said = capsys.readouterr().out
    assert "Stopped at step 30: MAX_MINUTES (0.25, of each launch) is over; 470 of 500 steps are left" in said
