"""A lexicon of poses: an ``index.csv`` as the package ``spoken-to-signed`` reads it, and the .pose files that it names.

Its columns start and end are milliseconds. As in that package, an end of 0 or past the end of the file is the end of
the file: all lines of the package's finger-spelling lexicon have such ends, because its clips were trimmed after they
were listed. A file that the index names but that does not exist is a mistake.
"""

import os
from functools import partial
from pathlib import Path

from common.errors import UserError
from data.captions import checked_caption
from data.formats.data_format import DataFormat, RowCollector
from data.formats.fields import Values, as_name, as_number, as_text, shown_name
from data.formats.search import ListedFiles
from data.formats.tables import check_inside, open_table
from data.rows import WHOLE, Manifest, ManifestRow, TimeSpan

INDEX = "index.csv"
COLUMNS = ("path", "spoken_language", "signed_language", "start", "end", "words", "glosses", "priority")


def _recognise(path: Path) -> str | None:
    file = _index_file(path)
    if file.suffix.lower() != ".csv":
        return None
    try:
        open_table(file, COLUMNS)
    except UserError:  # it is another table, or none
        return None
    return f"{'it has' if file == path else f'its {INDEX} has'} the columns words and glosses"


def _read(path: Path, allowed: tuple[Path, ...] = ()) -> Manifest:
    file = _index_file(path)
    if file != path:
        check_inside(path, INDEX, allowed)
    clips = RowCollector()
    files = ListedFiles(file.parent, allowed)
    clips.collect(open_table(file, COLUMNS).records(), partial(_row, files=files))
    return clips.manifest(file.parent, shown_name(str(file)), files.notices())


def _index_file(path: Path) -> Path:
    return path / INDEX if os.path.isdir(path) else path


def _row(values: Values, files: ListedFiles) -> ManifestRow:
    media = files.media(values, _span(values))
    text = as_text(values, "words" if values.get("words") else "glosses")
    return ManifestRow(media.path, media, checked_caption(text), language=as_name(values, "signed_language"))


def _span(values: Values) -> TimeSpan:
    """Return the part of a file that a line gives; if it makes no sense, all of the file."""
    start = (as_number(values, "start", "milliseconds") or 0.0) / 1000
    end = (as_number(values, "end", "milliseconds") or 0.0) / 1000
    if end == 0:
        return TimeSpan(start) if start else WHOLE
    return TimeSpan(start, end) if end > start else WHOLE


FORMAT = DataFormat(
    "pose_lexicon",
    "pose lexicon",
    f"an {INDEX}, or a .csv file, with the columns {', '.join(COLUMNS)}",
    _recognise,
    _read,
)
