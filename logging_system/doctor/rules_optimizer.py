"""Do updates and gradients have a sound size?"""

import math

import numpy

from logging_system.doctor.finding import (
    LOSS_EMA_TAG,
    RECENT_POINTS,
    Constants,
    Evidence,
    Healthy,
    Opinion,
    Signs,
    Unknown,
    last_point,
    launch_start,
    number,
    of_this_launch,
    per_layer,
    rate_fraction,
    recent_median,
    settled_loss,
)
from logging_system.doctor.rules_loss import BASELINE_TAG, MSE_TAG
from logging_system.files.scalar_history import ScalarHistory, ScalarSeries

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
    if _shrunk(norms) and recent_median(history.series(MSE_TAG)) > 0.5 * recent_median(history.series(BASELINE_TAG)):
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
        before, now = float(numpy.median(norms.values[:RECENT_POINTS])), recent_median(norms)
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
    """Return the finite gradient norms of this launch after the warm-up."""
    series = of_this_launch(history, NORM_TAG)
    return series.where(series.steps > _first_judged_step(config))


def _spikes(norms: ScalarSeries) -> ScalarSeries:
    """Return the spikes among the recent points; none where there are too few points to tell."""
    recent = norms.newest(SPIKE_POINTS)
    if len(recent) < LEAST_SPIKE_POINTS:
        return recent.newest(0)
    return recent.where(recent.values > SPIKE * float(numpy.median(recent.values)))


def _shrunk(norms: ScalarSeries) -> bool:
    if len(norms) < LEAST_NORM_POINTS:
        return False
    return recent_median(norms) < SHRINK * float(numpy.median(norms.values[:RECENT_POINTS]))
