"""WLASL: words of American Sign Language, listed in ``WLASL_v0.3.json``; clips are ``videos/VIDEO_ID.mp4``.

Frame numbers, frame rates and boxes in the list are those of the downloaded originals. They do not apply to the clips
of the published archive, which are already cut. Many originals have gone from the web, so many listed clips are absent.
"""

from collections.abc import Container, Iterator
from functools import partial
from pathlib import Path, PurePosixPath

from common.errors import UserError
from data.captions import checked_caption
from data.formats.data_format import AbsentClip, DataFormat, RowCollector
from data.formats.fields import Values, as_name, as_split, as_text, shown_name
from data.formats.search import first_matches, names_in
from data.formats.tables import Record, check_inside, read_json_list
from data.rows import Manifest, ManifestRow, Media, Notice

LANGUAGE = "ase"
BEST_LIST = "WLASL_v0.3.json"
_LISTS = "[Ww][Ll][Aa][Ss][Ll]*.json"
_FOLDERS = ("", "*")


def _recognise(path: Path) -> str | None:
    found = _lists(path)
    return f"it holds {shown_name(PurePosixPath(found[0]).name)}" if found else None


def _lists(path: Path) -> tuple[str, ...]:
    found = first_matches(path, _FOLDERS, [_LISTS])
    return tuple(sorted(found, key=lambda name: (PurePosixPath(name).name != BEST_LIST, name)))


def _read(path: Path, allowed: tuple[Path, ...] = ()) -> Manifest:
    lists = _lists(path)
    if not lists:
        raise UserError(f"DATA_ROOT={str(path)!r} holds no {BEST_LIST}, nor another WLASL*.json.")
    check_inside(path, lists[0], allowed)
    videos = str(PurePosixPath(lists[0]).parent / "videos")
    there = frozenset(names_in(path / videos))
    clips = RowCollector()
    clips.collect(_instances(path / lists[0]), partial(_row, videos=videos, there=there))
    notes = [f"{shown_name(name)} is left out: {shown_name(lists[0])} is the list that counts" for name in lists[1:]]
    return clips.manifest(path, shown_name(lists[0]), [Notice("files", note) for note in notes])


def _row(values: Values, videos: str, there: Container[str]) -> ManifestRow:
    video_id = as_text(values, "video_id")
    if f"{video_id}.mp4" not in there:
        raise AbsentClip(video_id, f"has no file {shown_name(video_id)}.mp4 in {shown_name(videos)}")
    media = Media("video", f"{videos}/{video_id}.mp4")
    caption = checked_caption(as_text(values, "gloss"))
    return ManifestRow(video_id, media, caption, as_name(values, "signer_id"), as_split(values), LANGUAGE)


def _instances(file: Path) -> Iterator[Record]:
    """Yield the fields of each clip, its gloss among them."""
    problem = "is not an object with gloss and instances"
    for number, entry in enumerate(read_json_list(file, "WLASL", "gloss and instances"), 1):
        place = f"{shown_name(file.name)} entry {number}"
        instances = entry.get("instances") if isinstance(entry, dict) else None
        if not isinstance(entry, dict) or not isinstance(instances, list):
            yield Record(place, {}, problem)
            continue
        for index, instance in enumerate(instances, 1):
            if isinstance(instance, dict):
                yield Record(f"{place} instance {index}", {**instance, "gloss": entry.get("gloss")})
            else:
                yield Record(f"{place} instance {index}", {}, problem)


FORMAT = DataFormat("wlasl", "WLASL", f"a folder with {BEST_LIST}", _recognise, _read)
