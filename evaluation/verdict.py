"""What the figures of an evaluation say, in words."""

from common.limits import COPIED, FOUND, FOUND_BY_CHANCE, GRAINY, HAZY, RESTLESS, STILL, way_to_real
from evaluation.clips import Figures

RIGHT = "Clips show what was asked for."
FEWEST_CAPTIONS = 5
"""Of n that are all right, 3 / n may be wrong in truth (95 %); 1 / n is right by chance, which is less from 5 on."""

CANNOT_TELL = "This data set cannot tell whether clips show what was asked for"


def verdicts(figures: Figures, captions: int) -> list[str]:
    """Return what is wrong; one sentence, with what it rests on, for each.

    `captions`: how many were asked for.
    """
    value = {name: figure.value for name, figure in figures.items() if figure is not None}
    found: list[str] = []
    motion, sharp = value.get("motion_energy_ratio"), value.get("sharpness_ratio")
    if motion is not None and motion < STILL:
        found.append(f"Clips hardly move: they have {motion:.2f} times the motion of real ones.")
    limits = [(motion, RESTLESS, "motion"), (sharp, GRAINY, "sharpness")]
    noisy = [f"{ratio:.2f} times the {what}" for ratio, most, what in limits if ratio is not None and ratio > most]
    if noisy:
        found.append(f"Clips are noisy: they have {' and '.join(noisy)} of real ones.")
    found += _retrieval(figures, captions)
    moving = value.get("moving_sharpness_ratio")
    if moving is not None and moving < HAZY and (motion is None or motion >= STILL):
        found.append(f"Hands dissolve: what moves has {moving:.2f} times the sharpness of real clips.")
    copied = value.get("memorisation")
    if copied is not None and copied >= COPIED:
        found.append(f"Clips are copies: {copied:.0%} are nearer to a training clip than nearly all unseen real ones.")
    return found or [RIGHT]


def _retrieval(figures: Figures, captions: int) -> list[str]:
    top1, ceiling, floor = (figures.get(f"retrieval_{name}") for name in ("top1", "real_ceiling", "shuffled_floor"))
    if top1 is None or ceiling is None or floor is None or captions < FEWEST_CAPTIONS:
        return [f"Too few captions to tell whether clips show what was asked for: it takes {FEWEST_CAPTIONS}."]
    shares = [figure.value for figure in (top1, ceiling, floor)]
    rates = "{:.0%} are nearest to a clip of their caption; of real ones {:.0%}, by chance {:.0%}".format(*shares)
    way = way_to_real(*shares)
    is_chance = ceiling.low is None or floor.high is None or ceiling.low <= floor.high
    if way is None or is_chance:
        few = "; more captions may tell" if way is not None else ""
        return [f"{CANNOT_TELL}: {rates}{few}."]
    if way < FOUND_BY_CHANCE:
        return [f"The text is ignored: {rates}."]
    return [f"Clips often show something else than was asked for: {rates}."] if way < FOUND else []
