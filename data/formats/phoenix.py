"""PHOENIX-2014T: weather forecasts in German Sign Language, a folder of frames for each sentence.

``PHOENIX-2014-T.{train,dev,test}.corpus.csv`` are separated by "|" and know no quotes. The frames, 25 a second, lie in
``features/fullFrame-210x260px/{train,dev,test}/NAME/*.png``; the lists say ``NAME/1/*.png``, and some copies have that
folder. The text that is signed is the column translation; orth are its glosses.
"""

import os
from collections.abc import Container
from functools import partial
from pathlib import Path, PurePosixPath

from common.errors import UserError
from data.captions import checked_caption
from data.formats.data_format import AbsentClip, DataFormat, RowCollector
from data.formats.fields import Values, as_name, as_text, shown_name
from data.formats.search import first_folder, first_matches, holding, names_in
from data.formats.tables import check_inside, open_table
from data.rows import Manifest, ManifestRow, Media, Split

LANGUAGE = "gsg"
FRAMES_PER_SECOND = 25.0
_SPLITS: dict[str, Split] = {"train": "training", "dev": "validation", "test": "test"}
_LISTS = {f"PHOENIX-2014-T.{split}.corpus.csv": split for split in _SPLITS}
_ANNOTATIONS = "annotations/manual"
_FOLDERS = ("", _ANNOTATIONS, "*", f"*/{_ANNOTATIONS}", f"*/*/{_ANNOTATIONS}")
_FRAMES = "fullFrame-210x260px"


def _recognise(path: Path) -> str | None:
    return holding(path, _FOLDERS, _LISTS)


def _read(path: Path, allowed: tuple[Path, ...] = ()) -> Manifest:
    lists = first_matches(path, _FOLDERS, _LISTS)
    if not lists:
        raise UserError(f"DATA_ROOT={str(path)!r} holds none of {', '.join(_LISTS)}.")
    frames = _frames_folder(path, str(PurePosixPath(lists[0]).parent))
    clips = RowCollector()
    by_split = {_LISTS[PurePosixPath(name).name]: name for name in lists}
    for split in _SPLITS:
        if split in by_split:
            folder = f"{frames}/{split}"
            names = frozenset(names_in(path / folder, only_folders=True))
            check_inside(path, by_split[split], allowed)
            table = open_table(path / by_split[split], ("name", "translation"), "none")
            clips.collect(table.records(), partial(_row, root=path, folder=folder, names=names, split=split))
    return clips.manifest(path, " and ".join(shown_name(name) for name in lists))


def _frames_folder(root: Path, lists_folder: str) -> str:
    base = lists_folder.removesuffix(_ANNOTATIONS).strip("/")
    bases = ("" if base == "." else base, "", "*", "*/*")
    patterns = [
        f"{folder}/{name}".lstrip("/") for folder in dict.fromkeys(bases) for name in (f"features/{_FRAMES}", _FRAMES)
    ]
    found = first_folder(root, patterns)
    if found is None:
        raise UserError(
            f"DATA_ROOT={str(root)!r} holds the lists of PHOENIX-2014T, but no folder features/{_FRAMES} with the "
            "frames: unpack it beside annotations."
        )
    return found


def _row(values: Values, root: Path, folder: str, names: Container[str], split: str) -> ManifestRow:
    name = as_text(values, "name")
    if name not in names:
        raise AbsentClip(name, f"has no folder of frames in {shown_name(folder)}")
    frames = f"{folder}/{name}"
    if os.path.isdir(root / frames / "1"):
        frames += "/1"
    media = Media("frames", frames, frames_per_second=FRAMES_PER_SECOND)
    caption = checked_caption(as_text(values, "translation"))
    return ManifestRow(name, media, caption, as_name(values, "speaker"), _SPLITS[split], LANGUAGE)


FORMAT = DataFormat(
    "phoenix",
    "PHOENIX-2014T",
    "a folder with PHOENIX-2014-T.train.corpus.csv, ...dev.corpus.csv or ...test.corpus.csv",
    _recognise,
    _read,
)
