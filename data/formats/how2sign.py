"""How2Sign: American Sign Language, one clip a sentence, listed in ``how2sign_realigned_{train,val,test}.csv``.

Where such a list is missing, ``how2sign_{train,val,test}.csv`` is read: its times are those of the speech. The lists
are separated by tabs in spite of their names (copies that were saved again, with commas, are read too).

A clip that is already cut is called SENTENCE_NAME.mp4 and may lie anywhere below the root; of 31,165 training sentences
118 never had one. Otherwise it is the part of the full recording, VIDEO_NAME.mp4, that the times in the list give. The
number in front of "-rgb_front" is the signer.
"""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

from common.errors import UserError
from data.captions import checked_caption
from data.formats.data_format import AbsentClip, DataFormat, RowCollector
from data.formats.fields import Values, as_name, as_text, cut_span, shown_name
from data.formats.search import holding, walk_files, with_cut_notice
from data.formats.tables import check_inside, open_table
from data.rows import WHOLE, Manifest, ManifestRow, Media, Notice, Split

LANGUAGE = "ase"
_SPLITS: dict[str, Split] = {"train": "training", "val": "validation", "test": "test"}
_REALIGNED = "how2sign_realigned_"
_LISTS = {f"{start}{split}.csv": split for start in (_REALIGNED, "how2sign_") for split in _SPLITS}
_TEXT = "text/en/raw_text"  # where How2Sign's own download script puts them
_OFFICIAL = tuple(f"{above}{_TEXT}" for above in ("sentence_level/*/", "*/sentence_level/*/", "*/"))
_FOLDERS = ("", "*", *(f"{folder}/re_aligned" for folder in _OFFICIAL), *_OFFICIAL)
_TIMES_REALIGNED, _TIMES = ("start_realigned", "end_realigned"), ("start", "end")  # columns
_SIGNER = re.compile(r"-(\d+)-rgb_(?:front|side)$", re.ASCII)
_NOT_LETTERS = re.compile(r"[^a-z]+")


def _recognise(path: Path) -> str | None:
    return holding(path, _FOLDERS, _LISTS)


def _read(path: Path, allowed: tuple[Path, ...] = ()) -> Manifest:
    lists: dict[str, str] = {}  # by split
    notes: list[str] = []
    clip_paths: dict[str, list[str]] = {}  # by file name
    # Folders of key points are left out: millions of files, one a frame.
    found = walk_files(path, lambda folder: "keypoints" in folder.lower(), allowed)
    for name in found.names:
        file_name = PurePosixPath(name).name
        if file_name in _LISTS:
            _take_better(lists, _LISTS[file_name], name, notes)
        elif file_name.endswith(".mp4"):
            clip_paths.setdefault(file_name, []).append(name)
    if not lists:
        raise UserError(f"DATA_ROOT={str(path)!r} holds none of {', '.join(_LISTS)}.{found.not_searched()}")
    clips = RowCollector(found.skipped)
    for split in _SPLITS:
        if split in lists:
            check_inside(path, lists[split], allowed)
            table = open_table(path / lists[split], ("sentence_name", "sentence"), "forgiving")
            clips.collect(table.records(), partial(_row, split=split, clip_paths=clip_paths))
    manifest = with_cut_notice(clips.manifest(path, " and ".join(shown_name(name) for name in lists.values())))
    cut = {row.split for row in manifest.rows if row.media.span != WHOLE}
    notes += [
        f"{shown_name(name)} has the times of the speech, which are not those of the signing: put "
        f"{_REALIGNED}{split}.csv beside it"
        for split, name in lists.items()
        if _SPLITS[split] in cut and not _is_realigned(name)
    ]
    return replace(manifest, notices=(*manifest.notices, *(Notice("files", note) for note in notes)))


def _take_better(lists: dict[str, str], split: str, name: str, notes: list[str]) -> None:
    """Keep the re-aligned list of a split, or the one nearest to the root: people have copies next to their clips."""
    known = lists.setdefault(split, name)
    if known == name:
        return
    better, other = sorted((known, name), key=lambda path: (not _is_realigned(path), path.count("/"), path))
    lists[split] = better
    notes.append(f"{shown_name(other)} is left out: {shown_name(better)} is the list that counts")


def _is_realigned(name: str) -> bool:
    return PurePosixPath(name).name.startswith(_REALIGNED)


def _row(values: Values, split: str, clip_paths: dict[str, list[str]]) -> ManifestRow:
    name = as_text(values, "sentence_name")
    span, paths = WHOLE, clip_paths.get(f"{name}.mp4")
    if paths is None:
        recording = as_name(values, "video_name")
        paths = clip_paths.get(f"{recording}.mp4")
        if paths is None:
            instead = "" if recording is None else f", nor its recording {shown_name(recording)}.mp4"
            raise AbsentClip(name, f"has no file {shown_name(name)}.mp4{instead}")
        span = cut_span(values, *(_TIMES_REALIGNED if _TIMES_REALIGNED[1] in values else _TIMES))
    caption = checked_caption(as_text(values, "sentence"))
    signer = _SIGNER.search(name)
    media = Media("video", _of_split(paths, split), span)
    return ManifestRow(name, media, caption, signer.group(1) if signer else None, _SPLITS[split], LANGUAGE)


def _of_split(paths: list[str], split: str) -> str:
    """Return the path whose folders name the split, such as ``val_rgb_front_clips/raw_videos``; otherwise the first."""
    for path in paths:
        if split in _NOT_LETTERS.split(str(PurePosixPath(path).parent).lower()):
            return path
    return paths[0]


FORMAT = DataFormat(
    "how2sign",
    "How2Sign",
    "a folder with how2sign_realigned_train.csv, ..._val.csv or ..._test.csv, or how2sign_train.csv and so on",
    _recognise,
    _read,
)
