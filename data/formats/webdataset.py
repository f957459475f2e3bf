"""WebDataset shards: tar files in which each sample is a few files that share a name, ``0001.mp4`` and ``0001.txt``.

The clip stays where it is: its row says at which byte of which tar file it begins. The caption is a .txt file, or the
field text or caption of a .json file, which may also have signer, split, start, end and language.
"""

import glob
import itertools
import os
from dataclasses import dataclass, field
from pathlib import Path

from common.errors import UserError
from data.formats.data_format import DataFormat, ReadingOptions
from data.formats.fields import shown_name
from data.formats.media_rows import FoundFiles, media_kind, walk_files
from data.formats.tar_index import index_tar
from data.formats.tar_samples import Sample, TarContents, group_samples, read_row
from data.manifest import Manifest, ManifestRow, SkippedRow
from data.parallel import map_in_threads
from data.paths import inside_file, printable
from data.unusable import UnusableClip

TAR_EXTENSION = ".tar"
COMPRESSED_EXTENSIONS = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
MOST_READERS = 8  # threads, each with one tar file: most of the time goes to waiting for the disk
NAMED_PROBLEMS = 3  # that the message names where nothing can be used


def _recognise(path: Path) -> str | None:
    if not os.path.isdir(path):
        return None
    here, tars = glob.glob("*", root_dir=path), []
    for name in itertools.chain(here, glob.iglob("*/*", root_dir=path)):  # a folder for each split is common
        if media_kind(name) is not None:  # a tar file beside clips is a copy of them
            return None
        if name.lower().endswith(TAR_EXTENSION):
            tars.append(name)
    if not tars and not any(os.path.isdir(path / name) for name in here):  # or it is where the folders come from
        tars = [name for name in here if name.lower().endswith(COMPRESSED_EXTENSIONS)]  # to say what is to be done
    return f"it holds {shown_name(min(tars, key=lambda name: (os.sep in name, name)))}" if tars else None


def _read(path: Path, options: ReadingOptions) -> Manifest:
    found = walk_files(path) if path.is_dir() else FoundFiles((), ())
    shards = _shard_names(path, found)
    threads = min(MOST_READERS, len(shards))
    parts = map_in_threads(lambda name: _read_shard(path, name), shards, "Indexing shards", threads)
    rows: dict[str, ManifestRow] = {}
    skipped = list(found.skipped)
    for shard in parts:
        skipped += shard.skipped
        for row in shard.rows:
            if row.id in rows:
                skipped.append(SkippedRow(row.id, "cannot be told by its name from another sample"))
            else:
                rows[row.id] = row
    if not rows:
        named = ", ".join(f"{shown_name(row.id)} {row.reason}" for row in skipped[:NAMED_PROBLEMS])
        raise UserError(
            f"DATA_ROOT={str(path)!r}: no clip can be read from its tar files ({len(shards)}): {named}. Each sample is "
            "a clip and its caption under the same name: 0001.mp4 and 0001.txt."
        )
    return Manifest(path, tuple(rows.values()), tuple(skipped))


def _shard_names(root: Path, found: FoundFiles) -> list[str]:
    for name in found.names:
        if name.lower().endswith(COMPRESSED_EXTENSIONS):
            raise UserError(
                f"DATA_ROOT={str(root)!r}: {shown_name(name)} is compressed, so that no single clip can be read from "
                "it. Unpack it to a plain .tar file (gunzip, unzstd, bunzip2 or unxz), or move it away. Videos are "
                "compressed already: it will hardly grow."
            )
    shards = [name for name in found.names if name.lower().endswith(TAR_EXTENSION)]
    if not shards:
        raise UserError(
            f"DATA_ROOT={str(root)!r} is no folder with WebDataset shards: it holds no .tar file.{found.not_searched()}"
        )
    return shards


@dataclass
class _Shard:
    """What was found in one tar file."""

    rows: list[ManifestRow] = field(default_factory=list)
    skipped: list[SkippedRow] = field(default_factory=list)

    def add(self, sample_id: str, tar: str, sample: Sample, contents: TarContents) -> None:
        try:
            self.rows.append(read_row(sample_id, tar, sample, contents))
        except UnusableClip as error:
            self.skipped.append(SkippedRow(sample_id, str(error)))


def _read_shard(root: Path, name: str) -> _Shard:
    shard, shard_id = _Shard(), printable(name)
    try:
        with open(inside_file(root, name), "rb") as file:
            index = index_tar(file)
            if index.problem is not None:
                shard.skipped.append(SkippedRow(shard_id, index.problem))
            samples = group_samples(index.members)
            if not samples and index.problem is None:
                shard.skipped.append(SkippedRow(shard_id, "holds no sample"))
            contents = TarContents(file, index.size)
            for sample in samples:
                shard.add(printable(f"{name}/{sample.shown_key}"), name, sample, contents)
    except UnusableClip as error:
        shard.skipped.append(SkippedRow(shard_id, str(error)))
    except OSError as error:
        shard.skipped.append(SkippedRow(shard_id, f"cannot be read ({error.strerror})"))
    return shard


FORMAT = DataFormat(
    "webdataset",
    "WebDataset shards",
    "a folder with shards, which are .tar files",
    _recognise,
    _read,
)
