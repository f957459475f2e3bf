"""A folder of clips, each next to its caption: ``name.mp4`` and ``name.txt``.

Folders named train, val or test, at any level above the clips, are the split.
"""

import glob
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path, PurePosixPath

from common.console import counted
from common.errors import UserError
from data.captions import read_caption
from data.formats.data_format import DataFormat
from data.formats.fields import SPLITS, shown, shown_name, split_named, splits_in
from data.formats.manifest import EXTENSIONS as LIST_EXTENSIONS
from data.formats.manifest import FIELDS, NEEDED
from data.formats.search import MEDIA_EXTENSIONS, FoundFiles, composed, media_kind, name_lookup, walk_files
from data.formats.tables import open_table
from data.media.files import printable
from data.rows import Manifest, ManifestRow, Media, Notice, SkippedRow, UnusableClip

NAMED_LISTS = 3  # that a note names
NAMED_KINDS = 5  # of files, where none is a clip
_PERSON = re.compile(r"(Dev|Val) (?!Set|Data|Split|Part|Clip|Video)[A-Z][a-z]+$")  # a signer, beside others
OTHER_CAPTIONS = (".json", ".srt", ".vtt")
SHEETS = (".xlsx", ".xls", ".ods", ".numbers")
OTHER_VIDEOS = (".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".mts", ".ogv", ".webp", ".apng")


def _recognise(path: Path) -> str | None:
    return "it is a folder, and nothing in it tells of another format" if path.is_dir() else None


def find_clips(path: Path, allowed: Sequence[Path] = ()) -> tuple[FoundFiles, list[str]]:
    """Return all files below a folder, and which of them are clips.

    Raises:
        UserError: none is, or the folder cannot be listed.
    """
    found = walk_files(path, allowed=allowed)
    clips = [name for name in found.names if media_kind(name) is not None]
    if not clips:
        raise UserError(
            f"DATA_ROOT={str(path)!r} holds no clip ({', '.join(MEDIA_EXTENSIONS)}). Each clip is a file with its "
            f"caption beside it: name.mp4 and name.txt.{_named_kinds(found.names)}{found.not_searched()}"
        )
    return found, clips


def _read(path: Path, allowed: tuple[Path, ...] = ()) -> Manifest:
    found, clips = find_clips(path, allowed)
    rows: dict[str, ManifestRow] = {}
    skipped = list(found.skipped)
    find, beside = name_lookup(found.names), dict[str, str]()
    for name in clips:
        clip_id = printable(name)
        try:
            if clip_id in rows:
                raise UnusableClip("cannot be told by its name from another file")
            beside[name] = caption_file(name, find)
            caption = read_caption(path, beside[name], allowed)
        except UnusableClip as error:
            skipped.append(SkippedRow(clip_id, str(error), outside=error.outside))
            continue
        kind = media_kind(name)
        assert kind is not None
        rows[clip_id] = ManifestRow(clip_id, Media(kind, name), caption)
    return with_split(Manifest(path, tuple(rows.values()), tuple(skipped), _notices(path, found.names, clips, beside)))


def caption_file(clip: str, find: Callable[[str], str | None]) -> str:
    """Return the path at which a clip has its caption, whether `find` knows such a file or not."""
    # In capitals, as some cameras and systems write names:
    name, capitals = (str(PurePosixPath(clip).with_suffix(suffix)) for suffix in (".txt", ".TXT"))
    return find(name) or find(capitals) or name


def _named_kinds(names: Sequence[str]) -> str:
    """Return a sentence that says which kinds of files there are, to append to a message; or nothing."""
    kinds = Counter(PurePosixPath(name).suffix.lower() or "without an extension" for name in names)
    listed = ", ".join(f"{shown_name(kind)} ({count})" for kind, count in kinds.most_common(NAMED_KINDS))
    return f" It holds {listed}{' and others' if len(kinds) > NAMED_KINDS else ''}." if kinds else ""


def with_signers(manifest: Manifest) -> Manifest:
    """Return the clips of a folder with the signer that each file's name begins with: alice_hello.mp4."""
    rows = []
    for row in manifest.rows:
        before, underscore, _ = PurePosixPath(row.media.path).stem.partition("_")
        rows.append(replace(row, signer=printable(before) if underscore and before else None))
    return replace(manifest, rows=tuple(rows))


def folders_of(name: str) -> tuple[str, ...]:
    """Return the folders in the path of a file, the outermost first."""
    return PurePosixPath(name).parent.parts


def with_split(manifest: Manifest, folders: Sequence[tuple[str, ...]] | None = None, what: str = "folders") -> Manifest:
    """Return the clips with the split that folders named train, val or test give; as they are if there are none.

    Clips that have a split keep it. For the others, the outermost level counts at which all of them have such a
    folder; without one, the outermost such folder of each.

    Args:
        manifest: clips, of which some may have a split.
        folders: those of each clip that may give it, the outermost first; all in its path if not given.
        what: they are, for people.

    Raises:
        UserError: only some of the clips lie in such a folder, or none of them lies in one for training.
    """
    places = folders or [folders_of(row.media.path) for row in manifest.rows]
    without = [number for number, row in enumerate(manifest.rows) if row.split is None]
    names = [manifest.rows[number].media.path for number in without]
    given = {row.split for row in manifest.rows} - {None}
    parts = _split_folders(manifest.root, names, [places[number] for number in without], what, "training" in given)
    if not parts:
        said_of_root = () if given else _root_notices(manifest.root)
        return replace(manifest, notices=(*manifest.notices, *said_of_root))
    splits = [split_named(part) for part in parts]
    said = [
        f"{counted(splits.count(split), 'clip')} for {kind}, such as {shown_name(names[splits.index(split)])}"
        for split, kind in (("training", "training"), ("validation", "validation"), ("test", "testing"))
        if split in splits
    ]
    text = (
        f"the names of {what} ({_quoted(parts)}) give the split: {'; '.join(said)} (rename {what} "
        "that are no split; SPLIT_BY=caption and SPLIT_BY=signer divide all but the test clips anew)"
    )
    rows = list(manifest.rows)
    for number, split in zip(without, splits, strict=True):
        rows[number] = replace(rows[number], split=split)
    return replace(manifest, rows=tuple(rows), notices=(*manifest.notices, Notice("split", text)))


def _split_folders(
    root: Path, names: Sequence[str], folders: Sequence[tuple[str, ...]], what: str, is_for_training: bool
) -> list[str]:
    """Return the name of the folder that says to which part of the split each clip belongs; none if none does."""
    levels = [[level for level, name in enumerate(each) if split_named(name)] for each in folders]
    if not any(levels):
        check_alike(root, folders, what)
        return []
    first = shown_name(names[next(number for number, found in enumerate(levels) if found)])
    if not all(levels):
        beside = shown_name(names[levels.index([])])
        raise UserError(
            f"DATA_ROOT={str(root)!r}: {what} named train, val or test hold {sum(map(bool, levels))} of "
            f"{counted(len(names), 'clip')}, such as {first}, but not {beside}. If these {what} are the split, move "
            f"every clip into one of them, or rename those of the others to one of {', '.join(SPLITS)}; if they are "
            "not, rename them."
        )
    common = set.intersection(*map(set, levels))
    parts = [each[min(common or found)] for each, found in zip(folders, levels, strict=True)]
    if not is_for_training and all(split_named(part) != "training" for part in parts):
        raise UserError(
            f"DATA_ROOT={str(root)!r}: no clip is for training; by the names of {what} all are for validation or "
            f"testing, such as {first}. Put the clips for training into {what} named train beside these; if these "
            f"{what} are no split, rename them."
        )
    return parts


def check_alike(root: Path, folders: Sequence[tuple[str, ...]], what: str = "folders") -> None:
    """Refuse names of one level that hold those of a split, as "my_train" and "Test 10%" do: test clips may be meant.

    Raises:
        UserError: there are such names for two different parts of the split, or for validation or test beside others.
    """
    for level in zip_longest(*folders, fillvalue=""):
        parts = {name: found for name in set(level) if (found := splits_in(name))}
        are_several = len(parts) > 1 and len(set().union(*parts.values())) > 1
        is_held_out = any(found - {"training"} and not _PERSON.match(name) for name, found in parts.items())
        if are_several or (is_held_out and len(parts) < len(set(level))):
            raise UserError(
                f"DATA_ROOT={str(root)!r}: the names of {what} look like a split, but none is one of "
                f"{', '.join(SPLITS)}: {_quoted(parts)}. If they are the split, rename them to train, val and test; if "
                "they are not, rename them so that these words are not in them."
            )


def _root_notices(root: Path) -> tuple[Notice, ...]:
    """Return what is said if the data set is one part of a split whose other parts lie beside it."""
    folder = Path(os.path.abspath(root))
    split = split_named(folder.name)
    if split is None:
        return ()
    if {split_named(name.rstrip(os.sep)) for name in glob.glob("*/", root_dir=folder.parent)} <= {split, None}:
        return ()
    text = (
        f"the folder itself is named {_quoted([folder.name])}: give the one that holds it, {str(folder.parent)!r}, to "
        "use its split"
    )
    return (Notice("split", text),)


def _quoted(names: Iterable[str]) -> str:
    """Return names of folders in order, those with blanks in quotes."""
    return ", ".join(shown(name) if re.search(r"\s", name) else shown_name(name) for name in sorted(set(names)))


def sheet_notices(names: Sequence[str]) -> list[Notice]:
    """Return what is said of the spreadsheets among the files, if they lie in the root."""
    sheets = [name for name in names if "/" not in name and PurePosixPath(name).suffix.lower() in SHEETS]
    return [
        Notice("files", f"{shown_name(name)} is not read: save it as CSV UTF-8, as manifest.csv")
        for name in sheets[:NAMED_LISTS]
    ]


def _why_no_list(root: Path, name: str) -> str:
    """Return what is wrong with the first line of a table, to continue a sentence that begins with its name; or ""."""
    if not name.lower().endswith((".csv", ".tsv")) or os.path.islink(root / name):
        return ""
    try:
        open_table(root / name, NEEDED, other_names=FIELDS)
    except UserError as error:
        return str(error).removeprefix(shown_name(str(root / name))).strip(" .")
    return ""


def _notices(root: Path, names: Sequence[str], clips: Sequence[str], beside: Mapping[str, str]) -> tuple[Notice, ...]:
    captions = {name for name in names if PurePosixPath(name).suffix.lower() == ".txt"}
    without = [name for name in clips if beside.get(name) not in captions]
    lists = [name for name in names if "/" not in name and PurePosixPath(name).suffix.lower() in LIST_EXTENSIONS]
    notes = []
    if lonely := captions.difference(beside.values()):
        count = counted(len(lonely), ".txt file has no clip beside it", ".txt files have no clip beside them")
        stems = {_stem(name).casefold() for name in without}
        in_capitals = sum(_stem(name).casefold() in stems for name in lonely)
        why = f" ({in_capitals} would have one if capitals were alike)" if in_capitals else ""
        notes.append(f"{count}{why}, such as {shown_name(min(lonely))}")
    if others := [name for name in names if PurePosixPath(name).suffix.lower() in OTHER_VIDEOS]:
        count = counted(len(others), "video is of a kind that is", "videos are of kinds that are")
        notes.append(f"{count} not read, such as {shown_name(others[0])}: encode anew")
    without_captions = {_stem(name) for name in without}
    for kind in OTHER_CAPTIONS:
        if unread := sum(name.lower().endswith(kind) and _stem(name) in without_captions for name in names):
            count = counted(unread, f"{kind} file is", f"{kind} files are")
            notes.append(f"{count} not read as captions: write .txt files")
    if lists and without:
        more = f" and {len(lists) - NAMED_LISTS} more" if len(lists) > NAMED_LISTS else ""
        named = " or ".join(shown_name(name) for name in lists[:NAMED_LISTS]) + more
        why = _why_no_list(root, lists[0]) if len(lists) == 1 else ""
        notes.append(f"{named} may be the list of clips{f', but {why}' if why else ': give it as DATA_ROOT'}")
    if without and all(folders_of(name) and not split_named(folders_of(name)[-1]) for name in without):
        notes.append(
            f"if the names of folders are the captions, such as {shown_name(folders_of(without[0])[-1])!r} of "
            f"{shown_name(without[0])}, set DATA_FORMAT to 'words'"
        )
    return (*(Notice("files", note) for note in notes), *(sheet_notices(names) if without else ()))


def _stem(name: str) -> str:
    return composed(str(PurePosixPath(name).with_suffix("")))


FORMAT = DataFormat(
    "folder",
    "folder of clips with captions",
    "a folder of clips, each with its caption beside it: name.mp4 and name.txt",
    _recognise,
    _read,
)
