"""Values in lists of clips that people wrote: what is accepted, and the message for the rest.

Each function raises UnusableClip for a value that is not of its kind.
"""

import math
import re
import unicodedata
from collections.abc import Mapping

from data.media.files import printable
from data.rows import WHOLE, Split, TimeSpan, UnusableClip

MOST_SHOWN = 60  # characters of a value that a message repeats
MOST_SHOWN_OF_NAME = 200  # of the name of a file, or of its path
MOST_NAME_LENGTH = 200  # characters of a signer, a split or a language

Values = Mapping[str, object]

SPLITS: dict[str, Split] = {
    **dict.fromkeys(("train", "training"), "training"),
    **dict.fromkeys(("val", "valid", "validate", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_ENDING = re.compile(r"(?<=.)(data)?(sets?)?$")
_LIKE_TEST = ("eval", "evaluation")  # whether they mean validation or test, people must say
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?", re.ASCII)
_THOUSANDS = re.compile(r"[+-]?\d{1,3},\d{3}", re.ASCII)


def shown(value: object) -> str:
    """Return a value as a message repeats it: short, and on one line."""
    if isinstance(value, str):
        text = repr(printable(value[: MOST_SHOWN + 1])).replace("\\\\", "\\")  # as it can be searched for
    elif isinstance(value, int | float):  # true and false among them
        text = str(value).lower()
    else:
        return "a list" if isinstance(value, list) else "an object"
    return text if len(text) <= MOST_SHOWN + 2 else f"{text[:MOST_SHOWN]}..."


def shown_name(name: str) -> str:
    """Return the name or path of a file as a message repeats it: on one line, without the middle of a long one."""
    text = printable(name)
    half = MOST_SHOWN_OF_NAME // 2
    return text if len(text) <= MOST_SHOWN_OF_NAME else f"{text[:half]}...{text[-half:]}"


def as_text(values: Values, field: str) -> str:
    """Return a field that must be a text, without spaces around it; refuse one that is missing or empty."""
    value = values.get(field)
    if value is None or (isinstance(value, str) and not value.strip()):
        raise UnusableClip(f"has no {field}: fill in the field {field!r}")
    if not isinstance(value, str):
        raise UnusableClip(f"has {field}={shown(value)}: it must be a text")
    return value.strip()


def as_name(values: Values, field: str) -> str | None:
    """Return a field that is a text or a whole number; None if it is missing or empty.

    It is printable and composed (NFC), with single spaces, so that a name that looks the same is the same.
    """
    value = values.get(field)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise UnusableClip(f"has {field}={shown(value)}: it must be a text")
    name = " ".join(unicodedata.normalize("NFC", str(value)).split())
    if len(name) > MOST_NAME_LENGTH:
        raise UnusableClip(f"has a {field} of more than {MOST_NAME_LENGTH} characters")
    return printable(name) or None


def split_named(name: str) -> Split | None:
    """Return the part of the split that is called so, whatever its capitals and the blanks around it; None if none."""
    return SPLITS.get(name.strip().lower())


def splits_in(name: str) -> set[Split]:
    """Return the parts of the split whose names a name holds as words, as "my_train", "testset" and "Val 10%" do.

    "evaluation" counts as test.
    """
    words = {_ENDING.sub("", word.lower()) for word in (*_WORD.findall(name), *_WORD.findall(name.lower()))}
    return {split for word in words if (split := "test" if word in _LIKE_TEST else split_named(word)) is not None}


def as_split(values: Values) -> Split | None:
    """Return what the field split says; None if it is missing or empty."""
    name = as_name(values, "split")
    if name is None:
        return None
    split = split_named(name)
    if split is None:
        raise UnusableClip(f"has split={shown(name)}: write one of {', '.join(SPLITS)}, or nothing")
    return split


def as_number(values: Values, field: str, unit: str) -> float | None:
    """Return a field that is a number, or a text that is one; None if it is missing or empty.

    It is finite and not negative. The decimal point may be a comma, as Excel writes it in much of Europe.
    """
    value = values.get(field)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    number = _number(value)
    if number is None or not math.isfinite(number):
        raise UnusableClip(f"has {field}={shown(value)}: write {unit} as a number with a decimal point, such as 3.5")
    if number < 0:
        raise UnusableClip(f"has {field}={shown(value)}: it must not be negative")
    return number


def as_span(values: Values, first: str = "start", last: str = "end") -> TimeSpan:
    """Return the part of a file from one field to another, in seconds; all of it if they are empty."""
    start = as_number(values, first, "seconds") or 0.0
    end = as_number(values, last, "seconds")
    if end is not None and end <= start:
        raise UnusableClip(f"has {last}={end:g} and {first}={start:g}: the end must come after the start, in seconds")
    span = TimeSpan(start, end)
    return WHOLE if span == WHOLE else span


def cut_span(values: Values, first: str, last: str) -> TimeSpan:
    """Return the part of a longer video that two fields give, in seconds; refuse one without both."""
    for field in (first, last):
        if as_number(values, field, "seconds") is None:
            raise UnusableClip(f"has no {field}: its video is longer than the clip, which cannot be cut out of it")
    return as_span(values, first, last)


def _number(value: object) -> float | None:
    if isinstance(value, str):
        text = value.strip()
        if not _NUMBER.fullmatch(text) or _THOUSANDS.fullmatch(text):  # 1,234: a thousand, or a little over one?
            return None
        return float(text.replace(",", "."))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:  # a whole number with hundreds of digits
        return None
