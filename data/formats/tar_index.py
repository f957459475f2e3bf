"""What is in a tar file, and where: only its headers are read, and nothing is ever unpacked.

Python's `tarfile` reads the headers and trusts them: it reads as much as a header claims to have, and goes back if one
claims a negative size. Here a header is limited in length and only leads forward.
"""

import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, BinaryIO, cast

from data.rows import UnusableClip

BLOCK = 512  # bytes; everything in a tar file begins at a multiple
MOST_HEADER_BYTES = 1 << 16  # of one member, with all that extends it
MOST_MEMBERS = 1_000_000
MOST_NAME_LENGTH = 1000
# Python before 3.11.10 and 3.12.6 takes the square of the length of a number to look for a field in an extended header.
_ENDLESS_NUMBER = re.compile(rb"\d{100}")
_COMPRESSIONS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}
_ERRORS = (tarfile.TarError, OSError, ValueError, OverflowError, IndexError, RecursionError)


@dataclass(frozen=True)
class Member:
    """Something in a tar file that has a name: a file, or a link or a device without content."""

    name: str  # bytes that are not UTF-8 are surrogates; one that is too long is cut to MOST_NAME_LENGTH + 1
    offset: int  # of the content, in bytes
    size: int
    is_file: bool  # a regular file whose content is in one piece


@dataclass(frozen=True)
class TarIndex:
    """What a tar file holds, folders apart."""

    members: tuple[Member, ...]
    problem: str | None  # why there may be more than could be read; continues a sentence that begins with the tar file
    size: int  # of the tar file; members of one that was cut off may claim to lie beyond it


def index_tar(file: BinaryIO) -> TarIndex:
    """Return what is in a tar file.

    Raises:
        UnusableClip: it is not a tar file, or compressed.
        OSError: it cannot be read.
    """
    size = os.fstat(file.fileno()).st_size
    _refuse_other_files(file)
    members: list[Member] = []
    problem = None
    try:
        for member in _members(file):
            if len(members) == MOST_MEMBERS:
                problem = f"holds more than {MOST_MEMBERS} files: the rest is left out"
                break
            members.append(member)
    except _ERRORS as error:
        if not members:
            raise UnusableClip(f"is not a readable tar file ({str(error)[:120]})") from error
        read = "its first file" if len(members) == 1 else f"its first {len(members)} files"
        problem = f"is cut off or damaged: what comes after {read} cannot be read ({str(error)[:120]})"
    return TarIndex(tuple(members), problem, size)


def _refuse_other_files(file: BinaryIO) -> None:
    head = file.read(BLOCK)
    if not head:
        raise UnusableClip("is empty")
    for magic, name in _COMPRESSIONS.items():
        if head.startswith(magic):
            raise UnusableClip(f"is compressed ({name}): unpack it to a plain tar file, of which parts can be read")
    file.seek(0)


def _members(file: BinaryIO) -> Iterator[Member]:
    headers = _Headers(file)
    as_file = cast(IO[bytes], headers)
    with tarfile.open(fileobj=as_file, mode="r:", encoding="utf-8", errors="surrogateescape") as tar:
        end = 0
        while (info := tar.next()) is not None:
            if info.size < 0 or tar.offset <= end:
                raise tarfile.ReadError("a header gives a negative size")
            end = tar.offset
            cast(Any, tar).members.clear()  # it would keep them all
            tar.pax_headers = {}  # and give all that follow the values of a global header
            headers.start_member()
            if not info.isdir():
                is_file = info.isreg() and not info.issparse()
                yield Member(info.name[: MOST_NAME_LENGTH + 1], info.offset_data, info.size, is_file)
    # tarfile takes a header that it cannot read for the end. The true end is a block of zeros.
    file.seek(end)
    closing = file.read(BLOCK)
    if closing != bytes(BLOCK):
        raise tarfile.ReadError("its end is missing" if len(closing) < BLOCK else "a header is damaged")


class _Headers:
    """The methods of a file that `tarfile` needs, with a limit on what is read for one member."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._bytes_left = MOST_HEADER_BYTES

    def start_member(self) -> None:
        self._bytes_left = MOST_HEADER_BYTES

    def read(self, size: int) -> bytes:
        if not 0 <= size <= self._bytes_left:
            raise tarfile.ReadError(f"a header has a negative size, or more than {MOST_HEADER_BYTES >> 10} KiB")
        self._bytes_left -= size
        content = self._file.read(size)
        if size > BLOCK and _ENDLESS_NUMBER.search(content):
            raise tarfile.ReadError("a header holds a number of a hundred digits")
        return content

    def seek(self, position: int) -> int:
        return self._file.seek(position)

    def tell(self) -> int:
        return self._file.tell()
