"""Learning rate too high, gradients vanishing, gradients exploding."""

from collections.abc import Callable

import pytest

from logging_system.doctor.finding import Evidence, Finding, Healthy, Unknown
from logging_system.doctor.rules_training import gradients_exploding, gradients_vanishing, learning_rate_too_high
from logging_system.files.scalar_history import ScalarHistory

Build = Callable[..., ScalarHistory]
LOG = range(10, 1201, 10)
LAYERS = ("text.embedding", "unet.stem", "unet.middle", "unet.pixels")
EMA = "01_Training/Loss_EMA"
NORM = "01_Training/Gradient_Norm"
RATE = "01_Training/Learning_Rate"
ZERO = "11_Gradient_Stats/Zero_Percent"


def _updates(*ratios: float, step: int = 1200) -> dict[str, dict[int, float]]:
    tags = [f"09_Parameter_Stats/{layer}/Update_To_Weight_Ratio" for layer in LAYERS]
    return {tag: {step: ratio} for tag, ratio in zip(tags, ratios, strict=True)}


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        ((0.001, 0.029, 0.029, 9.0), None),  # one wild layer is not the median
        ((0.031, 0.031, 0.031, 0.001), "warning"),
        ((0.11, 0.11, 0.11, 0.001), "problem"),
    ],
)
def test_updates_large_for_the_weights(
    ratios: tuple[float, ...], expected: str | None, history_with: Build, config: dict[str, object]
) -> None:
    opinion = learning_rate_too_high(history_with(_updates(*ratios)), config)
    assert isinstance(opinion, Healthy if expected is None else Finding)
    if isinstance(opinion, Finding):
        assert opinion.severity == expected
        assert opinion.evidence == (
            Evidence("09_Parameter_Stats/text.embedding/Update_To_Weight_Ratio", 1200, ratios[0]),
        )


@pytest.mark.parametrize(("step", "expected"), [(100, Unknown), (101, Finding)])
def test_updates_within_the_warm_up_are_not_judged(
    step: int, expected: type, history_with: Build, config: dict[str, object]
) -> None:
    curves = {**_updates(0.2, 0.2, 0.2, 0.2, step=step), NORM: {10: 0.5}}
    assert isinstance(learning_rate_too_high(history_with(curves), config), expected)


@pytest.mark.parametrize(
    ("rise", "rate", "points", "expected"),
    [
        (1.29, 8e-4, 5, Healthy),
        (1.31, 8e-4, 5, Finding),
        (1.31, 3.9e-4, 5, Healthy),  # below half of the peak
        (1.31, 8e-4, 2, Healthy),  # two points may be noise
    ],
)
def test_a_loss_that_rises_under_a_high_rate(
    rise: float, rate: float, points: int, expected: type, history_with: Build, config: dict[str, object]
) -> None:
    average = {step: 0.1 * rise if step > 1200 - 10 * points else 0.1 for step in LOG}
    opinion = learning_rate_too_high(history_with({EMA: average, RATE: dict.fromkeys(LOG, rate)}), config)
    assert isinstance(opinion, expected)


@pytest.mark.parametrize(("count", "height", "expected"), [(2, 9.0, Healthy), (3, 4.9, Healthy), (3, 5.1, Finding)])
def test_spikes_of_the_gradient(
    count: int, height: float, expected: type, history_with: Build, config: dict[str, object]
) -> None:
    norms = {**dict.fromkeys(LOG, 0.2), **{1000 + 40 * number: 0.2 * height for number in range(count)}}
    opinion = learning_rate_too_high(history_with({NORM: norms}), config)
    assert isinstance(opinion, expected)
    if isinstance(opinion, Finding):
        assert opinion.severity == "warning"
        assert opinion.evidence[0] == Evidence(NORM, 1000, pytest.approx(0.2 * height))  # the first of the highest


def _sizes(*sizes: float, step: int = 1200) -> dict[str, dict[int, float]]:
    """Gradients whose root mean square is `sizes`: 0.6 of it in the mean, 0.8 in the deviation."""
    shares = {"Mean": 0.6, "Std": 0.8}
    return {
        f"11_Gradient_Stats/{layer}/{name}": {step: share * size}
        for layer, size in zip(LAYERS, sizes, strict=True)
        for name, share in shares.items()
    }


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [((1.1e-8, 1e-3, 1e-3, 1e-3), None), ((0.9e-8, 1e-3, 1e-3, 1e-3), "problem"), ((0.0, 0.0, 1e-3, 1e-3), "problem")],
)
def test_gradients_that_adam_cannot_see(
    sizes: tuple[float, ...], expected: str | None, history_with: Build, config: dict[str, object]
) -> None:
    opinion = gradients_vanishing(history_with(_sizes(*sizes)), config)
    assert isinstance(opinion, Healthy if expected is None else Finding)
    if isinstance(opinion, Finding):
        assert opinion.severity == expected
        assert "text.embedding" in opinion.explanation
        assert opinion.evidence[0].tag == "11_Gradient_Stats/text.embedding/Std"


def test_one_dead_layer_of_many_is_a_warning(history_with: Build, config: dict[str, object]) -> None:
    many = {f"11_Gradient_Stats/block.{number}/{name}": {1200: 1e-4} for number in range(9) for name in ("Mean", "Std")}
    opinion = gradients_vanishing(history_with({**many, **_sizes(0.0, 1e-4, 1e-4, 1e-4)}), config)
    assert isinstance(opinion, Finding)
    assert (opinion.severity, opinion.explanation.split(" have")[0]) == ("warning", "1 of 13 layers")


@pytest.mark.parametrize("step", [1, 20, 100])
def test_layers_that_begin_at_0_are_not_judged_in_the_first_steps(
    step: int, history_with: Build, config: dict[str, object]
) -> None:
    history = history_with({**_sizes(0.0, 0.0, 0.0, 1e-3, step=step), ZERO: {step: 99.8}, NORM: {step: 1.0}})
    assert isinstance(gradients_vanishing(history, config), Unknown)
    assert isinstance(gradients_vanishing(history, {**config, "LR_WARMUP_STEPS": 0}), Finding if step > 20 else Unknown)


@pytest.mark.parametrize(("percent", "expected"), [(49.0, Healthy), (51.0, Finding)])
def test_gradient_values_that_are_exactly_0(
    percent: float, expected: type, history_with: Build, config: dict[str, object]
) -> None:
    opinion = gradients_vanishing(history_with({ZERO: {1: 99.0, 1200: percent}}), config)
    assert isinstance(opinion, expected)
    if isinstance(opinion, Finding):
        assert (opinion.severity, opinion.evidence) == ("warning", (Evidence(ZERO, 1200, percent),))


@pytest.mark.parametrize(
    ("shrunk_to", "error", "expected"), [(1.1e-3, 0.6, Healthy), (0.9e-3, 0.6, Finding), (0.9e-3, 0.1, Healthy)]
)
def test_a_gradient_that_fades_before_the_loss_does(
    shrunk_to: float, error: float, expected: type, history_with: Build, config: dict[str, object]
) -> None:
    norms = {step: 0.5 if step < 800 else 0.5 * shrunk_to for step in LOG}
    history = history_with({NORM: norms, "02_Loss_Components/Unweighted_MSE": dict.fromkeys(LOG, error)})
    assert isinstance(gradients_vanishing(history, config), expected)


def _layer_norms(largest: float, step: int = 1200) -> dict[str, dict[int, float]]:
    norms = {f"11_Gradient_Stats/{layer}/Norm": {step: 0.1} for layer in LAYERS}
    return {**norms, "11_Gradient_Stats/unet.stem/Norm": {step: largest}}


@pytest.mark.parametrize(
    ("largest", "usual", "expected"), [(9.9, 1.0, Healthy), (10.1, 1.0, Finding), (10.1, 2.0, Healthy)]
)
@pytest.mark.parametrize("clip", [0.01, 1.0])  # clipping low is no fault of the gradient
def test_one_layer_towers_over_the_usual_norm(
    largest: float, usual: float, expected: type, clip: float, history_with: Build, config: dict[str, object]
) -> None:
    history = history_with({**_layer_norms(largest), NORM: dict.fromkeys(LOG, usual)})
    opinion = gradients_exploding(history, {**config, "GRADIENT_CLIP_NORM": clip})
    assert isinstance(opinion, expected)
    if isinstance(opinion, Finding):
        assert opinion.evidence == (Evidence("11_Gradient_Stats/unet.stem/Norm", 1200, largest),)


def test_large_gradients_in_the_first_steps_are_not_judged(history_with: Build, config: dict[str, object]) -> None:
    history = history_with({**_layer_norms(500.0, step=1), NORM: {10: 50.0}})
    assert isinstance(gradients_exploding(history, config), Unknown)


@pytest.mark.parametrize(("times", "expected"), [(4.9, Healthy), (5.1, Finding)])
def test_a_gradient_norm_that_grows(
    times: float, expected: type, history_with: Build, config: dict[str, object]
) -> None:
    norms = {step: 0.2 if step <= 1000 else 0.2 * times for step in LOG}
    assert isinstance(gradients_exploding(history_with({NORM: norms}), config), expected)


def test_values_that_are_not_finite(history_with: Build, config: dict[str, object]) -> None:
    tag = "11_Gradient_Stats/Non_Finite"
    assert isinstance(gradients_exploding(history_with({tag: {1: 9.0, 500: 0.0}}), config), Healthy)
    opinion = gradients_exploding(history_with({tag: {1: 0.0, 500: 9.0}}), config)
    assert isinstance(opinion, Finding)
    assert opinion.evidence == (Evidence(tag, 500, 9.0),)


def test_without_parameter_tracking_the_curves_are_judged(
    curves: dict[str, dict[int, float]], history_of: Build, config: dict[str, object]
) -> None:
    without = {tag: curve for tag, curve in curves.items() if not tag.startswith(("09_", "11_"))}
    assert isinstance(learning_rate_too_high(history_of(without), config), Healthy)
    assert isinstance(gradients_exploding(history_of(without), config), Healthy)
    assert isinstance(gradients_vanishing(history_of(without), config), Unknown)


def test_gradients_that_exploded_long_ago_are_still_found(history_with: Build, config: dict[str, object]) -> None:
    norms = {step: 0.3 if step < 600 else 30.0 for step in LOG}
    assert isinstance(gradients_exploding(history_with({NORM: norms}), config), Finding)
