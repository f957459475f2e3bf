"""Captions as they come from files."""

import os
import unicodedata
from pathlib import Path

from data.paths import inside_file
from data.unusable import UnusableClip

MOST_CAPTION_BYTES = 16_384


def normalise_caption(text: str) -> str:
    """Return a caption on one line, composed (NFC), without control characters and repeated spaces."""
    printable = "".join(" " if unicodedata.category(character) in ("Cc", "Cs") else character for character in text)
    return " ".join(unicodedata.normalize("NFC", printable).split())


def checked_caption(text: str) -> str:
    """Return a caption from a manifest, normalised.

    Raises:
        UnusableClip: it is empty or far too long.
    """
    if len(text) > MOST_CAPTION_BYTES:
        raise UnusableClip(f"has a caption of more than {MOST_CAPTION_BYTES} characters")
    caption = normalise_caption(text)
    if not caption:
        raise UnusableClip("has an empty caption")
    return caption


def decode_caption(content: bytes, name: str) -> str:
    """Return the caption that a text file holds, normalised.

    Args:
        content: of the file; a byte-order mark does not count.
        name: of the file, for messages.

    Raises:
        UnusableClip: it is too large, not UTF-8, or empty.
    """
    if len(content) > MOST_CAPTION_BYTES:
        raise UnusableClip(f"has no usable caption: {name} is larger than {MOST_CAPTION_BYTES} bytes")
    try:
        caption = normalise_caption(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UnusableClip(f"has no usable caption: {name} is not UTF-8") from error
    if not caption:
        raise UnusableClip(f"has no caption: {name} is empty")
    return caption


def read_caption(root: Path, name: str) -> str:
    """Return the caption in a text file within a folder.

    Raises:
        UnusableClip: there is no such file, it leads out of the folder, or see `decode_caption`.
    """
    if not os.path.lexists(root / name):
        raise UnusableClip(f"has no caption: {Path(name).name} is missing")
    try:
        with open(inside_file(root, name), "rb") as file:
            content = file.read(MOST_CAPTION_BYTES + 1)
    except UnusableClip as error:
        raise UnusableClip(f"has no usable caption: {Path(name).name} {error}") from error
    except OSError as error:
        raise UnusableClip(f"has no usable caption: {Path(name).name} cannot be read ({error.strerror})") from error
    return decode_caption(content, Path(name).name)
