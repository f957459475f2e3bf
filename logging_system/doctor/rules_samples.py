"""Do generated clips move, and are they as sharp as real ones? Each rule judges the latest sampling point."""

from logging_system.doctor.finding import Constants, Evidence, Finding, Healthy, Opinion, Unknown, last_point
from logging_system.doctor.reading import recent_median
from logging_system.doctor.rules_loss import BASELINE_TAG, MSE_TAG
from logging_system.doctor.rules_text import LEARNED_SHARE_OF_ZERO
from logging_system.files.scalar_history import ScalarHistory

MOTION_TAG = "12_Generated_Samples/Motion_Energy_Ratio"
SHARPNESS_TAG = "12_Generated_Samples/Sharpness_Ratio"

# Both measures are generated divided by real, so 1 is right. Motion varies more from prompt to prompt than sharpness
# does, hence the wider bounds. Grain counts as motion and as sharpness; blur takes both away.
STILL = 0.3
RESTLESS = 2.0
BLURRED = 0.6
GRAINY = 1.5

GRAIN_HIDES = "Grain hides what is behind it"
NEEDS_SAMPLES = "It needs generated clips (ENABLE_VIDEO_LOGGING, SAMPLE_EVERY_STEPS)"


def frozen_samples(history: ScalarHistory, config: Constants) -> Opinion:
    """Clips that stand still."""
    rule = "Frozen samples"
    motion = _latest(history, MOTION_TAG)
    if motion is None:
        return Unknown(rule, f"{NEEDS_SAMPLES} and {MOTION_TAG}.")
    if motion.value > RESTLESS:
        return Unknown(rule, f"{GRAIN_HIDES} ({_of_real(motion)}).")
    if motion.value >= STILL:
        return Healthy(rule, f"generated clips have {_times(motion)} the motion of real ones (step {motion.step}).")
    explanation = (
        f"At step {motion.step} they have {_times(motion)} the motion of real ones; 1 is right, below {STILL} is still."
    )
    remedy = (
        "Train longer (MAX_STEPS); raise NOISE_SCHEDULE_SHIFT, for motion is decided in much noise. Look at "
        "07_Noise_Analysis/Video_Frozen_Frame_Percent: data that stands still teaches that, and so do more NUM_FRAMES "
        "than the source clips have."
    )
    return Finding(rule, "problem", "Generated clips hardly move.", explanation, (motion,), remedy)


def blurred_samples(history: ScalarHistory, config: Constants) -> Opinion:
    """Clips without fine detail."""
    rule = "Blurred samples"
    sharpness = _latest(history, SHARPNESS_TAG)
    if sharpness is None:
        return Unknown(rule, f"{NEEDS_SAMPLES} and {SHARPNESS_TAG}.")
    if sharpness.value > GRAINY:
        return Unknown(rule, f"{GRAIN_HIDES} ({_of_real(sharpness)}).")
    if sharpness.value >= BLURRED:
        return Healthy(
            rule, f"generated clips have {_times(sharpness)} the sharpness of real ones (step {sharpness.step})."
        )
    explanation = (
        f"At step {sharpness.step} they have {_times(sharpness)} the sharpness of real ones; 1 is right, below "
        f"{BLURRED} is blurred."
    )
    remedy = (
        "Train longer (MAX_STEPS); raise SAMPLING_STEPS or GUIDANCE_SCALE; lower NOISE_SCHEDULE_SHIFT, for detail is "
        "learned where there is little noise; with a short run lower EMA_DECAY."
    )
    return Finding(rule, "warning", "Generated clips are blurred.", explanation, (sharpness,), remedy)


def noisy_samples(history: ScalarHistory, config: Constants) -> Opinion:
    """Clips with grain, which is what a model makes that has learned too little."""
    rule = "Noisy samples"
    motion, sharpness = _latest(history, MOTION_TAG), _latest(history, SHARPNESS_TAG)
    known = [(point, limit) for point, limit in ((motion, RESTLESS), (sharpness, GRAINY)) if point is not None]
    if not known:
        return Unknown(rule, f"{NEEDS_SAMPLES}, {MOTION_TAG} or {SHARPNESS_TAG}.")
    error, zero = recent_median(history.series(MSE_TAG)), recent_median(history.series(BASELINE_TAG))
    if error > LEARNED_SHARE_OF_ZERO * zero:
        return Unknown(
            rule, f"The model must learn first: its error is {error:.3g}, that of always answering 0 {zero:.3g}."
        )
    too_high = [(point, limit) for point, limit in known if point.value > limit]
    if not too_high:
        return Healthy(rule, f"generated clips have {' and '.join(_of_real(point) for point, _ in known)}.")
    figures = " and ".join(f"{_of_real(point)} (1 is right, {limit:g} the limit)" for point, limit in too_high)
    remedy = (
        "Train longer (MAX_STEPS, MAX_MINUTES): this is grain that an undertrained model leaves. If "
        "12_Generated_Samples/Raw_Weights is cleaner, lower EMA_DECAY; otherwise raise SAMPLING_STEPS or lower "
        "GUIDANCE_SCALE."
    )
    verdict = "Generated clips are noisy."
    evidence = tuple(point for point, _ in too_high)
    return Finding(rule, "warning", verdict, f"They have {figures}.", evidence, remedy)


def _latest(history: ScalarHistory, tag: str) -> Evidence | None:
    series = history.series(tag).finite()
    return last_point(series) if len(series) else None


def _times(point: Evidence) -> str:
    return f"{point.value:.2f} times"


def _of_real(point: Evidence) -> str:
    what = "motion" if point.tag == MOTION_TAG else "sharpness"
    return f"{_times(point)} the {what} of real ones at step {point.step}"
