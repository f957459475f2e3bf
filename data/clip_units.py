"""Clips that have to stay on one side of a split: of one caption or signer, or with the same pictures."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

from data.clip_reader import InspectedClip
from data.manifest import TimeSpan


def content_key(clip: InspectedClip) -> tuple[str, TimeSpan]:
    """Return what two clips with the same pictures have in common."""
    return clip.digest, clip.row.media.span


def caption_key(caption: str) -> str:
    """Return what captions have in common that read the same: the character encoder knows no capitals."""
    return caption.casefold()


@dataclass(frozen=True)
class Unit:
    """Some clips, and what names them."""

    names: tuple[str, ...]  # signers or captions, sorted
    clips: tuple[InspectedClip, ...]


def units_of(clips: Sequence[InspectedClip], name: Callable[[InspectedClip], str]) -> tuple[Unit, ...]:
    """Put clips together that have the same name or show the same, or parts of a file that overlap; in order of names.

    A clip with two captions joins both, and so on.
    """
    groups = _Groups(len(clips))
    for same in (*_by(clips, name), *_overlapping(clips)):
        for index in same[1:]:
            groups.join(same[0], index)
    members: dict[int, list[InspectedClip]] = {}
    for index, clip in enumerate(clips):
        members.setdefault(groups.root(index), []).append(clip)
    units = [Unit(tuple(sorted(set(map(name, group)))), tuple(group)) for group in members.values()]
    return tuple(sorted(units, key=lambda unit: unit.names))


class _Groups:
    """Numbers that are joined into groups (union and find)."""

    def __init__(self, count: int) -> None:
        self._parents = list(range(count))

    def root(self, number: int) -> int:
        while self._parents[number] != number:
            self._parents[number] = self._parents[self._parents[number]]
            number = self._parents[number]
        return number

    def join(self, one: int, other: int) -> None:
        self._parents[self.root(other)] = self.root(one)


def _by(clips: Sequence[InspectedClip], key: Callable[[InspectedClip], Hashable]) -> Iterable[list[int]]:
    groups: dict[Hashable, list[int]] = {}
    for index, clip in enumerate(clips):
        groups.setdefault(key(clip), []).append(index)
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
