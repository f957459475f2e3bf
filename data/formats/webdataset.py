"""WebDataset shards: tar files in which each sample is a few files that share a name, ``0001.mp4`` and ``0001.txt``.

The clip stays where it is: its row says at which byte of which tar file it begins. The caption is a .txt file, or the
field text or caption of a .json file, which may also have signer, split, start, end and language. To a sample
without a split, the names of shards or their folders give it: ``train-000000.tar``, ``test/000000.tar``.
"""

import glob
import itertools
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from common.errors import UserError
from data.captions import MOST_CAPTION_BYTES, checked_caption, decode_caption
from data.formats.data_format import DataFormat
from data.formats.fields import Values, as_name, as_span, as_split, as_text, shown_name
from data.formats.folder import folders_of, with_split
from data.formats.search import MEDIA_EXTENSIONS, FoundFiles, media_kind, walk_files
from data.formats.tar_index import MOST_NAME_LENGTH, Member, index_tar
from data.inspection import map_in_threads
from data.media.files import inside_file, printable
from data.rows import Manifest, ManifestRow, Media, SkippedRow, TarMember, UnusableClip

TAR_EXTENSION = ".tar"
COMPRESSED_EXTENSIONS = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
MOST_READERS = 8  # threads, each with one tar file: most of the time goes to waiting for the disk
MOST_JSON_BYTES = 1 << 18
NAMED_PROBLEMS = 3  # that the message names if nothing can be used
NAMED_SUFFIXES = 5  # of a sample's files, that a message names
SHOWN_OF_LONG_NAME = 60  # characters


def _recognise(path: Path) -> str | None:
    if not os.path.isdir(path):
        return None
    here, tars = glob.glob("*", root_dir=path), []
    for name in (*here, *glob.iglob("*/*", root_dir=path)):  # a folder for each split is common
        if media_kind(name) is not None:  # a tar file next to clips is a copy of them
            return None
        if name.lower().endswith(TAR_EXTENSION):
            tars.append(name)
    if not tars and not any(os.path.isdir(path / name) for name in here):  # or it is where the folders come from
        tars = [name for name in here if name.lower().endswith(COMPRESSED_EXTENSIONS)]  # to say what is to be done
    return f"it holds {shown_name(min(tars, key=lambda name: (os.sep in name, name)))}" if tars else None


def _read(path: Path, allowed: tuple[Path, ...] = ()) -> Manifest:
    found = walk_files(path, allowed=allowed) if path.is_dir() else FoundFiles((), ())
    shards = _shard_names(path, found)
    threads = min(MOST_READERS, len(shards))
    parts = map_in_threads(lambda name: _read_shard(path, name, allowed), shards, "Indexing shards", threads)
    rows: dict[str, ManifestRow] = {}
    skipped = list(found.skipped)
    for row in itertools.chain.from_iterable(parts):
        if isinstance(row, SkippedRow):
            skipped.append(row)
        elif row.id in rows:
            skipped.append(SkippedRow(row.id, "cannot be told by its name from another sample"))
        else:
            rows[row.id] = row
    if not rows:
        named = ", ".join(f"{shown_name(row.id)} {row.reason}" for row in skipped[:NAMED_PROBLEMS])
        raise UserError(
            f"DATA_ROOT={str(path)!r}: no clip can be read from its tar files ({len(shards)}): {named}. Each sample is "
            "a clip and its caption under the same name: 0001.mp4 and 0001.txt."
        )
    manifest = Manifest(path, tuple(rows.values()), tuple(skipped))
    words = {name: (*folders_of(name), *re.split(r"[-_.]", PurePosixPath(name).stem)) for name in shards}
    return with_split(manifest, [words[row.media.path] for row in manifest.rows], "shards or their folders")


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


def _read_shard(root: Path, name: str, allowed: tuple[Path, ...]) -> list[ManifestRow | SkippedRow]:
    """Return what is in one tar file, skipped samples before the others."""
    rows: list[ManifestRow] = []
    skipped: list[SkippedRow] = []
    shard_id = printable(name)
    try:
        with open(inside_file(root, name, allowed), "rb") as file:
            index = index_tar(file)
            if index.problem is not None:
                skipped.append(SkippedRow(shard_id, index.problem))
            samples = _group_samples(index.members)
            if not samples and index.problem is None:
                skipped.append(SkippedRow(shard_id, "holds no sample"))
            for sample in samples:
                sample_id = printable(f"{name}/{sample.shown_key}")
                try:
                    rows.append(_read_row(sample_id, name, sample, _Contents(file, index.size)))
                except UnusableClip as error:
                    skipped.append(SkippedRow(sample_id, str(error)))
    except UnusableClip as error:
        skipped.append(SkippedRow(shard_id, str(error), outside=error.outside))
    except OSError as error:
        skipped.append(SkippedRow(shard_id, f"cannot be read ({error.strerror})"))
    return [*skipped, *rows]


@dataclass
class _Sample:
    """The files of a tar file that share a name up to its first dot."""

    key: str
    members: dict[str, Member] = field(default_factory=dict)  # by what follows the dot, in lower case
    is_repeated: bool = False  # two of its files have the same name

    @property
    def shown_key(self) -> str:
        return self.key if len(self.key) <= MOST_NAME_LENGTH else f"{self.key[:SHOWN_OF_LONG_NAME]}..."


def _group_samples(members: Sequence[Member]) -> list[_Sample]:
    """Return the samples of a tar file in order; what has no extension belongs to none."""
    samples: dict[str, _Sample] = {}
    for member in members:
        if len(member.name) > MOST_NAME_LENGTH:  # its end is not known: a sample without files, to be refused
            samples.setdefault(member.name, _Sample(member.name))
            continue
        key, suffix = _split_name(member.name)
        if not suffix:
            continue
        sample = samples.setdefault(key, _Sample(key))
        sample.is_repeated |= suffix in sample.members
        sample.members[suffix] = member
    return list(samples.values())


def _split_name(name: str) -> tuple[str, str]:
    """Return the key and the suffix of a file; no suffix if it belongs to no sample.

    Hidden files belong to none, nor do those below ``__name__``, which the library reserves.
    """
    folder, slash, base = name.removeprefix("./").rpartition("/")
    stem, _, suffix = base.partition(".")
    first = (folder or base).split("/")[0]
    is_reserved = len(first) >= 4 and first.startswith("__") and first.endswith("__")
    return (folder + slash + stem, suffix.lower()) if stem and not is_reserved else (name, "")


@dataclass(frozen=True)
class _Contents:
    """An open tar file."""

    tar: BinaryIO
    size: int  # of the tar file

    def check(self, member: Member) -> None:
        """Refuse what is no file, or does not lie within the tar file."""
        if not member.is_file:
            raise UnusableClip(f"has no usable .{_shown(member)}: it is a link, a device or a sparse file")
        if member.offset + member.size > self.size:
            raise UnusableClip(f"is cut off: its tar file ends before its .{_shown(member)} does")

    def read(self, member: Member, most: int) -> bytes:
        """Return the first `most` bytes of a member."""
        self.check(member)
        self.tar.seek(member.offset)
        return self.tar.read(min(member.size, most))


def _read_row(sample_id: str, tar: str, sample: _Sample, contents: _Contents) -> ManifestRow:
    _check_name(sample)
    media_member = _only_media(sample)
    contents.check(media_member)
    values: Values = {}
    if (member := _belonging(media_member, sample, "json")) is not None:
        values = _decode_json(contents.read(member, MOST_JSON_BYTES + 1))
    if (member := _belonging(media_member, sample, "txt")) is not None:
        caption = decode_caption(contents.read(member, MOST_CAPTION_BYTES + 1), "its .txt")
    else:
        caption = _caption_of(values)
    kind = media_kind(media_member.name)
    assert kind is not None
    suffix = PurePosixPath(media_member.name).suffix.lower()
    place = TarMember(media_member.offset, media_member.size, suffix)
    media = Media(kind, tar, as_span(values), member=place)
    return ManifestRow(
        sample_id, media, caption, as_name(values, "signer"), as_split(values), as_name(values, "language")
    )


def _check_name(sample: _Sample) -> None:
    if len(sample.key) > MOST_NAME_LENGTH:
        raise UnusableClip(f"has a name of more than {MOST_NAME_LENGTH} characters")
    path = PurePosixPath(sample.key)
    if path.is_absolute() or ".." in path.parts:
        raise UnusableClip("has a name that leads out of its tar file")
    if sample.is_repeated:
        raise UnusableClip("is in its tar file more than once")


def _only_media(sample: _Sample) -> Member:
    media = [member for member in sample.members.values() if media_kind(member.name) is not None]
    if not media:
        names = sorted(f".{shown_name(suffix)}" for suffix in sample.members)
        more = " and others" if len(names) > NAMED_SUFFIXES else ""
        raise UnusableClip(
            f"has no clip ({', '.join(MEDIA_EXTENSIONS)}), only {', '.join(names[:NAMED_SUFFIXES])}{more}"
        )
    if len(media) > 1:
        names = sorted(f".{_shown(member)}" for member in media)
        raise UnusableClip(
            f"has more than one clip: {', '.join(names[:NAMED_SUFFIXES])} (a sample's name ends at its first dot)"
        )
    return media[0]


def _belonging(media: Member, sample: _Sample, extension: str) -> Member | None:
    """Return the file that belongs to a clip: to 01.left.mp4 that is 01.left.txt, otherwise 01.txt."""
    suffix = _split_name(media.name)[1]
    before = suffix.removesuffix(PurePosixPath(media.name).suffix[1:].lower())
    return sample.members.get(before + extension) or sample.members.get(extension)


def _shown(member: Member) -> str:
    return shown_name(_split_name(member.name)[1])


def _decode_json(content: bytes) -> Values:
    if len(content) > MOST_JSON_BYTES:
        raise UnusableClip(f"has no usable .json: it is larger than {MOST_JSON_BYTES >> 10} KiB")
    try:
        values = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, or nested without end
        raise UnusableClip(f"has no usable .json: it is not JSON ({str(error)[:120]})") from error
    if not isinstance(values, dict):
        raise UnusableClip('has no usable .json: it is not a JSON object such as {"text": "hello"}')
    return values


def _caption_of(values: Values) -> str:
    names = [name for name in ("text", "caption") if values.get(name) is not None]
    if not names:
        raise UnusableClip("has no caption: neither a .txt file, nor a .json file with text")
    return checked_caption(as_text(values, names[0]))


FORMAT = DataFormat(
    "webdataset",
    "WebDataset shards",
    "a folder with shards, which are .tar files",
    _recognise,
    _read,
)
