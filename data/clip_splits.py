"""Which clips are trained on and which are held out."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from common.errors import UserError
from common.randomness import derive_seed
from data.clip_reader import InspectedClip

SplitBy = Literal["auto", "signer", "caption"]
MOST_OVERSHOOT = 2.0  # a signer who would bring the held-out share above this many times the wanted one is passed by


@dataclass(frozen=True)
class ClipSplit:
    """The parts of a data set."""

    training: tuple[InspectedClip, ...]
    validation: tuple[InspectedClip, ...]
    test: tuple[InspectedClip, ...]  # neither trained nor validated on
    rule: str  # for people: how it was divided
    is_shared: bool = False  # the validation clips are training clips, because nothing could be held out


def split_clips(clips: Sequence[InspectedClip], split_by: SplitBy, fraction: float, seed: int) -> ClipSplit:
    """Divide clips as their data set says, or else so that no signer, or no caption, is on both sides.

    Args:
        clips: at least one.
        split_by: "auto" takes what the data set says; else signers where every clip names one and there are two at
            least; else captions.
        fraction: share that is held out: of the clips, by whole signers; or of the different captions.
        seed: decides which.

    Raises:
        UserError: signers are asked for and not known, or the data set leaves nothing to train on.
    """
    if split_by == "auto" and any(clip.row.split is not None for clip in clips):
        return _as_given(clips, fraction, seed)
    if split_by == "signer" or (split_by == "auto" and _names_signers(clips)):
        return _by_signer(clips, fraction, seed)
    return _by_caption(clips, fraction, seed)


def unseen_words_notice(split: ClipSplit) -> tuple[str, ...]:
    """Say so where validation asks for words that no training caption has; none otherwise.

    A sign cannot be guessed from the word for it, as a finger-spelled word can be from its letters.
    """
    trained = {word for clip in split.training for word in clip.row.caption.casefold().split()}
    held_out = {word for clip in split.validation for word in clip.row.caption.casefold().split()}
    if held_out & trained:
        return ()
    return (
        "no word of the validation captions occurs in a training caption. Unless the clips are finger-spelled, no "
        "model can know these signs, and the validation loss and its text gap say little: look at the samples of "
        "training captions, or bring several clips of each caption and their signers (SPLIT_BY=signer)",
    )


def hash_order(clips: Sequence[InspectedClip], seed: int) -> tuple[InspectedClip, ...]:
    """Return clips in an order that depends on the seed and their names alone."""
    return tuple(sorted(clips, key=lambda clip: (derive_seed(seed, f"validation_clip/{clip.row.id}"), clip.row.id)))


def _names_signers(clips: Sequence[InspectedClip]) -> bool:
    signers = {clip.row.signer for clip in clips}
    return None not in signers and len(signers) >= 2


def _as_given(clips: Sequence[InspectedClip], fraction: float, seed: int) -> ClipSplit:
    def part(*names: str | None) -> tuple[InspectedClip, ...]:
        return tuple(clip for clip in clips if clip.row.split in names)

    training, validation, test = part("training", None), part("validation"), part("test")
    if not training:
        raise UserError(
            f"the data set gives all of its {len(clips)} usable clips to validation or test, and none to training. Add "
            "training clips, or set SPLIT_BY to caption or signer to divide these."
        )
    if validation:
        return ClipSplit(training, validation, test, "as the data set gives them")
    derived = _by_caption(training, fraction, seed)
    rule = f"training and test as the data set gives them, and of the training clips {derived.rule}"
    return ClipSplit(derived.training, derived.validation, test, rule, derived.is_shared)


def _by_signer(clips: Sequence[InspectedClip], fraction: float, seed: int) -> ClipSplit:
    if not _names_signers(clips):
        known = len({clip.row.signer for clip in clips} - {None})
        nameless = sum(clip.row.signer is None for clip in clips)
        raise UserError(
            f"SPLIT_BY=signer needs a signer for every clip, and two signers at least: {known} are named, and "
            f"{nameless} clips name none. Name them (SIGNER_FROM_FILE_NAME, or a column `signer`), or set SPLIT_BY to "
            "caption."
        )
    held_out = _held_out_signers(clips, fraction, seed)
    return ClipSplit(
        training=tuple(clip for clip in clips if clip.row.signer not in held_out),
        validation=tuple(clip for clip in clips if clip.row.signer in held_out),
        test=(),
        rule=f"by signer: {', '.join(sorted(held_out)[:5])}{' ...' if len(held_out) > 5 else ''} held out",
    )


def _held_out_signers(clips: Sequence[InspectedClip], fraction: float, seed: int) -> frozenset[str]:
    """Return signers in hash order until they have the wanted share of the clips; one at least stays for training."""
    sizes = Counter(str(clip.row.signer) for clip in clips)
    order = sorted(sizes, key=lambda signer: derive_seed(seed, f"validation_signer/{signer}"))
    held_out: list[str] = []
    for signer in order:
        share = sum(sizes[name] for name in held_out) / len(clips)
        if share >= fraction or len(held_out) == len(sizes) - 1:
            break
        if share + sizes[signer] / len(clips) <= MOST_OVERSHOOT * fraction:
            held_out.append(signer)
    return frozenset(held_out or [min(order, key=lambda signer: sizes[signer])])


def _by_caption(clips: Sequence[InspectedClip], fraction: float, seed: int) -> ClipSplit:
    """Hold out at least `fraction` of the captions, in hash order; one at least stays for training."""
    captions = sorted(
        {clip.row.caption for clip in clips}, key=lambda text: derive_seed(seed, f"validation_caption/{text}")
    )
    wanted = math.ceil(fraction * len(captions) - 1e-9)
    held_out = frozenset(captions[: min(wanted, len(captions) - 1)])
    training = tuple(clip for clip in clips if clip.row.caption not in held_out)
    if not held_out:
        return ClipSplit(training, training, (), "validation taken from the training clips: all captions agree", True)
    validation = tuple(clip for clip in clips if clip.row.caption in held_out)
    return ClipSplit(training, validation, (), f"by caption: {len(held_out)} of {len(captions)} captions held out")
