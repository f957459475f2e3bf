"""Types for settings that need more than a range: folders, folder names, text and tuples with an order."""

import re
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer

MOST_FRAMES = 1024  # of MAX_FRAMES
FRAME_STEP = 4  # clips have a multiple of so many frames, so that enough have as many to fill a batch
MOST_LETTERS = 12  # of MAX_WORD_LETTERS, and of what can be asked for, whatever that is
MOST_SIGNS = 8  # of COMPOSE_SIGNS, and of what can be asked for, whatever that is
LETTERS_A_SECOND = 3  # of finger-spelling (data.fingerspelling.timing)
SMALLEST_SIDE, LARGEST_SIDE = 16, 2048  # pixels of IMAGE_SIZE
LONGEST_CAPTION = 4096  # of MAX_CAPTION_LENGTH
LARGEST_GUIDANCE_SCALE = 100.0
_Value = TypeVar("_Value")
_LONGEST_NAME = 100
_LANGUAGE_MARK = re.compile("[a-z]{3}:(?=.)")  # a code of ISO 639-3, then the letter
_NOT_IN_NAMES = '/\\:*?"<>|'


def check_folder_name(name: str) -> str:
    """Return ``name`` if every file system takes it as the name of one visible folder.

    Raises:
        ValueError: it is empty, too long, has a separator or control character, or begins or ends with a dot or space.
    """
    if not name or len(name) > _LONGEST_NAME:
        raise ValueError(f"a folder name has 1 to {_LONGEST_NAME} characters")
    unusable = sorted({character for character in name if character in _NOT_IN_NAMES or not character.isprintable()})
    if unusable:
        raise ValueError(f"a folder name cannot contain {' '.join(map(repr, unusable))}")
    if name[0] in ".- " or name[-1] in ". ":
        raise ValueError("a folder name cannot begin with a dot, dash or space, nor end with a dot or space")
    return name


def check_not_blank(text: str) -> str:
    """Return ``text``; raise ValueError if it is empty or white space."""
    if not text.strip():
        raise ValueError("the text is empty; leave it out or write something")
    return text


def check_distinct(values: tuple[_Value, ...]) -> tuple[_Value, ...]:
    """Return ``values``; raise a ValueError that names those that occur twice."""
    repeated = sorted({str(value) for value in values if values.count(value) > 1})
    if repeated:
        raise ValueError(f"each value may occur once; {', '.join(repeated)} occurs more often")
    return values


def both_sides(value: object) -> object:
    """Return a pair of what stands alone: one number is the height and the width of a square."""
    if not isinstance(value, list | tuple):
        return (value, value)
    return (*value, *value) if len(value) == 1 else value


def as_typed(sides: object) -> object:
    """Return one number for a square, as it is usually typed, and any other value as it is."""
    return sides[0] if isinstance(sides, tuple) and len(set(sides)) == 1 else sides


def check_increasing(values: tuple[float, float]) -> tuple[float, float]:
    """Return ``values``; raise ValueError unless the second is larger than the first."""
    if values[1] <= values[0]:
        raise ValueError("the first number must be smaller than the second")
    return values


def check_path(path: Path) -> Path:
    """Return ``path`` with its leading ``~`` replaced by the home folder, as in a shell.

    Raises:
        ValueError: its name is not UTF-8, and could not be written into the files of a run; or there is no such home.
    """
    if not str(path).isascii():
        try:
            str(path).encode()
        except UnicodeEncodeError as error:
            raise ValueError("the name of the folder is not UTF-8; rename it") from error
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError(
            "nobody of this name has a home folder; write ./ in front if the name begins with ~"
        ) from error


def check_absolute(path: Path) -> Path:
    """Return ``path``; raise ValueError if it would mean something else in another folder."""
    if not path.is_absolute():
        raise ValueError("write the whole path of the folder, such as /mnt/clips")
    return path


def split_codes(value: object) -> object:
    """Return each code for itself: "ase", "ase,gsg", "ase gsg" and a list of such texts may be written."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        return value
    return tuple(code for text in texts for code in re.split(r"[,\s]+", text.strip()))


def language_mark(symbol: str) -> str:
    """Return which of several sign languages a symbol belongs to: "gsg:" of "gsg:H"; "" where it does not say."""
    found = _LANGUAGE_MARK.match(symbol)
    return "" if found is None else found.group()


Folder = Annotated[Path, AfterValidator(check_path)]
"""A path whose leading ``~`` is the home folder, as in a shell."""

AbsoluteFolder = Annotated[Folder, AfterValidator(check_absolute)]
FolderName = Annotated[str, AfterValidator(check_folder_name)]
NonBlankText = Annotated[str, AfterValidator(check_not_blank)]
LanguageCodes = Annotated[
    tuple[NonBlankText, ...],
    Field(min_length=1),
    AfterValidator(check_distinct),
    BeforeValidator(split_codes),
]
Fraction = Annotated[float, Field(ge=0, le=1)]
Interval = Annotated[tuple[Fraction, Fraction], AfterValidator(check_increasing)]

ImageSize = Annotated[
    tuple[
        Annotated[int, Field(ge=SMALLEST_SIDE, le=LARGEST_SIDE, multiple_of=2)],
        Annotated[int, Field(ge=SMALLEST_SIDE, le=LARGEST_SIDE, multiple_of=2)],
    ],
    BeforeValidator(both_sides),
    PlainSerializer(as_typed, when_used="json"),
]
"""Height and width in pixels. One number is a square, and what is saved of a square is one number."""
