"""How2Sign: American Sign Language, one clip a sentence, listed in ``how2sign_realigned_{train,val,test}.csv``.

The lists are separated by tabs in spite of their names (copies that were saved again, with commas, are read too). A
clip is called SENTENCE_NAME.mp4 and may lie anywhere below the root; of 31,165 training sentences 118 never had one.
The times in the lists are those of the full recordings: they do not apply to the clips, which are already cut.
The number in front of "-rgb_front" is the signer.
"""

import re
from functools import partial
from pathlib import Path, PurePosixPath

from common.errors import UserError
from data.captions import checked_caption
from data.formats.data_format import AbsentClip, DataFormat, RowCollector
from data.formats.fields import Values, as_text, shown_name
from data.formats.search import first_matches, walk_files
from data.formats.tables import open_table
from data.rows import Manifest, ManifestRow, Media, Notice, Split

LANGUAGE = "ase"
_SPLITS: dict[str, Split] = {"train": "training", "val": "validation", "test": "test"}
_LISTS = {f"how2sign_realigned_{split}.csv": split for split in _SPLITS}
_OFFICIAL = "sentence_level/*/text/en/raw_text/re_aligned"  # where How2Sign's own download script puts them
_FOLDERS = ("", "*", _OFFICIAL, f"*/{_OFFICIAL}", "*/text/en/raw_text/re_aligned")
_SIGNER = re.compile(r"-(\d+)-rgb_(?:front|side)$", re.ASCII)
_NOT_LETTERS = re.compile(r"[^a-z]+")


def _recognise(path: Path) -> str | None:
    found = first_matches(path, _FOLDERS, _LISTS)
    return f"it holds {PurePosixPath(found[0]).name}" if found else None


def _read(path: Path, allowed: tuple[Path, ...] = ()) -> Manifest:
    lists: dict[str, str] = {}  # by split
    notes: list[str] = []
    clip_paths: dict[str, list[str]] = {}  # by file name
    # Folders of key points are left out: millions of files, one a frame.
    found = walk_files(path, lambda folder: "keypoints" in folder.lower(), allowed)
    for name in found.names:
        file_name = PurePosixPath(name).name
        if file_name in _LISTS:
            _take_nearer(lists, _LISTS[file_name], name, notes)
        elif file_name.endswith(".mp4"):
            clip_paths.setdefault(file_name, []).append(name)
    if not lists:
        raise UserError(f"DATA_ROOT={str(path)!r} holds none of {', '.join(_LISTS)}.{found.not_searched()}")
    clips = RowCollector(found.skipped)
    for split in _SPLITS:
        if split in lists:
            table = open_table(path / lists[split], ("sentence_name", "sentence"), "forgiving")
            clips.collect(table.records(), partial(_row, split=split, clip_paths=clip_paths))
    return clips.manifest(
        path, " and ".join(shown_name(name) for name in lists.values()), [Notice("files", note) for note in notes]
    )


def _take_nearer(lists: dict[str, str], split: str, name: str, notes: list[str]) -> None:
    """Keep the list of a split that lies nearest to the root: people have copies of them next to their clips."""
    known = lists.setdefault(split, name)
    if known == name:
        return
    nearer, other = sorted((known, name), key=lambda path: (path.count("/"), path))
    lists[split] = nearer
    notes.append(f"{shown_name(other)} is left out: {shown_name(nearer)} is the list that counts")


def _row(values: Values, split: str, clip_paths: dict[str, list[str]]) -> ManifestRow:
    name = as_text(values, "sentence_name")
    paths = clip_paths.get(f"{name}.mp4")
    if paths is None:
        raise AbsentClip(name, f"has no file {shown_name(name)}.mp4")
    caption = checked_caption(as_text(values, "sentence"))
    signer = _SIGNER.search(name)
    media = Media("video", _of_split(paths, split))
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
    "a folder with how2sign_realigned_train.csv, ..._val.csv or ..._test.csv",
    _recognise,
    _read,
)
