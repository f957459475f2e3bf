"""Captions as they come from files, normalised or refused."""

import os
import re
import unicodedata
from pathlib import Path

from data.media.files import inside_file, printable
from data.rows import UnusableClip

MOST_CAPTION_BYTES = 16_384
_TURNING_MARKS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def normalise_caption(text: str) -> str:
    """Return a caption on one line, composed (NFC), without control characters and repeated spaces.

    It is empty if nothing can be seen, only spaces of no width and the like. Marks that turn the direction of writing
    are removed: they would garble the lines that they are shown in. Those that join or part letters stay.
    """
    visible = "".join(
        " " if unicodedata.category(character) in ("Cc", "Cs") else character
        for character in text
        if character not in _TURNING_MARKS
    )
    caption = " ".join(unicodedata.normalize("NFC", visible).split())
    is_visible = any(unicodedata.category(character) not in ("Cf", "Zs") for character in caption)
    return caption if is_visible else ""


def caption_words(caption: str) -> frozenset[str]:
    """Return the words of a caption, without capitals and punctuation.

    Chinese, Japanese and Korean may be written without spaces: each of their wide characters counts as a word. Other
    scripts without spaces, such as Thai, count as one word up to the next space.
    """
    words = re.findall(r"\w+", caption.casefold())
    wide = {character for word in words for character in word if unicodedata.east_asian_width(character) == "W"}
    return frozenset(word for word in words if not wide & set(word)) | wide


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
    shown = printable(Path(name).name)
    if not os.path.lexists(root / name):
        raise UnusableClip(f"has no caption: {shown} is missing")
    try:
        with open(inside_file(root, name), "rb") as file:
            content = file.read(MOST_CAPTION_BYTES + 1)
    except UnusableClip as error:
        raise UnusableClip(f"has no usable caption: {shown} {error}") from error
    except OSError as error:
        raise UnusableClip(f"has no usable caption: {shown} cannot be read ({error.strerror})") from error
    return decode_caption(content, shown)
