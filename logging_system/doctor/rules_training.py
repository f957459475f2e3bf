"""Does the loss fall, and go on falling? Do updates and gradients have a sound size?"""

import math

import numpy

from logging_system.doctor.finding import (
    LEARNING_RATE_TAG,
    LOSS_EMA_TAG,
    RECENT_POINTS,
    Constants,
    Evidence,
    Finding,
    Healthy,
    Opinion,
    Signs,
    Unknown,
    last_point,
    launch_start,
    number,
    of_this_launch,
    per_layer,
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
        return Unknown("It needs the loss of a step.")
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


def not_learning(history: ScalarHistory, config: Constants) -> Opinion:
    """An error that stays at that of a network which always answers 0."""
    error, baseline = history.series(MSE_TAG).finite(), history.series(BASELINE_TAG).finite()
    needed = (number(config, "LR_WARMUP_STEPS") or 0.0) + LEAST_STEPS
    if not len(error) or not len(baseline) or error.steps[-1] < needed:
        return Unknown(f"It needs {needed:.0f} steps (LR_WARMUP_STEPS and {LEAST_STEPS} more).")
    if recent_median(baseline) <= 0:
        return Unknown(f"{BASELINE_TAG} is 0: the data is empty or constant.")
    ratio = recent_median(error) / recent_median(baseline)
    if ratio < SHARE_OF_ZERO:
        return Healthy(f"the recent error is {100 * ratio:.0f} % of that of always answering 0.")
    explanation = f"The recent error is {100 * ratio:.0f} % of that of a network that always answers 0."
    remedy = (
        "Check that LEARNING_RATE is neither far too low nor far too high (in 09_Parameter_Stats, an "
        "Update_To_Weight_Ratio near 0.001 is sound), and look at 13_Noise_Visualization/Original_Video: is the data "
        "what it should be?"
    )
    evidence = (last_point(error), last_point(baseline))
    return Finding("problem", "The model has learned nothing yet.", explanation, evidence, remedy)


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


UPDATE_PATTERN = "09_Parameter_Stats/{layer}/Update_To_Weight_Ratio"
NORM_PATTERN = "11_Gradient_Stats/{layer}/Norm"
MEAN_PATTERN = "11_Gradient_Stats/{layer}/Mean"
DEVIATION_PATTERN = "11_Gradient_Stats/{layer}/Std"
NON_FINITE_TAG = "11_Gradient_Stats/Non_Finite"
ZERO_TAG = "11_Gradient_Stats/Zero_Percent"
NORM_TAG = "01_Training/Gradient_Norm"

# Learning rate. Updates near 1/1000 of the weights are a good rule of thumb (Karpathy, "Neural Networks: Zero to
# Hero", part 4, 2022). Early in a run ten times that is common; thirty times is not, and at a hundred times the weights
# are rewritten within a few dozen steps.
HIGH_UPDATE = 0.03
VERY_HIGH_UPDATE = 0.1
RISE = 1.3  # of Loss_EMA above its lowest; the average over 100 steps wanders by a few percent
RISE_POINTS = 5  # how long it must last
RATE_THAT_COUNTS = 0.5  # of the peak
SPIKE = 5.0  # times the median. A point is a mean over LOG_EVERY_STEPS steps, so one step spikes far higher
SPIKE_POINTS = 50
LEAST_SPIKE_POINTS = 20
LEAST_SPIKES = 3

# Gradients. Adam divides by the gradient's size plus 1e-8 (Kingma and Ba 2015, algorithm 1): a layer whose gradients
# are smaller than that in root mean square moves by less than half of the learning rate, then not at all.
ADAM_EPSILON = 1e-8
SHARE_OF_LAYERS = 0.25  # fewer may be parts that the data does not need
ZERO_PERCENT = 50.0  # the default model has below 0.1
SHRINK = 1e-3  # of the gradient norm since warm-up, while the loss is still high
GROWTH = 5.0  # of the gradient norm; in healthy runs it falls
LEAST_NORM_POINTS = 30
TIMES_USUAL_NORM = 10.0  # one layer, compared with the recent norm of all gradients together
# The first steps pass through layers that begin at 0 and rightly have no gradient behind them.
FIRST_STEPS = 20
REMEDY_RATE = "Lower LEARNING_RATE (try half of it), or raise LR_WARMUP_STEPS or BATCH_SIZE."
REMEDY_VANISHING = (
    "Look at 11_Gradient_Stats/Gradient_Flow for where it fades. A shallower model (BLOCKS_PER_LEVEL, TEXT_LAYERS) or "
    "MIXED_PRECISION off may help; a layer that is never used is a fault of the model."
)
REMEDY_EXPLODING = "Lower LEARNING_RATE or raise LR_WARMUP_STEPS. On CUDA, try MIXED_PRECISION off."
NEEDS_DIAGNOSTICS = "It needs diagnostics after the warm-up (DIAGNOSTIC_LOG_EVERY_STEPS, LR_WARMUP_STEPS)."


def learning_rate_too_high(history: ScalarHistory, config: Constants) -> Opinion:
    """Updates too large for the weights, a loss that rises under a high rate, or spikes of the gradient."""
    updates = per_layer(history, UPDATE_PATTERN, _first_judged_step(config))
    norms = _after_warmup(history, config)
    # Of this launch alone: a resumed run may have other data or another weighting, and another loss with them.
    loss = settled_loss(history).since(launch_start(history))
    if updates is None and len(norms) < LEAST_SPIKE_POINTS:
        return Unknown(NEEDS_DIAGNOSTICS)
    signs = Signs()
    median = math.nan
    if updates is not None:
        median = float(numpy.median(list(updates.values.values())))
        if median > HIGH_UPDATE:
            layer = min(updates.values, key=lambda name: abs(updates.values[name] - median))
            sentence = f"Half of the layers change by {median:.2g} of their size or more in a step; 0.001 is usual."
            signs.add("problem" if median > VERY_HIGH_UPDATE else "warning", sentence, updates.evidence(layer))
    if len(loss) > RISE_POINTS and rate_fraction(history, config) > RATE_THAT_COUNTS:
        lowest, now = float(loss.values.min()), recent_median(loss, RISE_POINTS)
        if now > RISE * lowest:
            sentence = f"{LOSS_EMA_TAG} has risen from {lowest:.4g} to {now:.4g} under a high learning rate."
            signs.add("problem", sentence, last_point(loss))
    spikes = _spikes(norms)
    if len(spikes) >= LEAST_SPIKES:
        sentence = f"The gradient norm spiked {len(spikes)} times lately, to {spikes.values.max():.3g}."
        highest = int(numpy.argmax(spikes.values))
        signs.add("warning", sentence, Evidence(NORM_TAG, int(spikes.steps[highest]), float(spikes.values[highest])))
    if signs.sentences:
        return signs.finding("The updates are too large.", REMEDY_RATE)
    if updates is None:
        return Healthy("the loss does not rise and the gradient norm has no spikes.")
    return Healthy(f"half of the layers change by {median:.2g} of their size in a step or less.")


def gradients_vanishing(history: ScalarHistory, config: Constants) -> Opinion:
    """Layers whose gradient is too small to move them."""
    deviations = per_layer(history, DEVIATION_PATTERN, _first_judged_step(config))
    means = per_layer(history, MEAN_PATTERN, _first_judged_step(config))
    if deviations is None or means is None or deviations.step != means.step:
        return Unknown(NEEDS_DIAGNOSTICS)
    shared = deviations.values.keys() & means.values.keys()
    sizes = {name: math.hypot(means.values[name], deviations.values[name]) for name in sorted(shared)}
    signs = Signs()
    dead = [layer for layer, size in sizes.items() if size < ADAM_EPSILON]
    if dead:
        names = ", ".join(dead[:5]) + (", ..." if len(dead) > 5 else "")
        signs.add(
            "problem" if len(dead) >= SHARE_OF_LAYERS * len(sizes) else "warning",
            f"{len(dead)} of {len(sizes)} layers have gradients that Adam cannot see (below 1e-8): {names}.",
            *(deviations.evidence(layer) for layer in dead[:3]),
        )
    zeros = history.series(ZERO_TAG).finite().at(deviations.step)
    if zeros is not None and zeros > ZERO_PERCENT:
        sentence = f"{zeros:.0f} % of all gradient values are exactly 0."
        signs.add("warning", sentence, Evidence(ZERO_TAG, deviations.step, zeros))
    norms = _after_warmup(history, config)
    has_shrunk = len(norms) >= LEAST_NORM_POINTS and recent_median(norms) < SHRINK * _early_median(norms)
    if has_shrunk and recent_median(history.series(MSE_TAG)) > 0.5 * recent_median(history.series(BASELINE_TAG)):
        sentence = f"The gradient norm fell to {recent_median(norms):.2g} although the loss is still high."
        signs.add("problem", sentence, last_point(norms))
    if signs.sentences:
        return signs.finding("Parts of the model get no usable gradient.", REMEDY_VANISHING)
    smallest = min(sizes, key=lambda name: sizes[name])
    return Healthy(f"the smallest gradient, of {smallest}, is {sizes[smallest]:.1g} in root mean square.")


def gradients_exploding(history: ScalarHistory, config: Constants) -> Opinion:
    """Gradients that are not finite, tower in one layer, or grow."""
    norms = _after_warmup(history, config)
    layers = per_layer(history, NORM_PATTERN, _first_judged_step(config))
    non_finite = history.series(NON_FINITE_TAG).finite()
    signs = Signs()
    if len(non_finite) and non_finite.values[-1] > 0:
        sentence = f"{non_finite.values[-1]:.0f} gradient values were not finite at the latest diagnostics."
        signs.add("problem", sentence, last_point(non_finite))
    usual = recent_median(norms, LEAST_NORM_POINTS)
    if layers is not None and usual > 0:
        name, largest = max(layers.values.items(), key=lambda item: item[1])
        if largest > TIMES_USUAL_NORM * usual:
            sentence = (
                f"The gradient of {name} is {largest:.3g}, while that of the whole network is usually {usual:.3g}."
            )
            signs.add("problem", sentence, layers.evidence(name))
    if len(norms) >= LEAST_NORM_POINTS:
        # Against the first points after the warm-up: an explosion that lasts must not become its own measure.
        before, now = _early_median(norms), recent_median(norms)
        if now > GROWTH * before:
            signs.add("problem", f"The gradient norm has grown from {before:.3g} to {now:.3g}.", last_point(norms))
    if signs.sentences:
        return signs.finding("The gradients are far too large.", REMEDY_EXPLODING)
    if layers is None and len(norms) < LEAST_NORM_POINTS:
        return Unknown(NEEDS_DIAGNOSTICS)
    if layers is None:
        return Healthy(f"the norm of the whole gradient is {recent_median(norms):.2g} and does not grow.")
    name, largest = max(layers.values.items(), key=lambda item: item[1])
    return Healthy(f"the largest gradient, of {name}, has norm {largest:.2g}.")


def _first_judged_step(config: Constants) -> float:
    return max(number(config, "LR_WARMUP_STEPS") or 0.0, FIRST_STEPS)


def _after_warmup(history: ScalarHistory, config: Constants) -> ScalarSeries:
    series = of_this_launch(history, NORM_TAG)
    return series.where(series.steps > _first_judged_step(config))


def _early_median(norms: ScalarSeries) -> float:
    return float(numpy.median(norms.values[:RECENT_POINTS]))


def _spikes(norms: ScalarSeries) -> ScalarSeries:
    """Return the spikes among the recent points; none where there are too few points to tell."""
    recent = norms.newest(SPIKE_POINTS)
    if len(recent) < LEAST_SPIKE_POINTS:
        return recent.newest(0)
    return recent.where(recent.values > SPIKE * float(numpy.median(recent.values)))
