"""What the figures of an evaluation say, in words."""

from common.limits import COPIED, FOUND, FOUND_BY_CHANCE, HAZY, STILL, way_to_real
from evaluation.clips import Figures

RIGHT = "Clips show what was asked for."
CANNOT_TELL = "This data set cannot tell whether clips show what was asked for"


def verdicts(figures: Figures) -> list[str]:
    """Return what is wrong, the gravest first; one sentence, with what it rests on, for each."""
    value = {name: figure.value for name, figure in figures.items() if figure is not None}
    found: list[str] = []
    motion, sharp = value.get("motion_energy_ratio"), value.get("moving_sharpness_ratio")
    if motion is not None and motion < STILL:
        found.append(f"Clips hardly move: they have {motion:.2f} times the motion of real ones.")
    names = [f"retrieval_{name}" for name in ("top1", "real_ceiling", "shuffled_floor")]
    if any(name not in value for name in names):
        found.append(f"{CANNOT_TELL}: it takes two captions with real clips.")
    else:
        top1, ceiling, floor = (value[name] for name in names)
        rates = f"{top1:.0%} are nearest to a clip of their caption; of real ones {ceiling:.0%}, by chance {floor:.0%}"
        way = way_to_real(top1, ceiling, floor)
        if way is None:
            found.append(f"{CANNOT_TELL}: {rates}.")
        elif way < FOUND_BY_CHANCE:
            found.append(f"The text is ignored: {rates}.")
        elif way < FOUND:
            found.append(f"Clips often show something else than was asked for: {rates}.")
    if sharp is not None and sharp < HAZY:
        found.append(f"Hands dissolve: what moves has {sharp:.2f} times the sharpness of real clips.")
    copied = value.get("memorisation")
    if copied is not None and copied >= COPIED:
        found.append(f"Clips are copies: {copied:.0%} are nearer to a training clip than nearly all unseen real ones.")
    return found or [RIGHT]
