"""A folder for each word: ``hello/1.mp4``, ``hello/2.mp4``, ``thank_you/1.mp4``. The folder's name is the caption.

Folders named train, val or test, above those of the words or below them, give the split. One beside words is a word.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from common.console import counted
from common.errors import UserError
from data.captions import checked_caption
from data.formats import manifest
from data.formats.data_format import DataFormat, RowCollector
from data.formats.fields import Values, shown, shown_name, split_named, splits_in
from data.formats.folder import OTHER_CAPTIONS, SHEETS, caption_file, find_clips, folders_of, sheet_notices, with_split
from data.formats.search import composed, media_kind
from data.formats.tables import Record
from data.rows import Manifest, ManifestRow, Media, Notice, UnusableClip

_NUMBER = re.compile(r"\d+[._ -]+(?=\D)")  # as in "1. loud"; it counts the folders if all have one


def _recognise(path: Path) -> str | None:
    try:
        found, clips = find_clips(path)
    except UserError:
        return None
    files = [PurePosixPath(name) for name in found.names]
    texts = {
        composed(file.stem) for file in files if file.suffix.lower() in (".txt", *OTHER_CAPTIONS)
    }  # also in other folders
    words = {word for word, _ in _words(clips)}
    if "" in words or len(words) < 2 or any(composed(PurePosixPath(name).stem) in texts for name in clips):
        return None
    if any(len(file.parts) == 1 and manifest.FORMAT.recognise(path / file) is not None for file in files):
        return None
    return f"no clip has a caption, and each lies in a folder, such as {shown_name(clips[0])}"


def _read(path: Path, allowed: tuple[Path, ...] = ()) -> Manifest:
    found, clips = find_clips(path, allowed)
    words = _words(clips)
    other_folders = {name: folders for name, (_, folders) in zip(clips, words, strict=True)}
    start = _NUMBER if all(_NUMBER.match(word) for word, _ in words) else re.compile("")
    collector = RowCollector(found.skipped)
    collector.collect(
        (
            Record(name, {"path": name, "word": start.sub("", word, count=1).replace("_", " ")})
            for name, (word, _) in zip(clips, words, strict=True)
        ),
        _row,
    )
    whole = collector.manifest(path, shown_name(str(path)))
    split = with_split(whole, [other_folders[row.media.path] for row in whole.rows])
    return replace(split, notices=(*_notices(whole.rows, found.names), *sheet_notices(found.names), *split.notices))


def _words(clips: Sequence[str]) -> list[tuple[str, tuple[str, ...]]]:
    """Return the name of the folder that is each clip's word, "" if there is none, and the other folders around it."""
    folders = [folders_of(name) for name in clips]
    around_words = {each[:-1] for each in folders if each and not split_named(each[-1])}
    around_splits = {each[:-1] for each in folders if len(each) > 1 and split_named(each[-1])}
    around_splits = {each for each in around_splits if not any(map(split_named, each))}
    if len(around_splits) > 1:  # hello/train, help/train: a split, even if a folder beside it, hello/vall, is none
        around_words -= around_splits
    alike = [splits_in(each[-1]) for each in folders if each]
    if all(alike) and len(set().union(*alike)) > 1:  # only my_train and my_val: a split as well
        around_words = set()
    found = []
    for each in folders:
        place = len(each) - (1 if each[:-1] in around_words else 2)  # hello/train/1.mp4 is "hello"
        found.append(("", each) if place < 0 else (each[place], each[:place] + each[place + 1 :]))
    return found


def _row(values: Values) -> ManifestRow:
    name, word = str(values["path"]), str(values["word"])
    if not word:
        raise UnusableClip("lies in no folder whose name is its caption")
    kind = media_kind(name)
    assert kind is not None
    return ManifestRow(name, Media(kind, name), checked_caption(word))


def _notices(rows: Sequence[ManifestRow], names: Sequence[str]) -> tuple[Notice, ...]:
    if not rows:
        return ()
    captions, first = len({row.caption for row in rows}), rows[0]
    known = set(names)
    others = [name for name in names if "/" not in name and name.lower().endswith((*OTHER_CAPTIONS, *SHEETS))]
    unread = sum(caption_file(row.media.path, lambda name: name if name in known else None) in known for row in rows)
    text = (
        f"the name of its folder is the caption of each clip, such as {shown(first.caption)} of {shown_name(first.id)}"
        f" ({counted(captions, 'caption')}, {counted(len(rows), 'clip')}"
        + (f"; {counted(unread, '.txt file')} beside clips not read" if unread else "")
        + (f"; {shown_name(others[0])} not read" if others else "")
        + "); if folders are signers or numbers, give each clip a .txt file or write a list"
    )
    return (Notice("captions", text),)


FORMAT = DataFormat(
    "words",
    "folder for each word",
    "a folder of folders of clips, each named by what is signed in it: hello/1.mp4",
    _recognise,
    _read,
)
