"""What a dashboard tag means, and the one function through which categories write scalars."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from logging_system.files.writer import Writer


@dataclass(frozen=True)
class Tag:
    """One entry of a category's table.

    The key it stands under is the full tag, such as ``"01_Training/Loss"``, or a pattern with names in braces for tags
    that exist once a layer, block or prompt, such as ``"09_Parameter_Stats/{layer}/Mean"``.
    """

    description: str  # what it is, its unit, how to read it; TensorBoard shows it beside the chart
    absent_when: str = ""  # why a run may lack it; empty for a tag that every run with the category has


def write_scalars(
    writer: Writer, tags: Mapping[str, Tag], values: Mapping[str, float], step: int, **names: str | int
) -> None:
    """Write `values` (by tag or pattern) at `step`, filling a pattern's braces from `names`.

    Raises:
        KeyError: a tag is missing from the category's table, or a name from `names`.
    """
    for pattern, value in values.items():
        writer.scalar(pattern.format(**names), value, step, tags[pattern].description)


def tag_expression(pattern: str) -> re.Pattern[str]:
    """Return the regular expression of the tags that a table entry stands for; a name never holds a slash."""
    pieces = ["[^/]+" if piece.startswith("{") else re.escape(piece) for piece in re.split(r"(\{\w+\})", pattern)]
    return re.compile("".join(pieces))
