"""Can the generated letters be read?"""

from logging_system.doctor.finding import Constants, Evidence, Finding, Healthy, Opinion, Unknown
from logging_system.doctor.reading import aligned
from logging_system.files.scalar_history import ScalarHistory

RATE_TAG = "12_Generated_Samples/Letter_Error_Rate"
CEILING_TAG = "12_Generated_Samples/Real_Ceiling"
FLOOR_TAG = "12_Generated_Samples/Shuffled_Floor"

READS_REAL_CLIPS = 0.1  # errors in real clips beyond which the recogniser has nothing to say about generated ones
ABOVE_CEILING = 0.1  # as many errors as that more than in real clips are few; ten points are the default run's goal
STILL_FALLING = 0.05  # less than at the sampling point before: the model is learning to spell


def misspelled(history: ScalarHistory, config: Constants) -> Opinion:
    """Letters that a recogniser of real ones cannot read."""
    rule = "Misspelled"
    steps, (rate, ceiling, floor) = aligned(history, RATE_TAG, CEILING_TAG, FLOOR_TAG)
    if not len(steps):
        return Unknown(
            rule,
            "It needs finger-spelling data and a recogniser (ENABLE_VIDEO_LOGGING, RECOGNISER_STEPS above 0, "
            "SAMPLE_EVERY_STEPS).",
        )
    step = int(steps[-1])
    of_real = Evidence(CEILING_TAG, step, float(ceiling[-1]))
    if of_real.value > READS_REAL_CLIPS:
        return Finding(
            rule,
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
        return Healthy(rule, f"{figures}.")
    if len(steps) == 1 or rate[-1] < rate[-2] - STILL_FALLING:
        return Unknown(rule, f"Spelling is still being learned: {figures}.")
    evidence = tuple(Evidence(tag, step, float(values[-1])) for tag, values in ((RATE_TAG, rate), (FLOOR_TAG, floor)))
    return Finding(
        rule,
        "warning",
        "Generated letters are misread, and that no longer gets better.",
        f"{figures}. At the sampling point before it were {_percent(rate[-2])}.",
        (*evidence, of_real),
        "Train longer (MAX_STEPS, MAX_MINUTES) and let the learning rate fall later; raise GUIDANCE_SCALE. `python -m "
        "evaluation --run FOLDER --output report.json` tells which letters are misread, and as what.",
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
