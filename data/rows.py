"""What a data set says of its clips, before any of them is opened. Every format is read into these rows."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Split = Literal["training", "validation", "test"]
MediaKind = Literal["video", "frames", "pose"]
Topic = Literal["files", "clips", "pictures", "captions", "split", "cache"]


class UnusableClip(Exception):
    """A clip, its caption or its line in a list cannot be used.

    The message says why and continues a sentence that begins with the clip's name: "is empty".
    """

    def __init__(self, reason: str, outside: str = "") -> None:
        super().__init__(reason)
        self.outside = outside  # where a path or link leads that may not be read: a folder that could be allowed


@dataclass(frozen=True)
class TimeSpan:
    """A part of a file, in seconds after its first frame."""

    start: float = 0.0
    end: float | None = None  # None is the end of the file


WHOLE = TimeSpan()


@dataclass(frozen=True)
class TarMember:
    """A file inside an uncompressed tar file."""

    offset: int  # of its content, in bytes
    size: int
    suffix: str  # of its name: ".mp4"


@dataclass(frozen=True)
class Media:
    """Where a clip's pictures are."""

    kind: MediaKind
    path: str  # of a file, or of a folder of frames, from the data set's root
    span: TimeSpan = WHOLE
    frames_per_second: float = 25.0  # of a folder of frames; files say their own
    member: TarMember | None = None  # where `path` is a tar file: the part of it
    allowed: tuple[Path, ...] = ()  # folders outside of the root that the path and links may lead to


@dataclass(frozen=True)
class ManifestRow:
    """One clip with its caption."""

    id: str  # unique in the data set, printable, the same at every start; it names the clip in messages
    media: Media
    caption: str  # normalised (data.captions), not empty
    signer: str | None = None
    split: Split | None = None  # where the data set gives it
    language: str | None = None


@dataclass(frozen=True)
class SkippedRow:
    """A line of a data set, or a file in it, of which no clip can be made."""

    id: str
    reason: str  # continues a sentence that begins with the id
    is_absent: bool = False  # the data set lists the clip, but its file was never there: no sign of damage
    outside: str = ""  # see UnusableClip


@dataclass(frozen=True)
class Notice:
    """Something that changes what is trained on, or that a person may not expect of a data set."""

    topic: Topic
    text: str  # a sentence without a full stop: how many clips, one of them, and which constant changes it


@dataclass(frozen=True)
class Manifest:
    """A data set as it describes itself."""

    root: Path  # folder that every path starts at
    rows: tuple[ManifestRow, ...]
    skipped: tuple[SkippedRow, ...]
    notices: tuple[Notice, ...] = ()  # what is said of its lists and files
