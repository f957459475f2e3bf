"""Which clips are trained on and which are held out."""

import dataclasses
import unicodedata
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeVar

from common.console import counted
from common.errors import UserError
from common.randomness import derive_seed
from data.captions import caption_words
from data.inspection import InspectedClip
from data.rows import Notice, TimeSpan

SplitBy = Literal["auto", "signer", "caption"]

MOST_OVERSHOOT = 2.0  # signers who would bring the held-out share above this multiple of the wanted one are skipped
LEAST_CAPTIONS = 3
NAMED_SIGNERS = 5
LARGEST_SEED = 2**63  # of derive_seed

Thing = TypeVar("Thing")


@dataclass(frozen=True)
class ClipSplit:
    """The parts of a data set, each in the order of its clips' ids: an order of files or lines means nothing."""

    training: tuple[InspectedClip, ...]
    held_out: tuple[InspectedClip, ...]  # of which `validation_clips` are validated on
    test: tuple[InspectedClip, ...]  # as the data set gives it: neither trained nor validated on
    rule: str  # for people: how it was divided
    is_shared: bool = False  # nothing could be held out: validation is on training clips
    left_out: tuple[InspectedClip, ...] = ()  # given as validation or test, but a training clip shows the same
    nameless: tuple[InspectedClip, ...] = ()  # clips without a signer, because of which captions were held out instead
    shared: tuple[InspectedClip, ...] = ()  # such as show the same with two signers, because of which they were
    spellings: tuple[tuple[str, ...], ...] = ()  # of each signer who has several, where signers matter

    @cached_property
    def unknown_captions(self) -> tuple[int, int]:
        """How many of the different held-out captions cannot be known, and how many there are.

        Those of whose words half or more are in no training caption: "the cat" is as unknown as "cat" where all
        captions are like that.
        """
        trained = frozenset[str]().union(*(caption_words(clip.row.caption) for clip in self.training))
        held_out = {caption_key(clip.row.caption): caption_words(clip.row.caption) for clip in self.held_out}
        return sum(len(words - trained) >= max(1, len(words) / 2) for words in held_out.values()), len(held_out)


def split_clips(
    clips: Sequence[InspectedClip],
    split_by: SplitBy,
    fraction: float,
    seed: int,
    read: Callable[[str], Hashable] = lambda caption: caption,
    *,
    are_signs: bool = False,
) -> ClipSplit:
    """Divide clips as their data set says, or otherwise so that no signer, or no caption, is on both sides.

    Either way no pictures are on both sides. Test clips stay test clips.

    Args:
        clips: at least one.
        split_by: "auto" takes the validation clips that the data set gives; without any, signers, if every clip names
            one, there are two, and what clips show does not join them all; otherwise captions.
        fraction: share that is held out: of the clips, by complete signers; or, about, of the captions.
        seed: decides which.
        read: what the model gets for a caption. Captions that are one to it are on the same side.
        are_signs: sentences of the captions are held out, so that no caption is. Clips are held out where the data set
            gives them or by signer, of captions that training clips have too.

    Raises:
        UserError: signers are asked for and not known, or the data set leaves nothing to train on.
    """
    ordered = sorted(clips, key=lambda clip: clip.row.id)
    test = tuple(clip for clip in ordered if clip.row.split == "test")
    rest = tuple(clip for clip in ordered if clip.row.split != "test")
    given = tuple(clip for clip in rest if clip.row.split == "validation") if split_by == "auto" else ()
    training = tuple(clip for clip in rest if clip.row.split != "validation") if given else rest
    if not training:
        raise UserError(
            f"the data set gives {counted(len(clips), 'usable clip')}, all to validation or test and none to training. "
            "Add training clips."
        )
    if given:
        split = ClipSplit(training, given, test, "as the data set gives them")
    elif split_by == "signer" or (split_by == "auto" and _names_signers(training)):
        split = _by_signer(training, fraction, seed)
        if split.is_shared and split_by == "auto":
            split = _all_signs(training) if are_signs else _by_caption(training, fraction, seed, read)
            split = dataclasses.replace(split, shared=() if are_signs else _shared_by_signers(training))
    elif are_signs:
        split = _all_signs(training)
    else:
        split = _by_caption(training, fraction, seed, read)
        named = tuple(clip for clip in training if clip.row.signer is not None)
        if split_by == "auto" and _names_signers(named):
            nameless = tuple(clip for clip in training if clip.row.signer is None)
            split = dataclasses.replace(split, nameless=nameless)
    if not given and split_by != "caption":
        groups = (tuple(sorted(group)) for group in _spellings(training))
        split = dataclasses.replace(split, spellings=tuple(sorted(group for group in groups if len(group) > 1)))
    if are_signs and not split.is_shared:
        known = {read(caption_key(clip.row.caption)) for clip in split.training}
        held_out = tuple(clip for clip in split.held_out if read(caption_key(clip.row.caption)) in known)
        split = dataclasses.replace(split, held_out=held_out)
    return _without_trained(dataclasses.replace(split, test=test))


def _all_signs(clips: tuple[InspectedClip, ...]) -> ClipSplit:
    return ClipSplit(clips, (), (), "all signs are trained on, and sentences held out")


def hash_order(clips: Sequence[InspectedClip], seed: int) -> tuple[InspectedClip, ...]:
    """Return clips in an order that depends on the seed and their names alone."""
    return tuple(sorted(clips, key=lambda clip: (derive_seed(seed, f"validation_clip/{clip.row.id}"), clip.row.id)))


def split_notices(split: ClipSplit) -> tuple[Notice, ...]:
    """Return what a split cannot do, for people."""
    notices = []
    if split.left_out:
        count, copy = len(split.left_out), split.left_out[0]
        trained = next(clip.row.id for clip in split.training if content_key(clip) == content_key(copy))
        notices.append(
            f"{counted(count, 'validation or test clip shows', 'validation or test clips show')} the same as a "
            f"training clip and {'is left out:' if count == 1 else 'are left out, such as'} {copy.row.id} "
            f"(as {trained})"
        )
    if split.nameless:
        count, first = len(split.nameless), split.nameless[0].row.id
        who = f"{first} names" if count == 1 else f"{counted(count, 'clip')}, such as {first}, name"
        notices.append(
            f"{who} no signer, so captions are held out and not signers: name all of them (SIGNER_FROM_FILE_NAME, or a "
            "column `signer`), or set SPLIT_BY to caption"
        )
    if split.shared and not split.is_shared:
        one, other = (f"{clip.row.id} of {clip.row.signer}" for clip in split.shared[:2])
        notices.append(
            f"clips that show the same join all signers, such as {one} and {other}, so captions are held out and not "
            "signers: correct the signers or take one of such clips away, or set SPLIT_BY to caption"
        )
    if split.spellings:
        *names, last = split.spellings[0]
        more = f", and {len(split.spellings) - 1} more likewise" if len(split.spellings) > 1 else ""
        notices.append(f"{', '.join(names)} and {last} count as one signer{more}: write a name in one way")
    if asks_for_unknown_words(split):
        unknown, held_out = split.unknown_captions
        notices.append(
            f"half or more of the words in {unknown} of {held_out} held-out captions occur in no training "
            "caption: unless the clips are finger-spelled, no model can know these signs, and validation says little; "
            "whether the text is used is measured on training clips too "
            "(02_Loss_Components/Validation/Trained_Text_Gap_Shuffled); where each clip shows one sign, "
            "COMPOSE_SIGNS=3 trains on all signs, in sentences of up to three, and holds out other sentences of them"
        )
    return tuple(Notice("split", notice) for notice in notices)


def asks_for_unknown_words(split: ClipSplit) -> bool:
    """Return whether, in most of the held-out captions, half or more of the words are in no training caption.

    A sign cannot be guessed from the word for it, as a finger-spelled word can be from its letters.
    """
    unknown, held_out = split.unknown_captions
    return unknown > held_out / 2


def captioned_differently(clips: Iterable[InspectedClip]) -> list[list[InspectedClip]]:
    """Return the groups of clips that show the same and have several captions."""
    groups: dict[Hashable, list[InspectedClip]] = {}
    for clip in clips:
        groups.setdefault(content_key(clip), []).append(clip)
    return [group for group in groups.values() if len({caption_key(clip.row.caption) for clip in group}) > 1]


def content_key(clip: InspectedClip) -> tuple[str, TimeSpan]:
    """Return what two clips with the same pictures have in common."""
    return clip.digest, clip.row.media.span


def caption_key(caption: str) -> str:
    """Return what captions have in common that read the same: the character encoder knows no capitals."""
    return caption.casefold()


def one_spelling(clips: Sequence[InspectedClip]) -> dict[str, str]:
    """Return the first spelling of each signer by all of them: capitals and the form of accents make no other one."""
    return {name: min(group) for group in _spellings(clips) for name in group}


@dataclass(frozen=True)
class Unit:
    """Some clips, and what names them."""

    names: tuple[str, ...]  # signers or captions, sorted
    clips: tuple[InspectedClip, ...]


def units_of(
    clips: Sequence[InspectedClip],
    name: Callable[[InspectedClip], str],
    other: Callable[[InspectedClip], Hashable] | None = None,
) -> tuple[Unit, ...]:
    """Put clips together that have the same name or show the same, or parts of a file that overlap; in order of names.

    A clip with two captions joins both, and so on. `other` tells what else clips may have in common.
    """
    parents = list(range(len(clips)))  # union and find

    def root(number: int) -> int:
        while parents[number] != number:
            parents[number] = parents[parents[number]]
            number = parents[number]
        return number

    for same in (*_by(clips, name), *_by(clips, other or name), *_overlapping(clips)):
        for index in same[1:]:
            parents[root(index)] = root(same[0])
    members = [[clips[index] for index in group] for group in _by(range(len(clips)), root)]
    units = [Unit(tuple(sorted(set(map(name, group)))), tuple(group)) for group in members]
    return tuple(sorted(units, key=lambda unit: unit.names))


def _by(things: Sequence[Thing], key: Callable[[Thing], Hashable]) -> Iterable[list[int]]:
    """Return the indices of the things with the same key."""
    groups: dict[Hashable, list[int]] = {}
    for index, thing in enumerate(things):
        groups.setdefault(key(thing), []).append(index)
    return groups.values()


def _overlapping(clips: Sequence[InspectedClip]) -> Iterable[list[int]]:
    """Yield the clips of each file whose spans overlap, directly or over others between them."""
    for same_file in _by(clips, lambda clip: clip.digest):
        run: list[int] = []
        until = 0.0
        for index in sorted(same_file, key=lambda index: clips[index].row.media.span.start):
            span = clips[index].row.media.span
            if run and span.start >= until:
                yield run
                run = []
            run.append(index)
            until = max(until, float("inf") if span.end is None else span.end)
        yield run


def _without_trained(split: ClipSplit) -> ClipSplit:
    """Leave out of validation and test what a training clip shows too."""
    if split.is_shared:
        return split
    trained = set(map(content_key, split.training))
    held_out = tuple(clip for clip in split.held_out if content_key(clip) not in trained)
    test = tuple(clip for clip in split.test if content_key(clip) not in trained)
    left_out = tuple(clip for clip in (*split.held_out, *split.test) if content_key(clip) in trained)
    if split.held_out and not held_out:
        raise UserError(
            f"{counted(len(split.held_out), 'validation clip')}, and each shows the same as a training clip, such as "
            f"{split.held_out[0].row.id}. Take them out of one of the two."
        )
    return dataclasses.replace(split, held_out=held_out, test=test, left_out=left_out)


def _spellings(clips: Sequence[InspectedClip]) -> Iterable[set[str]]:
    groups: dict[str, set[str]] = {}
    for name in {clip.row.signer for clip in clips if clip.row.signer is not None}:
        groups.setdefault(unicodedata.normalize("NFC", name).casefold(), set()).add(name)
    return groups.values()


def _names_signers(clips: Sequence[InspectedClip]) -> bool:
    return all(clip.row.signer is not None for clip in clips) and len(set(one_spelling(clips).values())) >= 2


def _shared_by_signers(clips: Sequence[InspectedClip]) -> tuple[InspectedClip, ...]:
    """Return some clips that show the same, or parts of a file that overlap, one of each signer."""
    names = one_spelling(clips)
    runs = ({names[str(clips[index].row.signer)]: clips[index] for index in run} for run in _overlapping(clips))
    return next((tuple(run.values()) for run in runs if len(run) > 1), ())


def _by_signer(clips: tuple[InspectedClip, ...], fraction: float, seed: int) -> ClipSplit:
    if not _names_signers(clips):
        known = len(set(one_spelling(clips).values()))
        nameless = sum(clip.row.signer is None for clip in clips)
        raise UserError(
            f"SPLIT_BY=signer needs a signer for every clip, and two signers at least: {counted(known, 'is', 'are')} "
            f"named, and {counted(nameless, 'clip names', 'clips name')} none. Name them (SIGNER_FROM_FILE_NAME, or a "
            "column `signer`), or set SPLIT_BY to caption."
        )
    signers = one_spelling(clips)
    units = units_of(clips, lambda clip: signers[str(clip.row.signer)])
    held_out = _signers_to_hold_out(units, len(clips), fraction, seed)
    names = [name for unit in held_out for name in unit.names]
    listed = ", ".join(names[:NAMED_SIGNERS]) + (" ..." if len(names) > NAMED_SIGNERS else "")
    return _divided(clips, units, held_out, f"by signer: {listed} held out")


def _signers_to_hold_out(units: Sequence[Unit], clips: int, fraction: float, seed: int) -> list[Unit]:
    """Return units in hash order until they have the wanted share of the clips; one at least stays for training."""
    order = sorted(units, key=_hash_of("signer", seed))
    held_out: list[Unit] = []
    for unit in order:
        share = sum(len(each.clips) for each in held_out) / clips
        if share >= fraction or len(held_out) == len(units) - 1:
            break
        if share + len(unit.clips) / clips <= MOST_OVERSHOOT * fraction:
            held_out.append(unit)
    if not held_out and len(units) > 1:
        held_out.append(min(order, key=lambda unit: len(unit.clips)))
    return held_out


def _by_caption(
    clips: tuple[InspectedClip, ...], fraction: float, seed: int, read: Callable[[str], Hashable]
) -> ClipSplit:
    """Hold out captions whose hash is below the fraction, so that a clip more or less moves no other caption.

    A few captions are held out in any case, because validation on a single one says nothing; and one at least stays
    for training.
    """
    units = units_of(clips, lambda clip: caption_key(clip.row.caption), lambda clip: read(clip.row.caption))
    order = sorted(units, key=_hash_of("caption", seed))
    below = sum(_hash_of("caption", seed)(unit) < fraction * LARGEST_SEED for unit in order)
    least = min(LEAST_CAPTIONS, max(1, len(order) // 4))
    held_out = order[: min(max(below, least), len(order) - 1)]
    captions = sum(len(unit.names) for unit in units)
    names = sum(len(unit.names) for unit in held_out)
    return _divided(clips, units, held_out, f"by caption: {names} of {counted(captions, 'caption')} held out")


def _hash_of(kind: str, seed: int) -> Callable[[Unit], int]:
    return lambda unit: derive_seed(seed, f"validation_{kind}/{unit.names[0]}")


def _divided(clips: tuple[InspectedClip, ...], units: Sequence[Unit], held_out: Sequence[Unit], rule: str) -> ClipSplit:
    if not held_out:
        why = (
            "there is one clip"
            if len(clips) == 1
            else "all clips have the same caption"
            if len({caption_key(clip.row.caption) for clip in clips}) == 1
            else "shared captions or pictures link all clips"
        )
        return ClipSplit(clips, clips, (), f"validation on training clips: {why}", True)
    ids = {clip.row.id for unit in held_out for clip in unit.clips}
    return ClipSplit(
        training=tuple(clip for clip in clips if clip.row.id not in ids),
        held_out=tuple(clip for clip in clips if clip.row.id in ids),
        test=(),
        rule=rule,
    )
