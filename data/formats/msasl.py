"""MS-ASL: words of American Sign Language, listed in ``MSASL_{train,val,test}.json`` as parts of videos on YouTube.

Videos may lie anywhere below the root. A complete video is named by its id, as download programs do (ID.mp4,
TITLE-ID.mp4, TITLE [ID].mp4); the clip is its part from start_time to end_time. ID_START_END.mp4, in the list's frames
or seconds, is a clip that is already cut. Many videos have gone from the web, so many listed clips are absent. The
boxes around the signers are not applied.
"""

import itertools
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path, PurePosixPath

from common.errors import UserError
from data.captions import checked_caption
from data.formats.data_format import AbsentClip, DataFormat, RowCollector
from data.formats.fields import Values, as_name, as_text, cut_span, shown
from data.formats.search import first_matches, holding, media_kind, walk_files, with_cut_notice
from data.formats.tables import Record, check_inside, read_json_list
from data.rows import Manifest, ManifestRow, Media, Split, UnusableClip

LANGUAGE = "ase"
_LISTS: dict[str, Split] = {
    "MSASL_train.json": "training",
    "MSASL_val.json": "validation",
    "MSASL_test.json": "test",
}
_FOLDERS = ("", "*")
_ID_IN_URL = re.compile(r"(?:v=|youtu\.be/|/embed/|/shorts/|/v/)([\w-]{11})(?![\w-])", re.ASCII)
_ID_IN_NAME = re.compile(r"(?:^|-|\[)([\w-]{11})\]?$", re.ASCII)


def _recognise(path: Path) -> str | None:
    return holding(path, _FOLDERS, _LISTS)


def _read(path: Path, allowed: tuple[Path, ...] = ()) -> Manifest:
    lists = first_matches(path, _FOLDERS, _LISTS)
    if not lists:
        raise UserError(f"DATA_ROOT={str(path)!r} holds none of {', '.join(_LISTS)}.")
    found = walk_files(path, allowed=allowed)
    complete: dict[str, str] = {}  # paths by the ids of videos
    cut: dict[str, str] = {}  # paths by their names, without the extension
    for name in found.names:
        if media_kind(name) == "video":
            stem = PurePosixPath(name).stem
            cut.setdefault(stem, name)
            if (video := _ID_IN_NAME.search(stem)) is not None:
                complete.setdefault(video[1], name)
    clips = RowCollector(found.skipped)
    for name in lists:
        file = PurePosixPath(name).name
        check_inside(path, name, allowed)
        entries = read_json_list(path / name, "MS-ASL", "url and text")
        clips.collect(
            (
                Record(f"{file} entry {number}", entry)
                if isinstance(entry, dict)
                else Record(f"{file} entry {number}", {}, "is not an object with url and text")
                for number, entry in enumerate(entries, 1)
            ),
            partial(_row, split=_LISTS[file], complete=complete, cut=cut),
        )
    return with_cut_notice(clips.manifest(path, " and ".join(lists)))


def _row(values: Values, split: Split, complete: Mapping[str, str], cut: Mapping[str, str]) -> ManifestRow:
    url = as_text(values, "url")
    named = _ID_IN_URL.search(url)
    if named is None:
        raise UnusableClip(f"has url={shown(url)}, which names no video of YouTube")
    video = named[1]
    own = next((cut[name] for name in _cut_names(video, values) if name in cut), None)
    if own is not None:
        row_id, media = PurePosixPath(own).stem, Media("video", own)
    elif video in complete:
        row_id, media = video, Media("video", complete[video], cut_span(values, "start_time", "end_time"))
    else:
        raise AbsentClip(video, f"has no file {video}.mp4")
    caption = checked_caption(as_text(values, "clean_text" if values.get("clean_text") else "text"))
    return ManifestRow(row_id, media, caption, as_name(values, "signer_id"), split, LANGUAGE)


def _cut_names(video: str, values: Values) -> list[str]:
    parts = (("start", "end"), ("start_time", "end_time"))
    times = [[values.get(field) for field in pair] for pair in parts]
    return [
        f"{video}{mark}{start}{mark}{end}"
        for (start, end), mark in itertools.product(times, "_-")
        if isinstance(start, int | float) and isinstance(end, int | float)
    ]


FORMAT = DataFormat(
    "msasl", "MS-ASL", "a folder with MSASL_train.json, MSASL_val.json or MSASL_test.json", _recognise, _read
)
