"""All formats, and which of them a data set has."""

import os
from pathlib import Path

from common.errors import UserError
from data.formats import folder, how2sign, manifest, phoenix, pose_lexicon, webdataset, wlasl
from data.formats.data_format import DataFormat, ReadingOptions
from data.manifest import Manifest

# In the order in which they are tried. A lexicon's index is a table as well, so it comes before the lists that people
# write; such a list comes before the published sets, because whoever puts one into a set's folder means it to count.
FORMATS: tuple[DataFormat, ...] = (
    pose_lexicon.FORMAT,
    manifest.FORMAT,
    how2sign.FORMAT,
    phoenix.FORMAT,
    wlasl.FORMAT,
    webdataset.FORMAT,  # after those, which may still have their archives beside them
    folder.FORMAT,
)
FORMAT_NAMES = tuple(data_format.name for data_format in FORMATS)

_LOOKS_LIKE = {
    "pose_lexicon": f"an {pose_lexicon.INDEX}, or a .csv file, with the columns {', '.join(pose_lexicon.COLUMNS)}",
    "manifest": f"one of {', '.join(manifest.NAMES)}, or a file that ends in {', '.join(manifest.EXTENSIONS)}",
    "how2sign": "a folder with how2sign_realigned_train.csv, ..._val.csv or ..._test.csv",
    "phoenix": "a folder with PHOENIX-2014-T.train.corpus.csv, ...dev.corpus.csv or ...test.corpus.csv",
    "wlasl": f"a folder with {wlasl.BEST_LIST}",
    "webdataset": "a folder with shards, which are .tar files, and no clips beside them",
    "folder": "a folder of clips, each with its caption beside it: name.mp4 and name.txt",
}


def read_data_set(path: Path, format_name: str, options: ReadingOptions) -> tuple[str, str, Manifest]:
    """Read what a data set says of its clips; none of them is opened.

    Args:
        path: DATA_ROOT.
        format_name: DATA_FORMAT, one of `FORMAT_NAMES`, or "auto" for the first that recognises the path.
        options: how to read it.

    Returns:
        The format's name; what the data set was taken for and why, for people: "PHOENIX-2014T (it holds
        PHOENIX-2014-T.train.corpus.csv)"; the clips.

    Raises:
        UserError: there is no such path, it does not look like that format or like any, or it cannot be read.
    """
    if not os.path.exists(path):
        raise UserError(
            f"DATA_ROOT={str(path)!r} does not exist. Give the folder of your clips, or the file that lists them."
        )
    if format_name != "auto":
        chosen, why = _named(path, format_name), "DATA_FORMAT says so"
    elif (recognised := _recognise(path)) is not None:
        chosen, why = recognised
    else:
        raise UserError(f"DATA_ROOT={str(path)!r} is nothing that can be read. Possible are {_possible()}.")
    return chosen.name, f"{chosen.title} ({why})", chosen.read(path, options)


def _recognise(path: Path) -> tuple[DataFormat, str] | None:
    for data_format in FORMATS:
        why = data_format.recognise(path)
        if why is not None:
            return data_format, why
    return None


def _named(path: Path, name: str) -> DataFormat:
    by_name = {data_format.name: data_format for data_format in FORMATS}
    if name not in by_name:
        raise UserError(f"DATA_FORMAT={name!r} is not known. Choose one of: auto, {', '.join(FORMAT_NAMES)}.")
    if by_name[name].recognise(path) is not None:
        return by_name[name]
    instead = "It is nothing else that can be read either."
    if (recognised := _recognise(path)) is not None:
        other, why = recognised
        instead = f"It looks like {other.title} ({why}): set DATA_FORMAT to {other.name!r} or 'auto'."
    raise UserError(
        f"DATA_FORMAT={name!r}, but DATA_ROOT={str(path)!r} is not {by_name[name].title}: that is {_LOOKS_LIKE[name]}. "
        + instead
    )


def _possible() -> str:
    return "; ".join(f"{name}: {description}" for name, description in _LOOKS_LIKE.items())
