"""Every schedule against its formula written out."""

import math

import pytest

from config import Config
from training.learning_rate import LearningRateSchedule
from training.stopping import StoppingLimits


def plan(name: str = "cosine", total_steps: int | None = 110, **changes: object) -> LearningRateSchedule:
    values: dict[str, object] = {
        "LR_SCHEDULE": name,
        "LEARNING_RATE": 2.0,  # more than a config accepts, so that no factor can hide in a 1
        "LR_WARMUP_STEPS": 10,
        "LR_FINAL_FRACTION": 0.1,
        "LR_RESTART_EVERY_STEPS": 40,
        "LR_EXPONENTIAL_DECAY": 0.9,
        "LR_POLYNOMIAL_POWER": 2.0,
        "LR_PLATEAU_PATIENCE": 1,
        "LR_PLATEAU_FACTOR": 0.5,
    }
    return LearningRateSchedule(Config().model_copy(update=values | changes), StoppingLimits(total_steps, None))


@pytest.mark.parametrize("name", ["constant", "cosine", "warm_restarts", "exponential", "polynomial", "plateau"])
def test_warm_up_is_linear_and_reaches_the_peak(name: str) -> None:
    rates = [plan(name).rate_at(step) for step in range(1, 11)]
    assert rates == pytest.approx([0.2 * step for step in range(1, 11)])


@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("constant", lambda done: 1.0),
        ("cosine", lambda done: 0.1 + 0.9 * (1 + math.cos(math.pi * done / 100)) / 2),
        ("polynomial", lambda done: 0.1 + 0.9 * (1 - done / 100) ** 2),
        ("warm_restarts", lambda done: 0.1 + 0.9 * (1 + math.cos(math.pi * (done % 40) / 40)) / 2),
        ("exponential", lambda done: max(0.1, 0.9**done)),
    ],
    ids=["constant", "cosine", "polynomial", "warm_restarts", "exponential"],
)
def test_after_the_warm_up_each_schedule_follows_its_formula(name: str, share) -> None:
    for done in (0, 1, 25, 39, 40, 99, 100):
        assert plan(name).rate_at(10 + done) == pytest.approx(2.0 * share(done))


def test_decay_ends_at_the_final_fraction_and_stays_there() -> None:
    assert plan("cosine").rate_at(110) == pytest.approx(0.2)
    assert plan("cosine").rate_at(10_000) == pytest.approx(0.2)


@pytest.mark.parametrize("total_steps", [1, 5])
def test_a_warm_up_longer_than_the_run_is_cut_short_without_error(total_steps: int) -> None:
    assert plan(total_steps=total_steps).rate_at(total_steps) == pytest.approx(0.2 * total_steps)


def test_no_warm_up_starts_at_the_peak() -> None:
    assert plan("constant", LR_WARMUP_STEPS=0).rate_at(1) == 2.0


@pytest.mark.parametrize("name", ["cosine", "polynomial"])
def test_no_rate_of_the_warm_up_depends_on_the_end_which_may_be_planned_later(name: str) -> None:
    config = plan(name)._config
    limits = StoppingLimits(None, 5.0)
    schedule = LearningRateSchedule(config, limits)
    early = [schedule.rate_at(step) for step in range(1, 11)]
    assert early == [plan(name, total_steps).rate_at(step) for total_steps in (50,) for step in range(1, 11)]
    assert schedule.planned_rate(11) is None
    limits.planned_steps = 110
    assert [schedule.rate_at(step) for step in range(1, 200)] == [plan(name).rate_at(step) for step in range(1, 200)]
    assert schedule.rate_for(60) == schedule.planned_rate(60)
    assert schedule.state() == {"last_epoch": 60.0, "planned_steps": 110.0}


def test_plateau_halves_after_its_patience_and_survives_a_resume() -> None:
    schedule = plan("plateau")
    for loss in (1.0, 0.9, 0.95):
        schedule.on_validation(loss)
    assert schedule.rate_for(50) == 2.0
    resumed = plan("plateau")
    resumed.load_state(schedule.state())
    for one in (schedule, resumed):
        one.on_validation(0.91)  # the second without a new best
        assert one.rate_for(51) == 1.0
        assert one.planned_rate(60) is None
        assert one.state() == {"last_epoch": 51.0, "num_bad_epochs": 0.0, "reduction": 0.5, "best": 0.9}


def test_other_schedules_ignore_validation() -> None:
    schedule = plan("constant")
    for _ in range(10):
        schedule.on_validation(1.0)
    assert schedule.rate_for(50) == 2.0
    assert schedule.planned_rate(60) == 2.0
