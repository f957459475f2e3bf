"""Diverged, not learning, plateau."""

import math
from collections.abc import Callable

import pytest

from logging_system.doctor.finding import Evidence, Finding, Healthy, Unknown
from logging_system.doctor.rules_training import diverged, not_learning, plateau
from logging_system.files.scalar_history import ScalarHistory

Build = Callable[..., ScalarHistory]
LOG = range(10, 1201, 10)
EMA = "01_Training/Loss_EMA"
MSE = "02_Loss_Components/Unweighted_MSE"
SKIPPED = "01_Training/Skipped_Steps"
RATE = "01_Training/Learning_Rate"
VALIDATION = "01_Training/Validation_Loss"
LAUNCH = "08_Model_Architecture/Total_Parameters"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_divergence(value: float, history_with: Build, config: dict[str, object]) -> None:
    opinion = diverged(history_with({"01_Training/Loss": {10: 0.5, 20: value}}), config)
    assert isinstance(opinion, Finding)
    assert opinion.severity == "problem"
    assert opinion.evidence[0].step == 20
    assert "LEARNING_RATE" in opinion.remedy


def test_a_loss_that_was_not_finite_once_has_recovered(history_with: Build, config: dict[str, object]) -> None:
    loss = {10: math.nan, 20: 0.5}
    assert isinstance(diverged(history_with({"01_Training/Loss": loss}), config), Healthy)


@pytest.mark.parametrize(("skipped_a_point", "expected"), [(4.9, Healthy), (5, Finding)])
def test_half_of_the_recent_steps_skipped(
    skipped_a_point: float, expected: type, history_with: Build, config: dict[str, object]
) -> None:
    skipped = {step: max(0, step - 1000) / 10 * skipped_a_point for step in LOG}
    opinion = diverged(history_with({SKIPPED: skipped}), config)
    assert isinstance(opinion, expected)
    if isinstance(opinion, Finding):
        assert opinion.evidence[0] == Evidence(SKIPPED, 1200, skipped[1200])
        assert "50 of the last 100 steps" in opinion.explanation


def test_the_counter_of_skipped_steps_starts_anew_with_a_launch(history_with: Build, config: dict[str, object]) -> None:
    skipped = {step: 0.0 if step <= 1150 else float(step - 1150) for step in LOG}
    assert isinstance(diverged(history_with({SKIPPED: skipped}), config), Finding)
    counted_before = {step: 500.0 if step <= 1150 else 0.0 for step in LOG}
    resumed = history_with({SKIPPED: counted_before, LAUNCH: {0: 1.0, 1151: 1.0}})
    assert isinstance(diverged(resumed, config), Healthy)


@pytest.mark.parametrize(
    ("times_lowest", "error", "expected"), [(2.9, 0.9, Healthy), (3.1, 0.9, Finding), (3.1, 0.5, Healthy)]
)
def test_a_loss_far_above_its_lowest_and_above_knowing_nothing(
    times_lowest: float, error: float, expected: type, history_with: Build, config: dict[str, object]
) -> None:
    average = {10: 0.65, 600: 0.25, 1200: 0.25 * times_lowest}
    opinion = diverged(history_with({EMA: average, MSE: dict.fromkeys(LOG, error)}), config)
    assert isinstance(opinion, expected)


def test_the_noisy_start_of_a_resumed_average_is_left_out(history_with: Build, config: dict[str, object]) -> None:
    average = {500: 0.05, 1000: 0.05, 1110: 0.9}
    bad = {EMA: average, MSE: dict.fromkeys(LOG, 0.9)}
    assert isinstance(diverged(history_with(bad), config), Finding)
    resumed = {**bad, LAUNCH: {0: 1.0, 1101: 1.0}}
    assert isinstance(diverged(history_with(resumed), config), Healthy)


@pytest.mark.parametrize(("share", "expected"), [(0.94, Healthy), (0.96, Finding)])
def test_no_better_than_always_answering_0(
    share: float, expected: type, history_with: Build, config: dict[str, object]
) -> None:
    baseline = "02_Loss_Components/Predict_Zero_Baseline"
    curves = {MSE: dict.fromkeys(LOG, share * 0.7), baseline: dict.fromkeys(LOG, 0.7)}
    assert isinstance(not_learning(history_with(curves), config), expected)


@pytest.mark.parametrize(("last_step", "expected"), [(290, Unknown), (300, Finding)])
def test_learning_is_expected_200_steps_after_the_warm_up(
    last_step: int, expected: type, history_with: Build, config: dict[str, object]
) -> None:
    opinion = not_learning(history_with({MSE: dict.fromkeys(range(10, last_step + 1, 10), 0.9)}), config)
    assert isinstance(opinion, expected)
    if isinstance(opinion, Unknown):
        assert "300 steps" in opinion.missing


def _flat(gain: float) -> dict[str, dict[int, float]]:
    """Both losses flat, but for the gain within the last third of the validations."""
    validation = {step: 0.1 if step <= 800 else 0.1 * (1 - gain) for step in range(100, 1201, 100)}
    return {VALIDATION: validation, EMA: dict.fromkeys(LOG, 0.1), RATE: dict.fromkeys(LOG, 8e-4)}


@pytest.mark.parametrize(("gain", "expected"), [(0.0, Finding), (0.009, Finding), (0.011, Healthy)])
def test_no_gain_in_the_last_third(gain: float, expected: type, history_with: Build, config: dict[str, object]) -> None:
    opinion = plateau(history_with(_flat(gain)), config)
    assert isinstance(opinion, expected)
    if isinstance(opinion, Finding):
        assert opinion.severity == "warning"
        assert {point.tag for point in opinion.evidence} == {VALIDATION, EMA}


def test_one_loss_that_still_falls_is_enough(history_with: Build, config: dict[str, object]) -> None:
    falling = {step: 1 / step for step in LOG}
    opinion = plateau(history_with({**_flat(0.0), EMA: falling}), config)
    assert isinstance(opinion, Healthy)
    assert "improved by 33 %" in opinion.verdict  # 1/1200 after 1/800


@pytest.mark.parametrize(("fraction", "expected"), [(0.09, Healthy), (0.11, Finding)])
def test_the_flat_end_of_a_decaying_schedule_is_normal(
    fraction: float, expected: type, history_with: Build, config: dict[str, object]
) -> None:
    rates = {**dict.fromkeys(LOG, 8e-4), 1200: 8e-4 * fraction}
    assert isinstance(plateau(history_with({**_flat(0.0), RATE: rates}), config), expected)


@pytest.mark.parametrize(
    ("validations", "points", "expected"), [(11, 59, Unknown), (12, 59, Finding), (11, 60, Finding)]
)
def test_a_plateau_needs_a_history(
    validations: int, points: int, expected: type, history_with: Build, config: dict[str, object]
) -> None:
    curves = {
        **_flat(0.0),
        VALIDATION: dict.fromkeys(range(100, 100 * validations + 1, 100), 0.1),
        EMA: dict.fromkeys(range(10, 10 * points + 1, 10), 0.1),
    }
    assert isinstance(plateau(history_with(curves), config), expected)


def _long_run(loss: Callable[[float], float]) -> ScalarHistory:
    """A million steps, logged every ten, with a constant learning rate; `loss` of the share of the run."""
    history = ScalarHistory()
    for point in range(1, 100_001):
        history.add(EMA, 10 * point, loss(point / 100_000))
        if point % 100 == 0:
            history.add(RATE, 10 * point, 8e-4)
    return history


def test_a_long_run_that_stands_still_is_a_plateau(config: dict[str, object]) -> None:
    history = _long_run(lambda share: 0.1 if share > 0.4 else 0.1 + 0.5 * (0.4 - share))
    assert isinstance(plateau(history, config), Finding)


def test_a_long_run_is_judged_over_a_third_of_its_steps(config: dict[str, object]) -> None:
    opinion = plateau(_long_run(lambda share: share**-0.5), config)  # falls to (2/3)**0.5 over the last third
    assert isinstance(opinion, Healthy)
    assert "improved by 18 %" in opinion.verdict


@pytest.mark.parametrize(
    ("every", "skipped_at_the_end", "expected"),
    [(1, 20, Finding), (10, 20, Finding), (50, 20, Finding), (10, 19, Healthy), (1, 1, Healthy)],
)
def test_a_run_that_was_given_up_has_diverged_however_rarely_it_logged(
    every: int, skipped_at_the_end: int, expected: type, history_with: Build, config: dict[str, object]
) -> None:
    last = 1000
    steps = range(every, last + 1, every)
    skipped = {step: float(max(0, skipped_at_the_end - (last - step))) for step in steps}
    tags = {SKIPPED: skipped, "01_Training/Loss": dict.fromkeys(steps, 0.05)}
    opinion = diverged(history_with(tags), {**config, "MAX_SKIPPED_STEPS_IN_A_ROW": 20})
    assert isinstance(opinion, expected)


def test_a_resumed_run_is_judged_by_the_rates_and_losses_of_its_own_launch(config: dict[str, object]) -> None:
    history = ScalarHistory()
    history.add(LAUNCH, 0, 1.0)
    history.add(LAUNCH, 1001, 1.0)
    for step in range(10, 3001, 10):
        history.add(RATE, step, 8e-4 if step <= 1000 else 8e-5)
        history.add(EMA, step, 0.01 if step <= 1000 else 0.1)  # resumed with other data: another loss, and flat
    opinion = plateau(history, {**config, "LEARNING_RATE": 8e-5})
    assert isinstance(opinion, Finding)  # its rate is a tenth of the old one, and yet the highest of this launch
