"""Which kind of container a video file is, and whether it is as long as it says. Nothing is decoded.

The kind is told from the first bytes and must agree with the name; the demuxer is then chosen by us. (Left to guess,
FFmpeg would also follow playlists, which can name any other file or address.)
"""

from typing import BinaryIO

from data.media.files import SourceFile
from data.rows import UnusableClip

_FAMILIES = {
    **{".gif": "gif", ".mp4": "mov", ".webm": "matroska", ".mov": "mov", ".avi": "avi", ".mkv": "matroska"},
    **{".m4v": "mov", ".qt": "mov", ".3gp": "mov"},  # other names of MP4 and MOV
}
VIDEO_EXTENSIONS = tuple(_FAMILIES)
LEAST_SHARE_OF_BYTES = 0.9  # of what the file promises; fewer means that it is cut off
_MOST_BOXES = 100_000  # of an MP4 file that are read
_CONTENTS = (b"moov", b"mdat", b"moof")
_OTHER_BOXES = (b"ftyp", b"free", b"skip", b"wide", b"mfra", b"sidx", b"styp", b"uuid", b"meta")
_SEGMENT = 0x18538067


def check_kind(file: SourceFile) -> str:
    """Return the family of containers that a file belongs to: "gif", "mov", "matroska" or "avi".

    Raises:
        UnusableClip: it is empty, too large, of no known kind, of another than its name says, or cut off.
        OSError: it cannot be read.
    """
    file.check_size()
    head = file.read_bytes(16)
    if head[:6] in (b"GIF87a", b"GIF89a"):
        family = "gif"
    elif head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip"):
        family = "mov"
    elif head[:4] == b"\x1a\x45\xdf\xa3":
        family = "matroska"
    elif head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        family = "avi"
    else:
        raise UnusableClip("is not a video of a known kind")
    if _FAMILIES.get(file.suffix) != family:
        raise UnusableClip(f"is not a {file.suffix} file: its content is {family}")
    if family != "gif":  # whose blocks are all read anyway
        _check_length(file, family)
    return family


def _check_length(file: SourceFile, family: str) -> None:
    """Refuse a file that was cut off, as interrupted downloads are.

    A decoder does not notice: it takes what is there for all of the clip, and teaches it with all of the caption.
    """
    with file.open() as opened:
        size = opened.seek(0, 2)
        opened.seek(0)
        promised = {"mov": _mp4_bytes, "matroska": _matroska_bytes, "avi": _avi_bytes}[family](opened)
    if size < LEAST_SHARE_OF_BYTES * promised:
        raise UnusableClip(f"is cut off: {size} of {promised} bytes are there")


def _mp4_bytes(file: BinaryIO) -> int:
    """Return where the last box ends that matters; what is no box, as some telephones append, does not count."""
    position, promised = 0, 0
    for _ in range(_MOST_BOXES):
        file.seek(position)
        header = file.read(16)
        kind, length = header[4:8], int.from_bytes(header[:4], "big")
        if length == 1:
            length = int.from_bytes(header[8:], "big")
        if length < 8 or kind not in (*_CONTENTS, *_OTHER_BOXES):  # nothing valid, or "to the end of the file"
            break
        position += length
        if kind in _CONTENTS:
            promised = position
    return promised


def _matroska_bytes(file: BinaryIO) -> int:
    """Return where the segment ends, which holds everything; 0 if it does not say, as in recordings of live video."""
    file.seek(4)  # the identifier of the header
    header_length = _matroska_length(file)
    if header_length is None:
        return 0
    file.seek(header_length, 1)
    if int.from_bytes(file.read(4), "big") != _SEGMENT:
        return 0
    length = _matroska_length(file)
    return 0 if length is None else file.tell() + length


def _matroska_length(file: BinaryIO) -> int | None:
    """Read the length of an element: zero bits, one for each byte that follows, a one, the number; None if unknown."""
    first = file.read(1)
    if not first or first[0] == 0:
        return None
    further = 8 - first[0].bit_length()
    bits = 7 * (further + 1)
    length = int.from_bytes(first + file.read(further), "big") & ((1 << bits) - 1)
    return None if length == (1 << bits) - 1 else length


def _avi_bytes(file: BinaryIO) -> int:
    """Return where the list of frames ends, as the index that follows can be done without; if it is not there, all."""
    whole = 8 + int.from_bytes(file.read(8)[4:], "little")
    file.seek(12)
    for _ in range(_MOST_BOXES):
        header = file.read(12)
        if len(header) < 12:
            break
        length = int.from_bytes(header[4:8], "little")
        if header[:4] == b"LIST" and header[8:] == b"movi":
            return file.tell() - 4 + length  # the length is 0 where the recording was not finished
        file.seek(length + length % 2 - 4, 1)
    return whole
