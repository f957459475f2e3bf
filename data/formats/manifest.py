"""A list of clips that somebody wrote: a CSV, TSV, JSONL or JSON file, or videos.txt with prompts.txt beside it.

Paths start at the folder of the list. They may name a video, a .pose file or a folder of frames. A file that the list
names but that does not exist is a mistake.
"""

import glob
import itertools
import json
import os
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from common.console import counted
from common.errors import UserError
from data.captions import checked_caption
from data.formats.data_format import DataFormat, RowCollector
from data.formats.fields import Values, as_name, as_span, as_split, as_text, shown, shown_name, split_named
from data.formats.search import ListedFiles, media_kind
from data.formats.tables import Record, check_inside, field_name, numbered_lines, open_table, read_json
from data.media.files import printable
from data.rows import Manifest, ManifestRow, Notice

EXTENSIONS = (".csv", ".tsv", ".jsonl")  # what ends in .json or .txt is a list if its content says so
NAMES = ("manifest.csv", "manifest.tsv", "manifest.jsonl")
METADATA = ("metadata.csv", "metadata.jsonl")  # lists as Hugging Face's folders of videos have them
VIDEOS = "videos.txt"
PROMPTS = ("prompts.txt", "prompt.txt", "captions.txt")  # of which line N belongs to line N of videos.txt
NEEDED = ("path", "text")
FIELDS: Mapping[str, Sequence[str]] = {
    "path": (
        *("file_name", "filename", "file_path", "filepath", "file", "video_path", "video_file", "video_name", "video"),
        *("clip_path", "clip_file", "clip_name", "clip", "name"),
    ),
    "text": (
        *("caption", "captions", "sentence", "translation", "transcription", "transcript", "prompt"),
        *("gloss", "word", "label"),  # not the words of a lexicon, whose times are milliseconds
    ),
    "signer": ("signer_id", "signer_name", "speaker", "speaker_id", "participant", "participant_id"),
    "split": ("set", "subset", "partition"),
    "start": ("start_time", "start_seconds"),
    "end": ("end_time", "end_seconds"),
    "language": ("signed_language", "sign_language"),
}
"""The fields, each with the other names that data sets give it; of several in one list the first counts.

Another name of the split counts only where it holds the name of a part of one.
"""
MOST_UNKNOWN_FIELDS = 10  # that a note names
LEAST_CLIPS = 4  # of which it is said that hardly two have the same signer or language
LEAST_SHARE_OF_SINGLE_VALUES = 0.9
# What spreadsheets, R and pandas leave in a cell that is empty or whose formula fails; a formula; a lone sign.
_NO_CAPTION = re.compile(
    r"nan|none|null|n/a|<na>|#n/[ad]|#nv|#\S+[!?]|#+|err:\d+|=.+|[-\u2013\u2014?!._/]+", re.IGNORECASE
)
EXAMPLE = '{"path": "hello.mp4", "text": "hello"}'


def _recognise(path: Path) -> str | None:
    if not os.path.isfile(path):
        names = _lists_in(path)
        return f"it holds {names[0]}" if names else None
    extension = path.suffix.lower()
    if path.name == VIDEOS and VIDEOS in _lists_in(path.parent):
        return "it has a list of captions beside it"
    if extension in (".json", ".txt"):  # Excel's "Unicode text" is such a table
        return f"it is a {extension} file that names clips and captions" if _is_list(path) else None
    if extension not in EXTENSIONS:
        return None
    return f"it is a {extension} file"


def _lists_in(folder: Path) -> list[str]:
    """Return the lists in a folder; if there is none, those that Hugging Face's data sets have in a folder each."""
    names = [name for name in NAMES if os.path.isfile(folder / name)]
    names += [name for name in METADATA if _is_list(folder / name)]
    names += [VIDEOS] if os.path.isfile(folder / VIDEOS) and _prompts_in(folder) else []
    below = sorted(path for name in METADATA for path in glob.glob(f"*/{name}", root_dir=folder))
    return names or [
        path.replace(os.sep, "/")
        for path in below
        if not (folder / path).parent.is_symlink() and _is_list(folder / path)
    ]


def _prompts_in(folder: Path) -> list[str]:
    return [name for name in PROMPTS if os.path.isfile(folder / name)]


def _is_list(file: Path) -> bool:
    """Return whether a file's first record names a clip and a caption: other things are called metadata too."""
    try:
        first = next(_records(file), None)
    except UserError:
        return False
    return first is not None and set(NEEDED) <= _names_by_field(first.fields).keys()


def _read(path: Path, allowed: tuple[Path, ...] = ()) -> Manifest:
    root, lists = (path.parent, [path.name]) if os.path.isfile(path) else (path, _lists_to_read(path))
    for name in lists if root == path else ():
        check_inside(root, name, allowed)
    for name in _prompts_in(root) if lists == [VIDEOS] else ():
        check_inside(root, name, allowed)
    files, clips, taken, unused = ListedFiles(root, allowed), RowCollector(), dict[str, str](), dict[str, None]()
    no_splits = set(FIELDS["split"]) - _split_fields(record for name in lists for record in _records(root / name))

    def row(all_values: Values, folder: str) -> ManifestRow:
        names = _names_by_field(name for name in all_values if name not in no_splits)
        taken.update((field, name) for field, name in names.items() if name != field)
        for name in all_values:
            if name not in names.values() and len(unused) <= MOST_UNKNOWN_FIELDS:
                unused.setdefault(name)
        values = {field: all_values[name] for field, name in names.items()}
        if folder:
            values["path"] = posixpath.join(folder, as_text(values, "path"))
        if type(values.get("text")) is int:  # in JSON: the numbers of a table are texts
            values["text"] = str(values["text"])
        media = files.media(values, as_span(values))
        caption = checked_caption(as_text(values, "text"))
        return ManifestRow(
            media.path, media, caption, as_name(values, "signer"), as_split(values), as_name(values, "language")
        )

    for name in lists:
        folder = posixpath.dirname(name)
        records = (replace(each, place=posixpath.join(folder, each.place)) for each in _records(root / name))
        clips.collect(records, partial(row, folder=folder))
    shown_lists = " and ".join(shown_name(name) for name in lists)
    manifest = clips.manifest(root, shown_name(str(root / lists[0])), files.notices())
    notices = [*_field_notices(shown_lists, taken, list(unused)), *manifest.notices, *_cell_notices(manifest.rows)]
    if not lists[0].lower().endswith((".json", ".jsonl")):
        notices += _cut_notices("signer", [(row, row.signer) for row in manifest.rows])
        notices += _cut_notices("language", [(row, row.language) for row in manifest.rows])
    return replace(manifest, notices=tuple(notices))


def _split_fields(records: Iterable[Record]) -> set[str]:
    """Return the fields that hold the name of a part of the split: what is called a set may be something else."""
    return {name for each in records for name in FIELDS["split"] if split_named(str(each.fields.get(name, "")))}


def _cell_notices(rows: Sequence[ManifestRow]) -> tuple[Notice, ...]:
    found = [row for row in rows if _NO_CAPTION.fullmatch(row.caption)]
    if not found:
        return ()
    one, many = "caption looks like an empty or failed cell", "captions look like empty or failed cells"
    lines = "this line" if len(found) == 1 else "these lines"
    text = f"{counted(len(found), one, many)}, such as {shown(found[0].caption)} of {found[0].id}"
    return (Notice("captions", f"{text}: correct or delete {lines}"),)


def _names_by_field(names: Iterable[str]) -> dict[str, str]:
    """Return under which of these names each field is found, its own name first."""
    known = set(names)
    found = (
        (field, next((name for name in (field, *others) if name in known), None)) for field, others in FIELDS.items()
    )
    return {field: name for field, name in found if name is not None}


def _lists_to_read(folder: Path) -> list[str]:
    names = _lists_in(folder)
    if not names:
        raise UserError(f"DATA_ROOT={str(folder)!r} holds none of {', '.join((*NAMES, *METADATA, VIDEOS))}.")
    for below, beside in ((below, list(group)) for below, group in itertools.groupby(names, posixpath.dirname)):
        if len(beside) > 1:
            remedy = "take one away" if below else "give the one that counts as DATA_ROOT"
            raise UserError(f"DATA_ROOT={str(folder)!r} holds {' and '.join(map(shown_name, beside))}: {remedy}.")
    return names


def _records(file: Path) -> Iterator[Record]:
    extension = file.suffix.lower()
    if file.name == VIDEOS:
        yield from _line_pairs(file)
    elif extension == ".jsonl":
        yield from _json_lines(file)
    elif extension == ".json":
        yield from _json_list(file)
    else:
        yield from open_table(file, NEEDED, other_names=FIELDS).records()


def _line_pairs(file: Path) -> Iterator[Record]:
    """Yield a record for each line of videos.txt and the same line of the captions."""
    prompts = _prompts_in(file.parent)
    if len(prompts) != 1:
        raise UserError(
            f"{shown_name(str(file))} needs one of {', '.join(PROMPTS)} beside it, with a caption in each line; "
            f"there {'are ' + ' and '.join(prompts) if prompts else 'is none'}."
        )
    videos, captions = (_lines(file.with_name(name)) for name in (VIDEOS, prompts[0]))
    if len(videos) != len(captions):
        raise UserError(
            f"{shown_name(str(file))} has {len(videos)} lines and {prompts[0]} has {len(captions)}: line N of one "
            "belongs to line N of the other, so they must have the same number."
        )
    for number, (video, caption) in enumerate(zip(videos, captions, strict=True), 1):
        yield Record(f"{VIDEOS} line {number}", {"path": video, "text": caption})


def _lines(file: Path) -> list[str]:
    """Return the lines of a text file; empty ones at its end do not count."""
    lines = [line.strip() for _, line in numbered_lines(file)]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _json_lines(file: Path) -> Iterator[Record]:
    """Yield the object in each line; empty lines are left out."""
    for number, line in numbered_lines(file):
        if not line.strip():
            continue
        place = f"{shown_name(file.name)} line {number}"
        try:
            yield _json_record(place, json.loads(line))
        except (ValueError, RecursionError) as error:
            reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:120]
            yield Record(place, {}, f"is not JSON ({reason})")


def _json_list(file: Path) -> Iterator[Record]:
    """Yield the objects of a list, which may be the only field of an object: ``{"data": [...]}``.

    An object of captions by the names of files, ``{"hello.mp4": "hello"}``, is read too.
    """
    content = read_json(file)
    if isinstance(content, dict) and len(content) == 1 and isinstance(next(iter(content.values())), list):
        (content,) = content.values()
    names = content if isinstance(content, dict) else {}
    is_text = all(isinstance(caption, str | None) for caption in names.values())
    if is_text and any(media_kind(name) is not None for name in names):
        content = [{"path": name, "text": caption} for name, caption in names.items()]
    if not isinstance(content, list):
        raise UserError(f"{shown_name(str(file))} is no list of clips: {_in_place_of_list(content)}.")
    for number, entry in enumerate(content, 1):
        yield _json_record(f"{shown_name(file.name)} entry {number}", entry)


def _in_place_of_list(content: object) -> str:
    """Return what to do about JSON that is no list, for people."""
    fields = content if isinstance(content, dict) else {}
    lists = [name for name, value in fields.items() if isinstance(value, list) and any(map(_is_object, value))]
    if len(lists) == 1:
        return f"it is the field {shown(lists[0])} of an object with others, so write that list alone"
    if fields and all(map(_is_object, fields.values())):
        return "it holds columns, as pandas writes them, so write it with to_json(orient='records')"
    return f"write [{EXAMPLE}, ...]"


def _is_object(content: object) -> bool:
    return isinstance(content, dict)


def check_list(path: Path) -> None:
    """Refuse a ``.json`` or ``.txt`` file that is no list of clips; others are not looked at.

    Raises:
        UserError: that is so; the message says why.
    """
    extension = path.suffix.lower()
    if not os.path.isfile(path) or extension not in (".json", ".txt") or _is_list(path):
        return
    first = next(_records(path), None)
    named = first.fields if first is not None else ()
    raise UserError(
        f"{shown_name(str(path))} lists no clip: its first entry has "
        f"{', '.join(printable(name[:40]) for name in list(named)[:MOST_UNKNOWN_FIELDS]) or 'no field'}; needed are "
        f"{', '.join(NEEDED)}, or names such as {', '.join(FIELDS[name][0] for name in NEEDED)} (docs/data.md)."
    )


def _json_record(place: str, content: object) -> Record:
    if isinstance(content, dict):
        return Record(place, {field_name(name): value for name, value in content.items()})
    return Record(place, {}, f"is not a JSON object such as {EXAMPLE}")


def _field_notices(lists: str, taken: Mapping[str, str], unused: Sequence[str]) -> Iterator[Notice]:
    if taken:
        listed = ", ".join(f"{name} was taken for {field}" for field, name in taken.items())
        yield Notice("files", f"in {lists} {listed}")
    if times := [taken[field] for field in ("start", "end") if field in taken]:
        these = "this column" if len(times) == 1 else "these columns"
        text = f"clips are cut by {' and '.join(times)}: rename {these} if the clips are cut already"
        yield Notice("files", text)
    if unused:
        named = ", ".join(printable(name[:40]) for name in unused[:MOST_UNKNOWN_FIELDS])
        more = " and others" if len(unused) > MOST_UNKNOWN_FIELDS else ""
        note = f"{lists} has fields that mean nothing here: {named}{more}; known are {', '.join(FIELDS)}"
        yield Notice("files", note)


def _cut_notices(field: str, rows: Sequence[tuple[ManifestRow, str | None]]) -> Iterator[Notice]:
    """Yield a notice if the values of a field look like the ends of captions that a comma without quotes cut in two."""
    numbers = Counter(value for _, value in rows if value is not None)
    single = [(row, value) for row, value in rows if value is not None and numbers[value] == 1]
    if len(rows) < LEAST_CLIPS or not single or len(single) < LEAST_SHARE_OF_SINGLE_VALUES * numbers.total():
        return
    row, value = single[0]
    yield Notice(
        "captions",
        f"{counted(len(single), 'clip has', 'clips have')} a {field} that no other has, such as {shown(value)} of "
        f"{row.id} ({shown(row.caption)}): if that is the rest of a caption, put captions with the separator in them "
        "in double quotes",
    )


FORMAT = DataFormat(
    "manifest",
    "list of clips",
    f"one of {', '.join((*NAMES, *METADATA))}, {VIDEOS} with {' or '.join(PROMPTS)}, or a file that ends in "
    f"{', '.join((*EXTENSIONS, '.json'))}",
    _recognise,
    _read,
)
