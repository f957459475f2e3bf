"""A list of clips that somebody wrote: a CSV, TSV or JSONL file with the fields path and text.

Paths are within the folder of the list. They may name a video, a .pose file or a folder of frames. A file that the
list names but that does not exist is a mistake.
"""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from common.errors import UserError
from data.captions import checked_caption
from data.formats.data_format import DataFormat, RowCollector
from data.formats.fields import Values, as_name, as_span, as_split, as_text, shown_name
from data.formats.search import listed_media
from data.formats.tables import Record, numbered_lines, open_table
from data.media.files import printable
from data.rows import Manifest, ManifestRow, Notice

EXTENSIONS = (".csv", ".tsv", ".jsonl")
NAMES = ("manifest.csv", "manifest.tsv", "manifest.jsonl")
NEEDED = ("path", "text")
FIELDS = (*NEEDED, "signer", "split", "start", "end", "language")
MOST_UNKNOWN_FIELDS = 10  # that a note names


def _recognise(path: Path) -> str | None:
    if os.path.isfile(path):
        extension = path.suffix.lower()
        return f"it is a {extension} file" if extension in EXTENSIONS else None
    names = _lists_in(path)
    return f"it holds {names[0]}" if names else None


def _lists_in(folder: Path) -> list[str]:
    return [name for name in NAMES if os.path.isfile(folder / name)]


def _read(path: Path) -> Manifest:
    file = path if os.path.isfile(path) else _only_list_in(path)
    root, clips, unknown = file.parent, RowCollector(), dict[str, None]()

    def row(values: Values) -> ManifestRow:
        _note_unknown(values, unknown)
        media = listed_media(root, values, as_span(values))
        caption = checked_caption(as_text(values, "text"))
        return ManifestRow(
            media.path, media, caption, as_name(values, "signer"), as_split(values), as_name(values, "language")
        )

    clips.collect(_records(file, unknown), row)
    return clips.manifest(root, shown_name(str(file)), _notices(file, list(unknown)))


def _only_list_in(folder: Path) -> Path:
    names = _lists_in(folder)
    if not names:
        raise UserError(f"DATA_ROOT={str(folder)!r} holds none of {', '.join(NAMES)}.")
    if len(names) > 1:
        raise UserError(
            f"DATA_ROOT={str(folder)!r} holds {' and '.join(names)}: give the one that counts as DATA_ROOT."
        )
    return folder / names[0]


def _records(file: Path, unknown: dict[str, None]) -> Iterator[Record]:
    if file.suffix.lower() == ".jsonl":
        return _json_records(file)
    table = open_table(file, NEEDED)
    _note_unknown(dict.fromkeys(name for name in table.columns if name), unknown)
    return table.records()


def _json_records(path: Path) -> Iterator[Record]:
    """Yield the object in each line, the names of its fields in lower case; empty lines are left out."""
    for number, line in numbered_lines(path):
        if not line.strip():
            continue
        place = f"{shown_name(path.name)} line {number}"
        try:
            content = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:120]
            yield Record(place, {}, f"is not JSON ({reason})")
            continue
        if isinstance(content, dict):
            yield Record(place, {name.strip().lower(): value for name, value in content.items()})
        else:
            example = '{"path": "hello.mp4", "text": "hello"}'
            yield Record(place, {}, f"is not a JSON object such as {example}")


def _note_unknown(values: Values, unknown: dict[str, None]) -> None:
    for name in values:
        if name not in FIELDS and len(unknown) <= MOST_UNKNOWN_FIELDS:
            unknown.setdefault(name)


def _notices(file: Path, unknown: Sequence[str]) -> tuple[Notice, ...]:
    if not unknown:
        return ()
    named = ", ".join(printable(name[:40]) for name in unknown[:MOST_UNKNOWN_FIELDS])
    more = " and others" if len(unknown) > MOST_UNKNOWN_FIELDS else ""
    known = ", ".join(FIELDS)
    note = f"{shown_name(file.name)} has fields that mean nothing here: {named}{more}; known are {known}"
    return (Notice("files", note),)


FORMAT = DataFormat(
    "manifest",
    "list of clips",
    f"one of {', '.join(NAMES)}, or a file that ends in {', '.join(EXTENSIONS)}",
    _recognise,
    _read,
)
