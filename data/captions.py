"""Captions as they come from files, normalised or refused; and what the text encoder does not read of them."""

import codecs
import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from common.console import counted
from common.errors import UserError
from config import Config
from data.media.files import inside_file, printable
from data.rows import Notice, UnusableClip
from models.tokens import Tokenizer, Unread

MOST_CAPTION_BYTES = 16_384
LARGEST_SILENT_SHARE = 0.5  # of the captions
LISTED_CHARACTERS = 20
NO_CAPTION = "has no caption"  # begins the reason why a clip without one is skipped
LONGEST_SHOWN = 60  # characters of a caption that a message repeats
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


def decode_text(content: bytes) -> str:
    """Return what a text file holds; a byte-order mark does not count.

    Raises:
        UnicodeDecodeError: it is neither UTF-8 nor UTF-16 with a byte-order mark.
    """
    # Windows' Notepad calls UTF-16 "Unicode"; the mark of UTF-32 begins like its own.
    marks = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    is_utf_16 = content.startswith(marks) and not content.startswith(codecs.BOM_UTF32_LE)
    return content.decode("utf-16" if is_utf_16 else "utf-8-sig")


def decode_caption(content: bytes, name: str) -> str:
    """Return the caption that the text file `name` holds, normalised; a byte-order mark does not count.

    Raises:
        UnusableClip: it is too large, neither UTF-8 nor UTF-16 with a byte-order mark, or empty.
    """
    if len(content) > MOST_CAPTION_BYTES:
        raise UnusableClip(f"has no usable caption: {name} is larger than {MOST_CAPTION_BYTES} bytes")
    try:
        caption = normalise_caption(decode_text(content))
    except UnicodeDecodeError as error:
        raise UnusableClip(f"has no usable caption: {name} is not UTF-8: save it again as UTF-8") from error
    if not caption:
        raise UnusableClip(f"{NO_CAPTION}: {name} is empty")
    return caption


def read_caption(root: Path, name: str, allowed: Sequence[Path] = ()) -> str:
    """Return the caption in a text file within a folder, or within one that is `allowed`.

    Raises:
        UnusableClip: there is no such file, it leads elsewhere, or see `decode_caption`.
    """
    shown = printable(Path(name).name)
    if not os.path.lexists(root / name):
        raise UnusableClip(f"{NO_CAPTION}: {shown} is missing")
    try:
        with open(inside_file(root, name, allowed), "rb") as file:
            content = file.read(MOST_CAPTION_BYTES + 1)
    except UnusableClip as error:
        raise UnusableClip(f"has no usable caption: {shown} {error}", error.outside) from error
    except OSError as error:
        raise UnusableClip(f"has no usable caption: {shown} cannot be read ({error.strerror})") from error
    return decode_caption(content, shown)


def check_captions(config: Config, lost: Unread, captions: int) -> None:
    """Refuse to train where nothing is left of half of the captions or more: the model could not tell them apart.

    Raises:
        UserError: that is so.
    """
    if lost.silent and len(lost.silent) >= LARGEST_SILENT_SHARE * captions:
        raise UserError(
            f"TEXT_ENCODER={config.TEXT_ENCODER!r} knows no character of {len(lost.silent)} of "
            f"{counted(captions, 'caption')}, such as {shown_caption(lost.silent[0])}, so the clips would be trained "
            "on without text. Choose a pretrained one that knows their script, such as --text-encoder "
            "intfloat/multilingual-e5-small (docs/data.md, Captions and languages)."
        )


def caption_notices(config: Config, lost: Unread, tokenizer: Tokenizer, captions: Sequence[str]) -> tuple[Notice, ...]:
    """Return what is said before a training of the captions that the text encoder does not read in full."""
    texts = []
    if lost.characters:
        ordered = sorted(lost.characters.items(), key=lambda item: (-item[1], item[0]))
        listed = ", ".join(f"{character!r} ({count})" for character, count in ordered[:LISTED_CHARACTERS])
        more = f" and {counted(len(ordered) - LISTED_CHARACTERS, 'other')}" if len(ordered) > LISTED_CHARACTERS else ""
        texts.append(f"left out, because TEXT_ENCODER={config.TEXT_ENCODER} does not know them: {listed}{more}")
    if lost.silent:
        texts.append(
            f"nothing is left of {len(lost.silent)} of {len(captions)}, which then look all the same, such as "
            f"{shown_caption(min(lost.silent))}: choose another TEXT_ENCODER"
        )
    if lost.cut_off:
        remedy = f"TEXT_ENCODER={config.TEXT_ENCODER} reads no more"
        if tokenizer.limit > tokenizer.max_length:
            enough = min(lost.longest, tokenizer.limit)
            remedy = f"MAX_CAPTION_LENGTH={enough} would read {'all' if enough == lost.longest else 'more'}"
        texts.append(
            f"{counted(lost.cut_off, f'of {len(captions)} is', f'of {len(captions)} are')} longer than "
            f"{counted(tokenizer.max_length, 'character' if tokenizer.symbols else 'word piece')} and "
            f"{'is' if lost.cut_off == 1 else 'are'} cut off; {remedy}"
        )
    if lost.alike:
        texts.append(
            f"{counted(len(lost.alike), 'differs', 'differ')} from another one only in what is not read, such as "
            f"{shown_caption(min(lost.alike))}, and {'counts' if len(lost.alike) == 1 else 'count'} as the same caption"
        )
    return tuple(Notice("captions", text) for text in texts)


def caption_measures(lost: Unread, captions: int) -> dict[str, float]:
    """Return how many captions the model cannot tell apart, in percent, by the tags of 15_Configuration."""
    return {
        "Captions_Unread_Percent": 100 * len(lost.silent) / captions,
        "Captions_Alike_Percent": 100 * len(lost.alike) / captions,
    }


def shown_caption(caption: str) -> str:
    """Return a caption as a message repeats it: in quotes, and the beginning of a long one."""
    return repr(shortened(caption, LONGEST_SHOWN))


def shortened(caption: str, most: int) -> str:
    """Return a caption, or so many of its characters and three dots."""
    return caption if len(caption) <= most else f"{caption[:most]}..."
