"""Lists of clips as JSONL: one JSON object on each line."""

import json
from collections.abc import Iterator
from pathlib import Path

from data.formats.fields import shown_name
from data.formats.tables import Record, numbered_lines


def json_records(path: Path) -> Iterator[Record]:
    """Yield the objects of a file, their fields' names in lower case; empty lines are left out.

    Raises:
        UserError: the file cannot be read, or is not UTF-8.
    """
    for number, line in numbered_lines(path):
        if line.strip():
            yield _record(f"{shown_name(path.name)} line {number}", line)


def _record(place: str, line: str) -> Record:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:120]
        return Record(place, {}, f"is not JSON ({reason})")
    if not isinstance(content, dict):
        return Record(place, {}, 'is not a JSON object such as {"path": "hello.mp4", "text": "hello"}')
    return Record(place, {name.strip().lower(): value for name, value in content.items()})
