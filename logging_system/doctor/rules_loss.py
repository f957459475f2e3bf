"""Does the loss fall, and go on falling?"""

import math

import numpy

from logging_system.doctor.finding import (
    LEARNING_RATE_TAG,
    LOSS_EMA_TAG,
    RECENT_POINTS,
    Constants,
    Finding,
    Healthy,
    Opinion,
    Unknown,
    last_point,
    launch_start,
    number,
    of_this_launch,
    points,
    rate_fraction,
    recent_median,
    settled_loss,
)
from logging_system.files.scalar_history import ScalarHistory, ScalarSeries

LOSS_TAG = "01_Training/Loss"
SKIPPED_TAG = "01_Training/Skipped_Steps"
VALIDATION_TAG = "01_Training/Validation_Loss"
MSE_TAG = "02_Loss_Components/Unweighted_MSE"
BASELINE_TAG = "02_Loss_Components/Predict_Zero_Baseline"

# Diverged. A healthy average stays within a few percent of its lowest value, so three times is no noise; the second
# condition leaves alone a loss that was tiny and is still far better than knowing nothing.
RISE_THAT_IS_DIVERGENCE = 3.0
SKIPPED_SHARE = 0.5  # with every second step skipped, the model hardly trains
FATAL_SHARE = 0.4  # of an interval: a run that is given up may have logged rarely

# Not learning. Within the warm-up nothing is expected; afterwards the default model takes under 50 steps to get here.
LEAST_STEPS = 200
SHARE_OF_ZERO = 0.95

# Plateau. 1 percent over a third of a run is less than the noise of a loss curve.
IMPROVEMENT = 0.01
LEAST_VALIDATIONS = 12
LEAST_LOSS_POINTS = 60
RATE_THAT_STILL_LEARNS = 0.1  # of the peak; below it the flat end of a decaying schedule is meant

REMEDY_DIVERGED = (
    "Start again with half the LEARNING_RATE, more LR_WARMUP_STEPS or a lower GRADIENT_CLIP_NORM. On CUDA, try "
    "MIXED_PRECISION off. If something is not finite, 11_Gradient_Stats shows in which layer it starts."
)


def diverged(history: ScalarHistory, config: Constants) -> Opinion:
    """A loss that is not finite, steps that are skipped, or a loss that rose above what knowing nothing scores."""
    loss = history.series(LOSS_TAG)
    if not len(loss):
        return Unknown(f"{LOSS_TAG} has no points yet.")
    if not math.isfinite(loss.values[-1]):
        explanation = f"{LOSS_TAG} is {loss.values[-1]} at step {loss.steps[-1]}."
        return Finding("problem", "The loss is no longer a number.", explanation, (last_point(loss),), REMEDY_DIVERGED)
    skipped = of_this_launch(history, SKIPPED_TAG).newest(RECENT_POINTS + 1)
    lost = _lost_steps(skipped, number(config, "MAX_SKIPPED_STEPS_IN_A_ROW"))
    if lost is not None:
        explanation = f"{lost[0]} of the last {lost[1]} steps had a loss or gradient that was not finite."
        evidence = (last_point(skipped), last_point(loss))
        verdict = "Many updates are skipped, so the model does not train."
        return Finding("problem", verdict, explanation, evidence, REMEDY_DIVERGED)
    return _risen(history, loss)


def _lost_steps(skipped: ScalarSeries, most_in_a_row: float | None) -> tuple[int, int] | None:
    """Return how many of how many recent steps were skipped, where that is too many.

    Either half of the recent steps, or as many as end a run, within an interval that they fill to a good part.
    """
    for start in range(len(skipped) - 1):
        grown = int(skipped.values[-1] - skipped.values[start])
        steps = int(skipped.steps[-1] - skipped.steps[start])
        is_half = start == 0 and grown >= SKIPPED_SHARE * steps
        if is_half or (most_in_a_row is not None and grown >= max(most_in_a_row, FATAL_SHARE * steps)):
            return grown, steps
    return None


def _risen(history: ScalarHistory, loss: ScalarSeries) -> Opinion:
    average = settled_loss(history)
    if not len(average):
        return Healthy(f"the loss is finite ({loss.values[-1]:.4g}).")
    lowest, now = float(average.values.min()), float(average.values[-1])
    baseline, error = recent_median(history.series(BASELINE_TAG)), recent_median(history.series(MSE_TAG))
    if now > RISE_THAT_IS_DIVERGENCE * lowest and error > baseline:
        explanation = (
            f"{LOSS_EMA_TAG} is {now:.4g} after a lowest value of {lowest:.4g}, and the recent error of {error:.4g} is "
            f"above the {baseline:.4g} of a network that always answers 0."
        )
        evidence = (last_point(average), last_point(history.series(BASELINE_TAG).finite()))
        verdict = "The loss has risen above what a network that knows nothing would score."
        return Finding("problem", verdict, explanation, evidence, REMEDY_DIVERGED)
    times = f", {now / lowest:.2f} times its lowest" if lowest > 0 else ""
    return Healthy(f"{LOSS_EMA_TAG} is {now:.4g}{times}.")


def not_learning(history: ScalarHistory, config: Constants) -> Opinion:
    """An error that stays at that of a network which always answers 0."""
    error, baseline = history.series(MSE_TAG).finite(), history.series(BASELINE_TAG).finite()
    warmup = number(config, "LR_WARMUP_STEPS") or 0.0
    needed = warmup + LEAST_STEPS
    if not len(error) or not len(baseline) or error.steps[-1] < needed:
        return Unknown(f"It needs {needed:.0f} steps (LR_WARMUP_STEPS and {LEAST_STEPS} more).")
    if recent_median(baseline) <= 0:
        return Unknown(f"{BASELINE_TAG} is 0: the data is empty or constant.")
    ratio = recent_median(error) / recent_median(baseline)
    if ratio < SHARE_OF_ZERO:
        return Healthy(f"the recent error is {100 * ratio:.0f} % of that of always answering 0.")
    explanation = f"The recent error is {100 * ratio:.0f} % of that of a network that always answers 0."
    verdict = "The model has learned nothing yet."
    remedy = (
        "Check that LEARNING_RATE is neither far too low nor far too high (in 09_Parameter_Stats, an "
        "Update_To_Weight_Ratio near 0.001 is sound), and look at 13_Noise_Visualization/Original_Video: is the data "
        "what it should be?"
    )
    return Finding("problem", verdict, explanation, (last_point(error), last_point(baseline)), remedy)


def plateau(history: ScalarHistory, config: Constants) -> Opinion:
    """Neither loss improves although the learning rate is still high."""
    curves = [
        (of_this_launch(history, VALIDATION_TAG), LEAST_VALIDATIONS),
        (settled_loss(history).since(launch_start(history)), LEAST_LOSS_POINTS),
    ]
    judged = [series for series, least in curves if len(series) >= least]
    if not judged:
        have = points(len(curves[0][0]), "validation")
        return Unknown(
            f"It needs {LEAST_VALIDATIONS} validations or {LEAST_LOSS_POINTS} points of the loss; so far {have}."
        )
    gains = [_gain_of_last_third(series) for series in judged]
    best = int(numpy.argmax(gains))
    if gains[best] > IMPROVEMENT:
        return Healthy(f"{judged[best].tag} improved by {100 * gains[best]:.0f} % over the last third of this launch.")
    fraction = rate_fraction(history, config)
    if math.isnan(fraction):
        return Unknown(f"{LEARNING_RATE_TAG} has no points.")
    if fraction <= RATE_THAT_STILL_LEARNS:
        return Healthy(f"flat, as it should be with the learning rate at {100 * fraction:.0f} % of its peak.")
    explanation = (
        f"Over the last third of this launch the lowest value improved by {100 * gains[best]:.1f} % at best, with the "
        f"learning rate at {100 * fraction:.0f} % of its peak."
    )
    remedy = (
        "Let the learning rate fall (LR_SCHEDULE cosine or plateau, LR_FINAL_FRACTION). If it has fallen before, the "
        "model is the limit (MODEL_CHANNELS, BLOCKS_PER_LEVEL) or the data is."
    )
    evidence = tuple(last_point(series) for series in judged)
    return Finding("warning", "The loss no longer improves.", explanation, evidence, remedy)


def _gain_of_last_third(series: ScalarSeries) -> float:
    """Return by which share the lowest value of the last third of the steps is below the lowest one before it.

    Of the steps, not of the points: of a long run, the older points are further apart.
    """
    is_late = series.steps > series.steps[0] + 2 / 3 * (series.steps[-1] - series.steps[0])
    before, after = float(series.values[~is_late].min()), float(series.values[is_late].min())
    return 1 - after / before if before > 0 else 0.0
