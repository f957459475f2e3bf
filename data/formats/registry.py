"""All formats, and which of them a data set has."""

import os
from dataclasses import replace
from pathlib import Path

from common.errors import UserError
from data.formats import folder, how2sign, manifest, msasl, phoenix, pose_lexicon, webdataset, wlasl, words
from data.formats.data_format import DataFormat
from data.formats.fields import split_named
from data.formats.manifest import check_list
from data.formats.search import MEDIA_EXTENSIONS, URL, media_kind
from data.rows import Manifest

PUBLISHED: tuple[DataFormat, ...] = (how2sign.FORMAT, phoenix.FORMAT, wlasl.FORMAT, msasl.FORMAT)
# In the order in which they are tried. A lexicon's index is a table as well, so it comes before the lists that people
# write; such a list comes before the published sets, because a list in a set's folder is meant to count.
FORMATS: tuple[DataFormat, ...] = (
    pose_lexicon.FORMAT,
    manifest.FORMAT,
    *PUBLISHED,
    webdataset.FORMAT,  # after those, which may still have their archives next to them
    words.FORMAT,
    folder.FORMAT,
)
ARCHIVES = (".zip", ".rar", ".7z", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst")
FORMAT_NAMES = tuple(data_format.name for data_format in FORMATS)


def read_data_set(path: Path, format_name: str, allowed: tuple[Path, ...] = ()) -> tuple[str, str, Manifest]:
    """Read what a data set says of its clips; none of them is opened.

    Args:
        path: DATA_ROOT.
        format_name: DATA_FORMAT, one of `FORMAT_NAMES`, or "auto" for the first that recognises the path.
        allowed: DATA_ALLOW, folders outside of the data set's that its paths and links may lead to.

    Returns:
        The format's name; what the data set was taken for and why, for people: "PHOENIX-2014T (it holds
        PHOENIX-2014-T.train.corpus.csv)"; the clips.

    Raises:
        UserError: there is no such path, it is in no known format, or it cannot be read.
    """
    if not os.path.exists(path):
        if URL.match(str(path)):
            raise UserError(f"DATA_ROOT={str(path)!r}: nothing is fetched. Download it, and give its folder.")
        raise UserError(
            f"DATA_ROOT={str(path)!r} does not exist. Give the folder of your clips, or the file that lists them."
        )
    if format_name != "auto":
        chosen = next((each for each in FORMATS if each.name == format_name), None)
        if chosen is None:
            raise UserError(
                f"DATA_FORMAT={format_name!r} is not known. Choose one of: auto, {', '.join(FORMAT_NAMES)}."
            )
        return chosen.name, f"{chosen.title} (DATA_FORMAT says so)", _read_as(chosen, path, allowed)
    recognised = _recognise(path)
    if recognised is None:
        raise UserError(f"DATA_ROOT={str(path)!r} {_instead_of(path)}")
    chosen, why = recognised
    try:
        read = _read(chosen, path, allowed)
    except UserError as error:
        raise UserError(f"{error}{_set_around(path)}") from error
    if not read.rows and (instead := _set_around(path)):
        raise UserError(f"DATA_ROOT={str(path)!r} lists no clip that can be read.{instead}")
    return chosen.name, f"{chosen.title} ({why})", read


def _read(chosen: DataFormat, path: Path, allowed: tuple[Path, ...]) -> Manifest:
    """Return the clips, each with what its path and links may lead to, which is checked when it is opened."""
    read = chosen.read(path, allowed)
    if chosen is manifest.FORMAT:
        read = _with_split(read)
    return replace(read, rows=tuple(replace(row, media=replace(row.media, allowed=allowed)) for row in read.rows))


def _with_split(read: Manifest) -> Manifest:
    """Return the clips of a list; those without a split get it from folders, if these are named by parts of one.

    Raises:
        UserError: such folders may or may not be the split.
    """
    folders = [folder.folders_of(row.media.path) for row in read.rows]
    named = [{split_named(name) for name in each} - {None} for each in folders]
    open_to = set().union(*(parts for row, parts in zip(read.rows, named, strict=True) if row.split is None))
    try:
        if len(set().union(*named)) > 1 and open_to - {"training"}:
            return folder.with_split(read)
        if not any(named) and all(row.split is None for row in read.rows):
            folder.check_alike(read.root, folders)
    except UserError as error:
        raise UserError(f"{error} Or give every clip its split in the list.") from error
    return read


def _set_around(path: Path) -> str:
    """Return a sentence that names the published set of which a file seems to be one of the lists; or nothing."""
    for data_format in PUBLISHED if os.path.isfile(path) else ():
        if (why := data_format.recognise(path.parent)) is not None:
            return f" Its folder looks like {data_format.title} ({why}): give {str(path.parent)!r} as DATA_ROOT."
    return ""


def _instead_of(path: Path) -> str:
    """Return what to give in place of a file that is in no format; it continues a sentence that begins with it.

    Raises:
        UserError: it may be meant as a list, and is none.
    """
    suffix = path.suffix.lower()
    with_captions = f"Give the folder that holds it, {str(path.parent)!r}, with a caption beside each clip."
    if media_kind(path.name) is not None:
        return f"is a single clip. {with_captions}"
    if suffix == ".txt" and any(path.with_suffix(extension).exists() for extension in MEDIA_EXTENSIONS):
        return f"is the caption of a single clip. {with_captions}"
    if suffix in ARCHIVES:
        return "is an archive: unpack it and give the folder."
    if suffix in folder.SHEETS:
        return "is not read: save it as CSV UTF-8 and give that file."
    try:
        check_list(path)
    except UserError as error:
        raise UserError(f"{error}{_set_around(path)}") from error
    others = ", ".join(each.title for each in (*PUBLISHED, webdataset.FORMAT, pose_lexicon.FORMAT))
    return (
        f"is nothing that can be read.{_set_around(path)} Possible are {folder.FORMAT.needs}; {words.FORMAT.needs}; a "
        f"list of clips with captions ({', '.join(manifest.EXTENSIONS)}, .json); and {others} (docs/data.md)."
    )


def _recognise(path: Path) -> tuple[DataFormat, str] | None:
    for data_format in FORMATS:
        why = data_format.recognise(path)
        if why is not None:
            return data_format, why
    return None


def _read_as(chosen: DataFormat, path: Path, allowed: tuple[Path, ...]) -> Manifest:
    """Read a data set as the format that the user named, and say what else it may be if that fails."""
    try:
        return _read(chosen, path, allowed)
    except UserError as error:
        if chosen.recognise(path) is not None:
            raise
        instead = "It is nothing else that can be read either."
        if (recognised := _recognise(path)) is not None:
            other, why = recognised
            instead = f"It looks like {other.title} ({why}): set DATA_FORMAT to {other.name!r} or 'auto'."
        raise UserError(f"{error} DATA_FORMAT={chosen.name!r} means {chosen.needs}. {instead}") from error
