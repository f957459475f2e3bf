"""Tables in text files: their encoding, their separator, their columns and their records."""

import codecs
import csv
import json
import os
import re
import shlex
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.console import counted
from common.errors import UserError
from data.formats.fields import shown_name
from data.formats.search import media_kind
from data.media.files import inside_file, printable
from data.rows import UnusableClip

MOST_TABLE_BYTES = 1 << 30
MOST_JSON_BYTES = 1 << 28  # of a file that is held in memory
SPREADSHEETS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # how .xlsx and .ods, and .xls, begin
HEAD_BYTES = 1024
MOST_LINE = 1 << 20  # characters
MOST_LINES_OF_A_RECORD = 100  # a caption in double quotes may go over several lines
SEPARATORS = (",", "\t", ";", "|")  # Excel writes semicolons where a comma is the decimal sign

# What double quotes mean: "strict" as in RFC 4180; "forgiving" likewise, but a line in which they do not match is taken
# literally; "none" nothing.
Quotes = Literal["strict", "forgiving", "none"]
_NumberedLine = tuple[int, str]
_BLANKS = re.compile(r"[\s-]+")
_EXCEL_SEPARATOR = re.compile(r"\s*\"?sep=.\"?\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Record:
    """One line of a list of clips, or the few lines over which a text in quotes goes."""

    place: str  # for people: "manifest.csv line 12"
    fields: Mapping[str, object]  # by their names (see `field_name`); from a table, texts without spaces around them
    problem: str | None = None  # why the line makes no sense

    def values(self) -> Mapping[str, object]:
        """Return the fields.

        Raises:
            UnusableClip: the line makes no sense.
        """
        if self.problem is not None:
            raise UnusableClip(self.problem)
        return self.fields


@dataclass(frozen=True)
class Table:
    """A text file whose first line names its columns."""

    path: Path
    columns: tuple[str, ...]  # see `field_name`; a column without a name is ""
    separator: str
    quotes: Quotes
    _header_line: int

    def records(self) -> Iterator[Record]:
        """Yield what follows the header; empty lines are left out. The file is read line by line.

        Raises:
            UserError: the file cannot be read, or is neither UTF-8 nor UTF-16.
        """
        lines, name = _Lines(numbered_lines(self.path)), shown_name(self.path.name)
        wanted = max(number for number, column in enumerate(self.columns, 1) if column)  # Excel adds empty ones
        for number, line in lines:
            if number <= self._header_line:
                continue
            place = f"{name} line {number}"
            try:
                fields = self._split(line, lines)
            except csv.Error as error:
                problem = f"cannot be read ({error}): a text in double quotes ends with one, and one in it is doubled"
                yield Record(place, {}, problem)
                continue
            if any(fields):
                yield self._record(place, fields, wanted)

    def _split(self, line: str, lines: "_Lines") -> list[str]:
        if self.quotes != "strict":
            return _split_line(line, self.separator, self.quotes)
        following = lines.try_following(line, MOST_LINES_OF_A_RECORD)
        try:
            return _stripped(next(csv.reader(following, delimiter=self.separator, strict=True, skipinitialspace=True)))
        except csv.Error:
            lines.put_back()
            raise

    def _record(self, place: str, fields: list[str], wanted: int) -> Record:
        # A text behind the last column that has a name is the end of another one, which a separator has cut.
        if not wanted <= len(fields) <= len(self.columns) or any(fields[wanted:]):
            remedy = "" if self.quotes == "none" else "; a text with the separator in it must stand in double quotes"
            return Record(place, {}, f"has {counted(len(fields), 'field')} in place of {wanted}{remedy}")
        return Record(place, {name: value for name, value in zip(self.columns, fields, strict=False) if name})


def field_name(name: str) -> str:
    """Return the name of a column or field as it is compared: ``Video Path`` is ``video_path``."""
    return _BLANKS.sub("_", name.strip().lower())


def open_table(
    path: Path,
    needed: Sequence[str],
    quotes: Quotes = "strict",
    other_names: Mapping[str, Sequence[str]] | None = None,
) -> Table:
    """Read the first line of a table, which must have the `needed` columns, and find its separator.

    Args:
        path: of the table. A first line ``sep=;``, as Excel writes it, does not count.
        needed: the names of columns.
        quotes: what double quotes mean.
        other_names: names under which a needed column may be found instead.

    Raises:
        UserError: it cannot be read, is empty, or lacks a column.
    """
    filled = (item for item in numbered_lines(path) if item[1].strip() and not _EXCEL_SEPARATOR.fullmatch(item[1]))
    number, line = next(filled, (0, ""))
    shown = shown_name(str(path))
    if not line:
        raise UserError(f"{shown} is empty: its first line names the columns, such as {', '.join(needed)}.")
    header_quotes: Quotes = "none" if quotes == "none" else "forgiving"
    columns_by_separator = {
        separator: tuple(field_name(name) for name in _split_line(line, separator, header_quotes))
        for separator in SEPARATORS
    }

    def missing(columns: Sequence[str]) -> list[str]:
        return [name for name in needed if not {name, *(other_names or {}).get(name, ())} & set(columns)]

    def fit(item: tuple[str, tuple[str, ...]]) -> tuple[int, bool, int]:
        return -len(missing(item[1])), any(media_kind(name) is not None for name in item[1]), len(item[1])

    best, columns = max(columns_by_separator.items(), key=fit)
    if lacking := missing(columns):
        own = _split_line(line, best, header_quotes)
        named = ", ".join(printable(name.strip()[:40]) for name in own[:12] if name.strip())
        listed = f"{named} and {len(columns) - 12} more" if len(columns) > 12 else named or "nothing"
        others = ", ".join(names[0] for name in needed if (names := (other_names or {}).get(name)))
        remedy = f"needed are {', '.join(needed)}" + (f", or names such as {others} (docs/data.md)" if others else "")
        if any(media_kind(name) is not None for name in columns):
            remedy = f"it looks like a clip, so the header is missing: put the line {best.join(needed)!r} above it"
        raise UserError(
            f"{shown} has no column {' and no column '.join(lacking)}. Its first line names {listed}; {remedy}."
        )
    twice = sorted({name for name in columns if name and columns.count(name) > 1})
    if twice:
        raise UserError(f"{shown} has two columns with the name {shown_name(twice[0])}: take one away.")
    return Table(path, columns, best, quotes, number)


def check_inside(root: Path, name: str, allowed: Sequence[Path]) -> None:
    """Refuse a list that was found in the data set's folder, and is a link that leads out to what is not `allowed`.

    Raises:
        UserError: it is, or it is no regular file.
    """
    try:
        inside_file(root, name, allowed)
    except UnusableClip as error:
        raise UserError(f"{shown_name(str(root / name))} {error}: put the file itself there.") from error


def numbered_lines(path: Path) -> Iterator[_NumberedLine]:
    """Yield the lines of a text file with their numbers, from 1, line breaks included.

    The file is UTF-8, or UTF-16 with a byte-order mark, as Excel writes "Unicode text".

    Raises:
        UserError: it cannot be read, is too large, or is in another encoding.
    """
    shown, number = shown_name(str(path)), 0
    with _readable(path), open(path, encoding=_encoding(path), newline="") as file:
        try:
            while line := file.readline(MOST_LINE + 1):
                number += 1
                if len(line) > MOST_LINE:
                    raise UserError(f"{shown} line {number} has more than {MOST_LINE} characters: is it a text file?")
                yield number, line
        except UnicodeError as error:
            raise _other_encoding(path) from error


def read_json(path: Path) -> object:
    """Return what a JSON file holds, which is read into memory.

    Raises:
        UserError: it cannot be read, is too large, or is not JSON.
    """
    with _readable(path, MOST_JSON_BYTES), open(path, encoding=_encoding(path)) as file:
        try:
            return json.load(file)
        except UnicodeError as error:
            raise _other_encoding(path) from error
        except (ValueError, RecursionError) as error:
            several = str(error).startswith("Extra data")
            remedy = "; if each line is an object, let the file's name end in .jsonl" if several else ""
            raise UserError(f"{shown_name(str(path))} is not JSON: {str(error)[:120]}{remedy}.") from error


def read_json_list(file: Path, data_set: str, fields: str) -> list[object]:
    """Return what a JSON file of a published data set lists; the message names the set and the fields of its objects.

    Raises:
        UserError: it cannot be read, or is no list.
    """
    entries = read_json(file)
    if not isinstance(entries, list):
        raise UserError(
            f"{shown_name(str(file))} is not a list of {data_set}: that is a JSON list of objects with {fields}."
        )
    return entries


@contextmanager
def _readable(path: Path, most: int = MOST_TABLE_BYTES) -> Iterator[None]:
    """Refuse what is no file or too large, and say so if the system refuses it in the ``with`` block."""
    shown = shown_name(str(path))
    if not os.path.isfile(path):
        raise UserError(f"{shown} is not a file that can be read.")
    try:
        if os.path.getsize(path) > most:
            raise UserError(f"{shown} is larger than {most >> 20} MiB: divide it.")
        yield
    except OSError as error:
        raise UserError(f"{shown} cannot be read: {error.strerror}.") from error


def _encoding(path: Path) -> str:
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if head.startswith(SPREADSHEETS):
        raise UserError(f'{shown_name(str(path))} is a spreadsheet: save it as "CSV UTF-8".')
    if head.count(0) > len(head) / 4:
        raise UserError(f'{shown_name(str(path))} looks like UTF-16 without its mark: save it as "CSV UTF-8".')
    return "utf-8-sig"


def _other_encoding(path: Path) -> UserError:
    old, new = (shlex.quote(str(each)) for each in (path, path.with_stem(f"{path.stem}_utf8")))
    return UserError(
        f'{shown_name(str(path))} is not UTF-8: save it again with that encoding (in Excel: "CSV UTF-8"; in a shell, '
        f"if it comes from a Windows program: iconv -f WINDOWS-1252 -t UTF-8 {printable(old)} > {printable(new)})."
    )


def _split_line(line: str, separator: str, quotes: Quotes) -> list[str]:
    """Return the fields of a single line; csv.Error if quotes are strict and do not match."""
    plain = line.rstrip("\r\n")
    if quotes == "none":
        return _stripped(plain.split(separator))
    try:
        return _stripped(next(csv.reader([plain], delimiter=separator, strict=True, skipinitialspace=True), []))
    except csv.Error:
        if quotes == "strict":
            raise
        return _stripped(plain.split(separator))


def _stripped(fields: list[str]) -> list[str]:
    return [field.strip() for field in fields]


class _Lines:
    """Lines of which some may be put back after a trial."""

    def __init__(self, source: Iterator[_NumberedLine]) -> None:
        self._source = source
        self._waiting: deque[_NumberedLine] = deque()
        self._tried: list[_NumberedLine] = []

    def __iter__(self) -> Iterator[_NumberedLine]:
        return self

    def __next__(self) -> _NumberedLine:
        return self._waiting.popleft() if self._waiting else next(self._source)

    def try_following(self, first: str, most: int) -> Iterator[str]:
        self._tried = []
        yield first
        for numbered in self:
            self._tried.append(numbered)
            yield numbered[1]
            if len(self._tried) >= most - 1:
                return

    def put_back(self) -> None:
        self._waiting.extendleft(reversed(self._tried))
