"""Are captions read, does the text decide, and do generated clips move, are they sharp, new, and can be read?

The rules of samples judge the latest sampling point.
"""

from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from common.console import counted
from common.limits import FOUND, FOUND_BY_CHANCE, GRAINY, HAZY, READS_REAL_CLIPS, RESTLESS, STILL, way_to_real
from logging_system.doctor.finding import (
    LOSS_EMA_TAG,
    Constants,
    Evidence,
    Finding,
    Healthy,
    Opinion,
    Severity,
    Unknown,
    aligned,
    last_point,
    launch_start,
    number,
    of_this_launch,
    recent_median,
    settled_loss,
)
from logging_system.doctor.rules_training import BASELINE_TAG, MSE_TAG, VALIDATION_TAG
from logging_system.files.scalar_history import ScalarHistory

VALIDATION_LOSS_TAG = "02_Loss_Components/Validation/Loss"
VALIDATION_GAP_TAG = "02_Loss_Components/Validation/Text_Gap_Shuffled"
TRAINED_LOSS_TAG = "02_Loss_Components/Validation/Trained_Loss"
TRAINED_GAP_TAG = "02_Loss_Components/Validation/Trained_Text_Gap_Shuffled"
VALIDATION_BASELINE_TAG = "02_Loss_Components/Validation/Predict_Zero_Baseline"
SENSITIVITY_TAG = "12_Generated_Samples/Text_Sensitivity"
TOP1_TAG = "12_Generated_Samples/Retrieval_Top1"
TOP1_CEILING_TAG = "12_Generated_Samples/Retrieval_Real_Ceiling"
TOP1_FLOOR_TAG = "12_Generated_Samples/Retrieval_Shuffled_Floor"

# A model learns to remove noise first and to read afterwards, so an early gap of 0 means nothing. By the time the error
# is at half of that of always answering 0, the default model reads: the gap is 26 percent of the loss at step 100, 73
# at step 200, 130 at the end. With captions that belong to other clips it stays at about 0.1 percent.
LEARNED_SHARE_OF_ZERO = 0.5
LEAST_VALIDATIONS = 3
LEAST_STEPS = 150  # after the warm-up, however fast noise removal was learned
SMALL_GAP = 0.02
# Text_Sensitivity is near 0 where the text is ignored and above 1 where it decides.
LOW_SENSITIVITY = 0.2

UNREAD_TAG = "15_Configuration/Captions_Unread_Percent"
ALIKE_TAG = "15_Configuration/Captions_Alike_Percent"
MANY_CAPTIONS = 20  # percent; without fewer the model still learns to read

REMEDY_UNREAD = "Choose a TEXT_ENCODER that knows the script of the captions, such as intfloat/multilingual-e5-small."
REMEDY_ALIKE = (
    "Raise MAX_CAPTION_LENGTH to the length of the longest caption, or choose a TEXT_ENCODER that knows all their "
    "characters; `python -m data inspect` says which of the two."
)
REMEDY_IGNORED = (
    "Check first that each caption in DATA_ROOT belongs to its clip (12_Generated_Samples/Real_And_Generated shows "
    "pairs). Then: CAPTION_DROPOUT near 0.1; more sizes in SPATIAL_ATTENTION_SIZES, where the text is read; "
    "NOISE_SCHEDULE_SHIFT above 1, for in noisy clips only the text tells; a longer run (MAX_STEPS)."
)


def captions_not_read(history: ScalarHistory, config: Constants) -> Opinion:
    """Captions that are empty or all the same to the model, whatever it learns."""
    percents = (history.series(UNREAD_TAG).finite(), history.series(ALIKE_TAG).finite())
    if not all(map(len, percents)):
        return Unknown("The run does not say how many captions its text encoder reads.")
    unread, alike = map(last_point, percents)
    lost = unread.value + alike.value
    if lost == 0:
        return Healthy("the text encoder can tell all captions apart.")
    severity: Severity = "problem" if lost >= MANY_CAPTIONS else "warning"
    verdict = f"The model cannot tell {lost:.3g} % of the captions apart, because its text encoder does not read them."
    figures = (
        f"The text encoder knows no character of {unread.value:.3g} % of the captions, and {alike.value:.3g} % differ "
        "from another one only in what it does not read."
    )
    remedies = [REMEDY_UNREAD] * (unread.value > 0) + [REMEDY_ALIKE] * (alike.value > 0)
    return Finding(severity, verdict, figures, (unread, alike), " ".join(remedies))


def text_ignored(history: ScalarHistory, config: Constants) -> Opinion:
    """A loss that hardly cares whose caption it is shown: of training clips where no other caption can be known."""
    # The newest validation also measured training clips, where no other caption can be known. A resumed run may have
    # other clips.
    newest, newest_trained = history.series(VALIDATION_LOSS_TAG).steps, history.series(TRAINED_LOSS_TAG).steps
    of_trained = len(newest) > 0 and len(newest_trained) > 0 and bool(newest_trained[-1] >= newest[-1])
    what = "loss of training clips" if of_trained else "validation loss"
    loss_tag, gap_tag = (TRAINED_LOSS_TAG, TRAINED_GAP_TAG) if of_trained else (VALIDATION_LOSS_TAG, VALIDATION_GAP_TAG)
    steps, (loss, gap, zero) = aligned(history, loss_tag, gap_tag, VALIDATION_BASELINE_TAG)
    if len(steps) < LEAST_VALIDATIONS:
        have = counted(len(steps), "validation")
        if not len(steps) and len(history.series(loss_tag)):
            return Unknown("All clips have the same caption, so that none can be exchanged for another one.")
        return Unknown(
            f"It needs {LEAST_VALIDATIONS} validations with different captions; so far {have} (VALIDATE_EVERY_STEPS)."
        )
    if loss[-1] <= 0 or loss[-1] > LEARNED_SHARE_OF_ZERO * zero[-1]:
        share = f"{100 * loss[-1] / zero[-1]:.0f} %" if zero[-1] > 0 else "above all"
        return Unknown(
            f"The model must learn to remove noise first: its {what} is {share} of that of always answering "
            f"0, and {100 * LEARNED_SHARE_OF_ZERO:.0f} % or less is needed."
        )
    needed = (number(config, "LR_WARMUP_STEPS") or 0.0) + LEAST_STEPS
    if steps[-1] < needed:
        return Unknown(f"Reading is learned late: it needs {needed:.0f} steps (LR_WARMUP_STEPS, {LEAST_STEPS} more).")
    share_of_loss = float(gap[-LEAST_VALIDATIONS:].mean() / loss[-LEAST_VALIDATIONS:].mean())
    percent = 100 * share_of_loss
    figures = (
        f"Another clip's caption raises the {what if of_trained else 'loss'} by "
        f"{percent:.{0 if abs(percent) >= 10 else 2}f} % (mean of the last {LEAST_VALIDATIONS} validations"
        f"{'; the signs of held-out captions cannot be known' if of_trained else ''})"
    )
    evidence = (Evidence(gap_tag, int(steps[-1]), float(gap[-1])), Evidence(loss_tag, int(steps[-1]), float(loss[-1])))
    sensitivity = history.series(SENSITIVITY_TAG).finite()
    sampled = f", and {SENSITIVITY_TAG} is {sensitivity.values[-1]:.2f}" if len(sensitivity) else ""
    support = (last_point(sensitivity),) if len(sensitivity) else ()
    retrieved = _retrieval(history)
    if isinstance(retrieved, Retrieval):
        sampled += f"; {retrieved.figures}"
        if retrieved.way >= FOUND:  # a small gap may be that of a small hand in a large picture
            return Healthy(f"{figures[0].lower()}{figures[1:]}{sampled}.")
    if share_of_loss < SMALL_GAP:
        explanation = f"{figures}; {100 * SMALL_GAP:.0f} % is the least that counts as reading{sampled}."
        return Finding("problem", "The model ignores the text.", explanation, (*evidence, *support), REMEDY_IGNORED)
    by_chance = isinstance(retrieved, Retrieval) and retrieved.way < FOUND_BY_CHANCE
    if isinstance(retrieved, Retrieval) and by_chance:
        support = (*support, *retrieved.evidence)
    if by_chance or (support and support[0].value < LOW_SENSITIVITY):
        verdict = "The loss depends on the text, but generated clips hardly do."
        remedy = "Raise GUIDANCE_SCALE, widen GUIDANCE_INTERVAL, train longer (MAX_STEPS), or lower EMA_DECAY."
        return Finding("warning", verdict, f"{figures}{sampled}.", (*evidence, *support), remedy)
    return Healthy(f"{figures[0].lower()}{figures[1:]}{sampled}.")


@dataclass(frozen=True)
class Retrieval:
    """How often the nearest real clip of a sampled one has the caption that was asked for, where the data can tell."""

    steps: NDArray[numpy.int64]  # [N], one at least
    top1: NDArray[numpy.float64]  # [N]
    way: float  # of the latest, from chance, 0, to real clips, 1
    figures: str
    evidence: tuple[Evidence, ...]


def _retrieval(history: ScalarHistory) -> Retrieval | Unknown:
    steps, (top1, ceiling, floor) = aligned(history, TOP1_TAG, TOP1_CEILING_TAG, TOP1_FLOOR_TAG)
    if not len(steps):
        return Unknown(f"{NEEDS_SAMPLES} and {TOP1_TAG}, which needs clips of different captions.")
    step = int(steps[-1])
    way = way_to_real(float(top1[-1]), float(ceiling[-1]), float(floor[-1]))
    if way is None:
        return Unknown(
            f"This data set cannot tell: of real clips {_percent(ceiling[-1])} are nearest to one of the same caption, "
            f"and {_percent(floor[-1])} would be by chance."
        )
    figures = (
        f"{_percent(top1[-1])} of generated clips are nearest to a real one of their caption at step {step}; of real "
        f"clips {_percent(ceiling[-1])}, by chance {_percent(floor[-1])}"
    )
    named = ((TOP1_TAG, top1), (TOP1_CEILING_TAG, ceiling), (TOP1_FLOOR_TAG, floor))
    evidence = tuple(Evidence(tag, step, float(values[-1])) for tag, values in named)
    return Retrieval(steps, top1, way, figures, evidence)


def misread(history: ScalarHistory, config: Constants) -> Opinion:
    """Clips that are nearer to real ones of other captions."""
    retrieved = _retrieval(history)
    if isinstance(retrieved, Unknown):
        return retrieved
    if retrieved.way >= FOUND:
        return Healthy(f"{retrieved.figures}.")
    if len(retrieved.steps) == 1 or retrieved.top1[-1] > retrieved.top1[-2] + STILL_RISING:
        return Unknown(f"What the captions look like is still being learned: {retrieved.figures}.")
    return Finding(
        "warning",
        "Generated clips show other signs than they were asked for, and that no longer gets better.",
        f"{retrieved.figures}. At the sampling point before it were {_percent(retrieved.top1[-2])}.",
        retrieved.evidence,
        "Look at 12_Generated_Samples/Real_And_Generated. If hands dissolve, see what is said of them; "
        "otherwise train longer (MAX_STEPS, MAX_MINUTES), or raise GUIDANCE_SCALE.",
    )


RATE_TAG = "12_Generated_Samples/Letter_Error_Rate"
CEILING_TAG = "12_Generated_Samples/Real_Ceiling"
FLOOR_TAG = "12_Generated_Samples/Shuffled_Floor"

ABOVE_CEILING = 0.1  # as many errors as that more than in real clips are few; ten points are the default run's goal
STILL_FALLING = 0.05  # less than at the sampling point before: the model is learning to spell
STILL_RISING = 0.05  # more than then


def misspelled(history: ScalarHistory, config: Constants) -> Opinion:
    """Letters that a recogniser of real ones cannot read."""
    steps, (rate, ceiling, floor) = aligned(history, RATE_TAG, CEILING_TAG, FLOOR_TAG)
    if not len(steps):
        return Unknown(
            "It needs finger-spelling data and a recogniser (ENABLE_VIDEO_LOGGING, RECOGNISER_STEPS above 0, "
            "SAMPLE_EVERY_STEPS)."
        )
    step = int(steps[-1])
    of_real = Evidence(CEILING_TAG, step, float(ceiling[-1]))
    if of_real.value > READS_REAL_CLIPS:
        return Finding(
            "warning",
            "The recogniser misreads real clips, so what it says of generated ones means little.",
            f"It misses {_percent(of_real.value)} of real letters; {_percent(READS_REAL_CLIPS)} are the limit.",
            (of_real,),
            "Raise RECOGNISER_STEPS; where letters have too few frames, raise MAX_FRAMES or lower MAX_WORD_LETTERS.",
        )
    figures = (
        f"{_percent(rate[-1])} of the letters are misread at step {step}; of real clips {_percent(ceiling[-1])}, "
        f"against other words {_percent(floor[-1])}"
    )
    if rate[-1] - ceiling[-1] <= ABOVE_CEILING:
        return Healthy(f"{figures}.")
    if len(steps) == 1 or rate[-1] < rate[-2] - STILL_FALLING:
        return Unknown(f"Spelling is still being learned: {figures}.")
    evidence = tuple(Evidence(tag, step, float(values[-1])) for tag, values in ((RATE_TAG, rate), (FLOOR_TAG, floor)))
    return Finding(
        "warning",
        "Generated letters are misread, and that no longer gets better.",
        f"{figures}. At the sampling point before it were {_percent(rate[-2])}.",
        (*evidence, of_real),
        "Train longer (MAX_STEPS, MAX_MINUTES) and let the learning rate fall later; raise GUIDANCE_SCALE. `python -m "
        "evaluation --run FOLDER --output report.json` tells which letters are misread, and as what.",
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


MOTION_TAG = "12_Generated_Samples/Motion_Energy_Ratio"
SHARPNESS_TAG = "12_Generated_Samples/Sharpness_Ratio"
MOVING_TAG = "12_Generated_Samples/Moving_Sharpness_Ratio"

# Both measures are generated divided by real, so 1 is right. Motion varies more from prompt to prompt than sharpness
# does, so its bounds are wider. Grain counts as motion and as sharpness; blur takes both away.
BLURRED = 0.6

NEEDS_SAMPLES = "It needs generated clips (ENABLE_VIDEO_LOGGING, SAMPLE_EVERY_STEPS)"


def frozen_samples(history: ScalarHistory, config: Constants) -> Opinion:
    """Clips that hardly move."""
    motion = _too_low(history, MOTION_TAG, STILL, RESTLESS)
    if not isinstance(motion, Evidence):
        return motion
    explanation = f"At step {motion.step} they have {_of_real(motion)}; 1 is right, below {STILL} is still."
    remedy = (
        "Train longer (MAX_STEPS); raise NOISE_SCHEDULE_SHIFT, for motion is decided in much noise. Look at "
        "07_Noise_Analysis/Video_Frozen_Frame_Percent: data that stands still teaches that, and so do more MAX_FRAMES "
        "than the source clips have."
    )
    return Finding("problem", "Generated clips hardly move.", explanation, (motion,), remedy)


def blurred_samples(history: ScalarHistory, config: Constants) -> Opinion:
    """Clips without fine detail."""
    sharpness = _too_low(history, SHARPNESS_TAG, BLURRED, GRAINY)
    if not isinstance(sharpness, Evidence):
        return sharpness
    explanation = f"At step {sharpness.step} they have {_of_real(sharpness)}; 1 is right, below {BLURRED} is blurred."
    remedy = (
        "Train longer (MAX_STEPS); raise SAMPLING_STEPS or GUIDANCE_SCALE; lower NOISE_SCHEDULE_SHIFT, for detail is "
        "learned where there is little noise; with a short run lower EMA_DECAY."
    )
    return Finding("warning", "Generated clips are blurred.", explanation, (sharpness,), remedy)


def _too_low(history: ScalarHistory, tag: str, least: float, most: float) -> Evidence | Opinion:
    """Return the newest ratio to real clips if it is below `least`, otherwise what there is to say about it."""
    point = _latest(history, tag)
    if point is None:
        return Unknown(f"{NEEDS_SAMPLES} and {tag}.")
    if point.value > most:
        return Unknown(f"Grain hides what is behind it ({_of_real(point)} at step {point.step}).")
    return point if point.value < least else Healthy(f"generated clips have {_of_real(point)} (step {point.step}).")


def dissolving_hands(history: ScalarHistory, config: Constants) -> Opinion:
    """Haze where real hands move, in clips that are as sharp as real ones elsewhere."""
    moving, whole, motion = (_latest(history, tag) for tag in (MOVING_TAG, SHARPNESS_TAG, MOTION_TAG))
    if moving is None:
        return Unknown(f"{NEEDS_SAMPLES} and {MOVING_TAG}; this data set cannot tell if its real clips do not move.")
    if whole is not None and whole.value > GRAINY:
        return Unknown(f"Grain hides what is behind it ({_of_real(whole)} at step {whole.step}).")
    if motion is not None and motion.value < STILL:
        return Unknown(f"What hardly moves cannot dissolve ({_of_real(motion)} at step {motion.step}).")
    figures = f"what moves has {_of_real(moving)} at step {moving.step}"
    if moving.value >= HAZY:
        return Healthy(f"{figures}.")
    if whole is not None and whole.value < BLURRED:
        return Unknown(f"The whole picture is blurred ({_of_real(whole)} at step {whole.step}), not hands alone.")
    of_whole = "" if whole is None else f", and the whole picture {_of_real(whole)}"
    return Finding(
        "warning",
        "Hands dissolve where they move.",
        f"In generated clips {figures}{of_whole}; 1 is right, below {HAZY} is haze.",
        (moving,) if whole is None else (moving, whole),
        "Give hands more pixels: CLIP_FIT signer, a larger IMAGE_SIZE, a smaller PATCH_SIZE. Then train longer "
        "(MAX_STEPS): hands are learned after clothes and walls, which make up most of the loss.",
    )


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
        figures = " and ".join(f"{_of_real(point)} at step {point.step}" for point, _ in known)
        return Healthy(f"generated clips have {figures}.")
    figures = " and ".join(
        f"{_of_real(point)} at step {point.step} (1 is right, {limit:g} the limit)" for point, limit in too_high
    )
    remedy = (
        "Train longer (MAX_STEPS, MAX_MINUTES): this is grain that an undertrained model leaves. If "
        "12_Generated_Samples/Raw_Weights is cleaner, lower EMA_DECAY; otherwise lower SAMPLING_STEPS, "
        "for every step leaves some grain, or GUIDANCE_SCALE."
    )
    evidence = tuple(point for point, _ in too_high)
    return Finding("warning", "Generated clips are noisy.", f"They have {figures}.", evidence, remedy)


def _latest(history: ScalarHistory, tag: str) -> Evidence | None:
    series = history.series(tag).finite()
    return last_point(series) if len(series) else None


def _of_real(point: Evidence) -> str:
    what = "motion" if point.tag == MOTION_TAG else "sharpness"
    return f"{point.value:.2f} times the {what} of real ones"


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
        have = counted(len(validation), "validation")
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
