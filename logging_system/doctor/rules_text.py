"""Does the text decide what is signed, and can the generated letters be read?"""

from logging_system.doctor.finding import (
    Constants,
    Evidence,
    Finding,
    Healthy,
    Opinion,
    Unknown,
    aligned,
    last_point,
    number,
    points,
)
from logging_system.files.scalar_history import ScalarHistory

LOSS_TAG = "02_Loss_Components/Validation/Loss"
GAP_TAG = "02_Loss_Components/Validation/Text_Gap_Shuffled"
TRAINED_LOSS_TAG = "02_Loss_Components/Validation/Trained_Loss"
TRAINED_GAP_TAG = "02_Loss_Components/Validation/Trained_Text_Gap_Shuffled"
BASELINE_TAG = "02_Loss_Components/Validation/Predict_Zero_Baseline"
SENSITIVITY_TAG = "12_Generated_Samples/Text_Sensitivity"

# A model learns to remove noise first and to read afterwards, so an early gap of 0 means nothing. By the time the error
# is at half of that of always answering 0, the default model reads: the gap is 26 percent of the loss at step 100, 73
# at step 200, 130 at the end. With captions that belong to other clips it stays at about 0.1 percent.
LEARNED_SHARE_OF_ZERO = 0.5
VALIDATIONS = 3
LEAST_STEPS = 150  # after the warm-up, however fast noise removal was learned
SMALL_GAP = 0.02
# Text_Sensitivity is near 0 where the text is ignored and above 1 where it decides.
LOW_SENSITIVITY = 0.2

REMEDY = (
    "Check first that each caption in DATA_ROOT belongs to its clip (12_Generated_Samples/Real_And_Generated shows "
    "pairs). Then: CAPTION_DROPOUT near 0.1; more sizes in SPATIAL_ATTENTION_SIZES, where the text is read; "
    "NOISE_SCHEDULE_SHIFT above 1, for in noisy clips only the text tells; a longer run (MAX_STEPS)."
)


def text_ignored(history: ScalarHistory, config: Constants) -> Opinion:
    """A loss that hardly cares whose caption it is shown: of training clips where no other caption can be known."""
    of_trained = _asks_for_unknown_words(history)
    what = "loss of training clips" if of_trained else "validation loss"
    loss_tag, gap_tag = (TRAINED_LOSS_TAG, TRAINED_GAP_TAG) if of_trained else (LOSS_TAG, GAP_TAG)
    steps, (loss, gap, zero) = aligned(history, loss_tag, gap_tag, BASELINE_TAG)
    if len(steps) < VALIDATIONS:
        have = points(len(steps), "validation")
        if not len(steps) and len(history.series(loss_tag)):
            return Unknown("All clips have the same caption, so that none can be exchanged for another one.")
        return Unknown(
            f"It needs {VALIDATIONS} validations with different captions; so far {have} (VALIDATE_EVERY_STEPS)."
        )
    if loss[-1] <= 0 or loss[-1] > LEARNED_SHARE_OF_ZERO * zero[-1]:
        share = f"{100 * loss[-1] / zero[-1]:.0f} %" if zero[-1] > 0 else "above all"
        return Unknown(
            f"The model must learn to remove noise first: its {what} is {share} of that of always answering "
            f"0, and {100 * LEARNED_SHARE_OF_ZERO:.0f} % or less is needed.",
        )
    needed = (number(config, "LR_WARMUP_STEPS") or 0.0) + LEAST_STEPS
    if steps[-1] < needed:
        return Unknown(f"Reading is learned late: it needs {needed:.0f} steps (LR_WARMUP_STEPS, {LEAST_STEPS} more).")
    share_of_loss = float(gap[-VALIDATIONS:].mean() / loss[-VALIDATIONS:].mean())
    percent = 100 * share_of_loss
    figures = (
        f"Another clip's caption raises the {what if of_trained else 'loss'} by "
        f"{percent:.{0 if abs(percent) >= 10 else 2}f} % (mean of the last {VALIDATIONS} validations"
        f"{'; the signs of held-out captions cannot be known' if of_trained else ''})"
    )
    evidence = (Evidence(gap_tag, int(steps[-1]), float(gap[-1])), Evidence(loss_tag, int(steps[-1]), float(loss[-1])))
    sensitivity = history.series(SENSITIVITY_TAG).finite()
    sampled = f", and {SENSITIVITY_TAG} is {sensitivity.values[-1]:.2f}" if len(sensitivity) else ""
    support = (last_point(sensitivity),) if len(sensitivity) else ()
    if share_of_loss < SMALL_GAP:
        explanation = f"{figures}; {100 * SMALL_GAP:.0f} % is the least that counts as reading{sampled}."
        return Finding("problem", "The model ignores the text.", explanation, (*evidence, *support), REMEDY)
    if support and support[0].value < LOW_SENSITIVITY:
        verdict = "The loss depends on the text, but generated clips hardly do."
        remedy = "Raise GUIDANCE_SCALE, widen GUIDANCE_INTERVAL, train longer (MAX_STEPS), or lower EMA_DECAY."
        return Finding("warning", verdict, f"{figures}{sampled}.", (*evidence, *support), remedy)
    return Healthy(f"{figures[0].lower()}{figures[1:]}{sampled}.")


def _asks_for_unknown_words(history: ScalarHistory) -> bool:
    """Return whether the newest validation also measured training clips; a resumed run may have other clips."""
    newest = history.series(LOSS_TAG).steps
    of_trained = history.series(TRAINED_LOSS_TAG).steps
    return len(newest) > 0 and len(of_trained) > 0 and bool(of_trained[-1] >= newest[-1])


RATE_TAG = "12_Generated_Samples/Letter_Error_Rate"
CEILING_TAG = "12_Generated_Samples/Real_Ceiling"
FLOOR_TAG = "12_Generated_Samples/Shuffled_Floor"

READS_REAL_CLIPS = 0.1  # errors in real clips beyond which the recogniser has nothing to say about generated ones
ABOVE_CEILING = 0.1  # as many errors as that more than in real clips are few; ten points are the default run's goal
STILL_FALLING = 0.05  # less than at the sampling point before: the model is learning to spell


def misspelled(history: ScalarHistory, config: Constants) -> Opinion:
    """Letters that a recogniser of real ones cannot read."""
    steps, (rate, ceiling, floor) = aligned(history, RATE_TAG, CEILING_TAG, FLOOR_TAG)
    if not len(steps):
        return Unknown(
            "It needs finger-spelling data and a recogniser (ENABLE_VIDEO_LOGGING, RECOGNISER_STEPS above 0, "
            "SAMPLE_EVERY_STEPS).",
        )
    step = int(steps[-1])
    of_real = Evidence(CEILING_TAG, step, float(ceiling[-1]))
    if of_real.value > READS_REAL_CLIPS:
        return Finding(
            "warning",
            "The recogniser misreads real clips, so what it says of generated ones means little.",
            f"It misses {_percent(of_real.value)} of real letters; {_percent(READS_REAL_CLIPS)} are the limit.",
            (of_real,),
            "Raise RECOGNISER_STEPS; where letters have too few frames, raise NUM_FRAMES or lower MAX_WORD_LETTERS.",
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
