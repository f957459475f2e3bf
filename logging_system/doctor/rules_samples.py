"""Do generated clips move, are they sharp, and are they new? The rules of samples judge the latest sampling point."""

import numpy

from logging_system.doctor.finding import (
    LOSS_EMA_TAG,
    Constants,
    Evidence,
    Finding,
    Healthy,
    Opinion,
    Unknown,
    aligned,
    last_point,
    launch_start,
    of_this_launch,
    points,
    recent_median,
    settled_loss,
)
from logging_system.doctor.rules_loss import BASELINE_TAG, MSE_TAG, VALIDATION_TAG
from logging_system.doctor.rules_text import LEARNED_SHARE_OF_ZERO
from logging_system.files.scalar_history import ScalarHistory

MOTION_TAG = "12_Generated_Samples/Motion_Energy_Ratio"
SHARPNESS_TAG = "12_Generated_Samples/Sharpness_Ratio"

# Both measures are generated divided by real, so 1 is right. Motion varies more from prompt to prompt than sharpness
# does, so its bounds are wider. Grain counts as motion and as sharpness; blur takes both away.
STILL = 0.3
RESTLESS = 2.0
BLURRED = 0.6
GRAINY = 1.5

GRAIN_HIDES = "Grain hides what is behind it"
NEEDS_SAMPLES = "It needs generated clips (ENABLE_VIDEO_LOGGING, SAMPLE_EVERY_STEPS)"


def frozen_samples(history: ScalarHistory, config: Constants) -> Opinion:
    """Clips that hardly move."""
    motion = _latest(history, MOTION_TAG)
    if motion is None:
        return Unknown(f"{NEEDS_SAMPLES} and {MOTION_TAG}.")
    if motion.value > RESTLESS:
        return Unknown(f"{GRAIN_HIDES} ({_of_real(motion)}).")
    if motion.value >= STILL:
        return Healthy(f"generated clips have {_times(motion)} the motion of real ones (step {motion.step}).")
    explanation = (
        f"At step {motion.step} they have {_times(motion)} the motion of real ones; 1 is right, below {STILL} is still."
    )
    remedy = (
        "Train longer (MAX_STEPS); raise NOISE_SCHEDULE_SHIFT, for motion is decided in much noise. Look at "
        "07_Noise_Analysis/Video_Frozen_Frame_Percent: data that stands still teaches that, and so do more NUM_FRAMES "
        "than the source clips have."
    )
    return Finding("problem", "Generated clips hardly move.", explanation, (motion,), remedy)


def blurred_samples(history: ScalarHistory, config: Constants) -> Opinion:
    """Clips without fine detail."""
    sharpness = _latest(history, SHARPNESS_TAG)
    if sharpness is None:
        return Unknown(f"{NEEDS_SAMPLES} and {SHARPNESS_TAG}.")
    if sharpness.value > GRAINY:
        return Unknown(f"{GRAIN_HIDES} ({_of_real(sharpness)}).")
    if sharpness.value >= BLURRED:
        return Healthy(f"generated clips have {_times(sharpness)} the sharpness of real ones (step {sharpness.step}).")
    explanation = (
        f"At step {sharpness.step} they have {_times(sharpness)} the sharpness of real ones; 1 is right, below "
        f"{BLURRED} is blurred."
    )
    remedy = (
        "Train longer (MAX_STEPS); raise SAMPLING_STEPS or GUIDANCE_SCALE; lower NOISE_SCHEDULE_SHIFT, for detail is "
        "learned where there is little noise; with a short run lower EMA_DECAY."
    )
    return Finding("warning", "Generated clips are blurred.", explanation, (sharpness,), remedy)


def noisy_samples(history: ScalarHistory, config: Constants) -> Opinion:
    """Clips with grain, which is what a model makes that has learned too little."""
    motion, sharpness = _latest(history, MOTION_TAG), _latest(history, SHARPNESS_TAG)
    known = [(point, limit) for point, limit in ((motion, RESTLESS), (sharpness, GRAINY)) if point is not None]
    if not known:
        return Unknown(f"{NEEDS_SAMPLES}, {MOTION_TAG} or {SHARPNESS_TAG}.")
    error, zero = recent_median(history.series(MSE_TAG)), recent_median(history.series(BASELINE_TAG))
    if error > LEARNED_SHARE_OF_ZERO * zero:
        return Unknown(f"The model must learn first: its error is {error:.3g}, that of always answering 0 {zero:.3g}.")
    too_high = [(point, limit) for point, limit in known if point.value > limit]
    if not too_high:
        return Healthy(f"generated clips have {' and '.join(_of_real(point) for point, _ in known)}.")
    figures = " and ".join(f"{_of_real(point)} (1 is right, {limit:g} the limit)" for point, limit in too_high)
    remedy = (
        "Train longer (MAX_STEPS, MAX_MINUTES): this is grain that an undertrained model leaves. If "
        "12_Generated_Samples/Raw_Weights is cleaner, lower EMA_DECAY; otherwise raise SAMPLING_STEPS or lower "
        "GUIDANCE_SCALE."
    )
    verdict = "Generated clips are noisy."
    evidence = tuple(point for point, _ in too_high)
    return Finding("warning", verdict, f"They have {figures}.", evidence, remedy)


def _latest(history: ScalarHistory, tag: str) -> Evidence | None:
    series = history.series(tag).finite()
    return last_point(series) if len(series) else None


def _times(point: Evidence) -> str:
    return f"{point.value:.2f} times"


def _of_real(point: Evidence) -> str:
    what = "motion" if point.tag == MOTION_TAG else "sharpness"
    return f"{_times(point)} the {what} of real ones at step {point.step}"


GENERATED_TAG = "12_Generated_Samples/Nearest_Training_Distance"
REAL_TAG = "12_Generated_Samples/Nearest_Training_Distance_Real"

# Memorisation. Clips of their own are about as far from the training clips as real clips that were held out; a copy is
# at 0. Half of that distance is nearer than variety of signing explains.
NEAR = 0.5

# Overfitting. A single validation may be off by a few percent; three in a row 10 percent above the best are a trend.
WORSE_VALIDATIONS = 3
WORSE_BY = 0.1


def memorisation(history: ScalarHistory, config: Constants) -> Opinion:
    """Generated clips that are nearer to training clips than real ones are."""
    steps, (generated, real) = aligned(history, GENERATED_TAG, REAL_TAG)
    if not len(steps):
        return Unknown(f"It needs {GENERATED_TAG} and the same of real clips (ENABLE_VIDEO_LOGGING).")
    if real[-1] <= 0:
        return Unknown("The real validation clips are among the training clips, so there is nothing to compare with.")
    step, ratio = int(steps[-1]), float(generated[-1] / real[-1])
    if ratio >= NEAR:
        return Healthy(
            f"generated clips are {ratio:.2f} times as far from training clips as real ones are (step {step})."
        )
    explanation = (
        f"At step {step} generated clips are {generated[-1]:.3g} from their nearest training clips, real held-out ones "
        f"{real[-1]:.3g}, so the ratio is {ratio:.2f}; 1 is right, below {NEAR} is a copy."
    )
    evidence = (Evidence(GENERATED_TAG, step, float(generated[-1])), Evidence(REAL_TAG, step, float(real[-1])))
    remedy = (
        "More clips, or more variety in them; a smaller model (MODEL_CHANNELS), more WEIGHT_DECAY, a shorter run "
        "(MAX_STEPS). Compare 12_Generated_Samples/Real_And_Generated by eye, and publish no clips of people who have "
        "not agreed to it."
    )
    return Finding("problem", "Generated clips are near copies of training clips.", explanation, evidence, remedy)


def overfitting(history: ScalarHistory, config: Constants) -> Opinion:
    """A validation loss that rises while the training loss falls."""
    validation = of_this_launch(history, VALIDATION_TAG)
    training = settled_loss(history).since(launch_start(history))
    needed = WORSE_VALIDATIONS + 1
    if len(validation) < needed:
        have = points(len(validation), "validation")
        return Unknown(f"It needs {needed} validations; so far {have} (VALIDATE_EVERY_STEPS).")
    best = int(numpy.argmin(validation.values))
    step, lowest = int(validation.steps[best]), float(validation.values[best])
    since = training.where(training.steps <= step)
    if not len(since):
        return Unknown(f"{LOSS_EMA_TAG} has no points before the best validation.")
    still_falls = float(training.values[-1]) < float(since.values[-1])
    newest = validation.newest(WORSE_VALIDATIONS)
    excess = float(newest.values.min()) / lowest - 1 if lowest > 0 else 0.0
    if excess <= WORSE_BY or not still_falls:
        now = float(validation.values[-1])
        return Healthy(f"the validation loss is {now:.4g}, its best {lowest:.4g} (step {step}).")
    explanation = (
        f"The last {WORSE_VALIDATIONS} validation losses are at least {100 * excess:.0f} % above the best one, "
        f"{lowest:.4g} at step {step}, while {LOSS_EMA_TAG} fell from {since.values[-1]:.4g} to "
        f"{training.values[-1]:.4g}."
    )
    remedy = (
        "More data or more variety of it. Otherwise a smaller model (MODEL_CHANNELS), more WEIGHT_DECAY, or a shorter "
        f"run (MAX_STEPS near {step})."
    )
    verdict = "The model gets better on training clips and worse on others."
    evidence = (Evidence(validation.tag, step, lowest), last_point(validation), last_point(training))
    return Finding("warning", verdict, explanation, evidence, remedy)
