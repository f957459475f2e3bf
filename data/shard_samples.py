"""A clip as the files that it has in a WebDataset shard."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from data.manifest import WHOLE, ManifestRow
from data.media.budget import MOST_MEMBER_BYTES
from data.media.decode import open_media
from data.media.encode import ENCODED_SUFFIX, encode_clip
from data.media.frames import FrameFolder
from data.media.video import check_kind
from data.unusable import UnusableClip

_BLOCK = 512  # bytes: of a header in a tar file, and what contents are filled up to


@dataclass(frozen=True)
class ShardSample:
    """The files of one clip."""

    files: Mapping[str, bytes]  # by extension, without a dot
    is_encoded: bool  # anew; the others are as they were

    @property
    def bytes_in_tar(self) -> int:
        """Return the room that they take in a tar file."""
        return sum(_BLOCK + -(-len(content) // _BLOCK) * _BLOCK for content in self.files.values())


def prepare_sample(root: Path, row: ManifestRow) -> ShardSample:
    """Read or encode a clip, and write down what its row says.

    Raises:
        UnusableClip: it cannot be read, or is too large.
    """
    span = row.media.span
    is_encoded = row.media.kind == "frames" or (row.media.kind == "video" and span != WHOLE)
    try:
        suffix, content = (ENCODED_SUFFIX, encode_clip(root, row.media)) if is_encoded else _file_as_it_is(root, row)
    except OSError as error:
        raise UnusableClip(f"cannot be read ({error.strerror})") from error
    facts: dict[str, object] = {
        "id": row.id,
        "signer": row.signer,
        "split": row.split,
        "language": row.language,
    }
    if not is_encoded and span != WHOLE:
        facts |= {"start": span.start, "end": span.end}
    facts = {name: value for name, value in facts.items() if value is not None}
    files = {
        suffix.removeprefix("."): content,
        "txt": row.caption.encode(),
        "json": json.dumps(facts).encode(),
    }
    return ShardSample(files, is_encoded)


def _file_as_it_is(root: Path, row: ManifestRow) -> tuple[str, bytes]:
    """Return the extension and the content of a file, after a look at its beginning."""
    opened = open_media(root, row.media)
    assert not isinstance(opened, FrameFolder)
    opened.check_size()
    if row.media.kind == "video":
        check_kind(opened)
    content = opened.read_bytes(MOST_MEMBER_BYTES + 1)
    if len(content) > MOST_MEMBER_BYTES:
        raise UnusableClip(f"is larger than {MOST_MEMBER_BYTES >> 20} MiB: too large for a clip in a shard")
    return opened.suffix, content
