"""The samples of a WebDataset shard: files in a tar file that share a name up to its first dot."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import BinaryIO

from data.captions import MOST_CAPTION_BYTES, checked_caption, decode_caption
from data.formats.fields import Values, as_name, as_span, as_split, as_text, shown_name
from data.formats.media_rows import MEDIA_EXTENSIONS, media_kind
from data.formats.tar_index import MOST_NAME_LENGTH, Member
from data.manifest import ManifestRow, Media, TarMember
from data.unusable import UnusableClip

MOST_JSON_BYTES = 1 << 18
NAMED_SUFFIXES = 5  # of a sample's files, that a message names
SHOWN_OF_LONG_NAME = 60  # characters


@dataclass
class Sample:
    """The files of a tar file that share a name up to its first dot."""

    key: str
    members: dict[str, Member] = field(default_factory=dict)  # by what follows the dot, in lower case
    is_repeated: bool = False  # two of its files have the same name

    @property
    def shown_key(self) -> str:
        """Return the key, or the beginning of one that is too long to be used."""
        return self.key if len(self.key) <= MOST_NAME_LENGTH else f"{self.key[:SHOWN_OF_LONG_NAME]}..."


def group_samples(members: Sequence[Member]) -> list[Sample]:
    """Return the samples of a tar file in order; whatever has no extension belongs to none."""
    samples: dict[str, Sample] = {}
    for member in members:
        if len(member.name) > MOST_NAME_LENGTH:  # its end is not known: a sample without files, to be refused
            samples.setdefault(member.name, Sample(member.name))
            continue
        key, suffix = _split_name(member.name)
        if not suffix:
            continue
        sample = samples.setdefault(key, Sample(key))
        sample.is_repeated |= suffix in sample.members
        sample.members[suffix] = member
    return list(samples.values())


def _split_name(name: str) -> tuple[str, str]:
    """Return the key and the suffix of a file; no suffix where it belongs to no sample.

    Hidden files belong to none, nor do those below ``__name__``, which the library keeps for itself.
    """
    folder, slash, base = name.removeprefix("./").rpartition("/")
    stem, _, suffix = base.partition(".")
    first = (folder or base).split("/")[0]
    is_reserved = len(first) >= 4 and first.startswith("__") and first.endswith("__")
    return (folder + slash + stem, suffix.lower()) if stem and not is_reserved else (name, "")


@dataclass(frozen=True)
class TarContents:
    """The contents within an open tar file."""

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


def read_row(sample_id: str, tar: str, sample: Sample, contents: TarContents) -> ManifestRow:
    """Return what a sample says of its clip.

    Args:
        sample_id: unique in the data set.
        tar: path of the tar file within the data set's root.
        sample: its files.
        contents: of the tar file.

    Raises:
        UnusableClip: no clip can be made of it.
        OSError: the tar file cannot be read.
    """
    _check_name(sample)
    media_member = _only_media(sample)
    contents.check(media_member)
    values: Values = {}
    if (member := _beside(media_member, sample, "json")) is not None:
        values = _decode_json(contents.read(member, MOST_JSON_BYTES + 1))
    if (member := _beside(media_member, sample, "txt")) is not None:
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


def _check_name(sample: Sample) -> None:
    if len(sample.key) > MOST_NAME_LENGTH:
        raise UnusableClip(f"has a name of more than {MOST_NAME_LENGTH} characters")
    path = PurePosixPath(sample.key)
    if path.is_absolute() or ".." in path.parts:
        raise UnusableClip("has a name that leads out of its tar file")
    if sample.is_repeated:
        raise UnusableClip("is in its tar file more than once")


def _only_media(sample: Sample) -> Member:
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


def _beside(media: Member, sample: Sample, extension: str) -> Member | None:
    """Return the file that belongs to a clip: to 01.left.mp4 that is 01.left.txt, or else 01.txt."""
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
