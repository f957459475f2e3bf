"""Grouping dotted layer names that stand in order, so that an axis of many layers can be read."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

LARGEST_SHARE = 0.5  # of all names; a larger group is split at the next dot, unless only numbers stand there


@dataclass(frozen=True)
class NameGroup:
    """Neighbouring names that begin alike: names[start:stop]."""

    label: str  # the last part of what they share
    start: int
    stop: int


def group_names(names: Sequence[str]) -> list[NameGroup]:
    """Return groups that cover all names in order: by their first part, and by further parts where one is too large."""
    return _split(names, 0, len(names), depth=0)


def _split(names: Sequence[str], start: int, stop: int, depth: int) -> list[NameGroup]:
    groups: list[NameGroup] = []
    for part, run in groupby(range(start, stop), key=lambda index: _part(names[index], depth)):
        members = list(run)
        group = NameGroup(part, members[0], members[-1] + 1)
        can_be_split = any(_is_word(_part(names[index], depth + 1)) for index in members)
        if len(members) > LARGEST_SHARE * len(names) and can_be_split:
            groups += _split(names, group.start, group.stop, depth + 1)
        else:
            groups.append(group)
    return groups


def _part(name: str, depth: int) -> str:
    parts = name.split(".")
    return parts[depth] if depth < len(parts) else ""


def _is_word(part: str) -> bool:
    return bool(part) and not part.isdigit()
