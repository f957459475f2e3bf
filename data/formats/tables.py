"""Tables in text files: their separator, their columns and their records."""

import csv
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.console import counted
from common.errors import UserError
from data.formats.fields import shown_name
from data.media.files import printable
from data.rows import UnusableClip

MOST_TABLE_BYTES = 1 << 30
MOST_LINE = 1 << 20  # characters
MOST_LINES_OF_A_RECORD = 100  # a caption in double quotes may go over several lines
SEPARATORS = (",", "\t", ";", "|")  # Excel writes semicolons where a comma is the decimal sign

# What double quotes mean: "strict" as in RFC 4180; "forgiving" likewise, but a line in which they do not match is taken
# literally; "none" nothing.
Quotes = Literal["strict", "forgiving", "none"]
_NumberedLine = tuple[int, str]


@dataclass(frozen=True)
class Record:
    """One line of a list of clips, or the few lines over which a text in quotes goes."""

    place: str  # for people: "manifest.csv line 12"
    fields: Mapping[str, object]  # by their names in lower case; from a table, texts without spaces around them
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
    columns: tuple[str, ...]  # in lower case; a column without a name is ""
    separator: str
    quotes: Quotes
    _header_line: int

    def records(self) -> Iterator[Record]:
        """Yield what follows the header; empty lines are left out. The file is read line by line.

        Raises:
            UserError: the file cannot be read, or is not UTF-8.
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
        if not wanted <= len(fields) <= len(self.columns):
            remedy = "" if self.quotes == "none" else "; a text with the separator in it must stand in double quotes"
            return Record(place, {}, f"has {counted(len(fields), 'field')} in place of {wanted}{remedy}")
        return Record(place, {name: value for name, value in zip(self.columns, fields, strict=False) if name})


def open_table(path: Path, needed: Sequence[str], quotes: Quotes = "strict") -> Table:
    """Read the first line of a table, which must have the `needed` columns (in lower case), and find its separator.

    Raises:
        UserError: it cannot be read, is empty, or lacks a column.
    """
    number, line = next((item for item in numbered_lines(path) if item[1].strip()), (0, ""))
    shown = shown_name(str(path))
    if not line:
        raise UserError(f"{shown} is empty: its first line names the columns, such as {', '.join(needed)}.")
    header_quotes: Quotes = "none" if quotes == "none" else "forgiving"
    columns_by_separator = {
        separator: tuple(name.lower() for name in _split_line(line, separator, header_quotes))
        for separator in SEPARATORS
    }
    best, columns = max(columns_by_separator.items(), key=lambda item: (len(set(needed) & set(item[1])), len(item[1])))
    missing = [name for name in needed if name not in columns]
    if missing:
        named = ", ".join(printable(name[:40]) for name in columns[:12] if name)
        listed = f"{named} and {len(columns) - 12} more" if len(columns) > 12 else named or "nothing"
        raise UserError(
            f"{shown} has no column {' and no column '.join(missing)}. Its first line names {listed}; "
            f"needed are {', '.join(needed)}."
        )
    twice = sorted({name for name in columns if name and columns.count(name) > 1})
    if twice:
        raise UserError(f"{shown} has two columns with the name {shown_name(twice[0])}: take one away.")
    return Table(path, columns, best, quotes, number)


def numbered_lines(path: Path) -> Iterator[_NumberedLine]:
    """Yield the lines of a text file with their numbers, from 1, line breaks included.

    Raises:
        UserError: it cannot be read, is too large, or is not UTF-8.
    """
    shown = shown_name(str(path))
    if not os.path.isfile(path):
        raise UserError(f"{shown} is not a file that can be read.")
    try:
        if os.path.getsize(path) > MOST_TABLE_BYTES:
            raise UserError(f"{shown} is larger than {MOST_TABLE_BYTES >> 20} MiB: divide it.")
        with open(path, encoding="utf-8-sig", newline="") as file:
            number = 0
            while line := file.readline(MOST_LINE + 1):
                number += 1
                if len(line) > MOST_LINE:
                    raise UserError(f"{shown} line {number} has more than {MOST_LINE} characters: is it a text file?")
                yield number, line
    except UnicodeDecodeError as error:
        raise UserError(f'{shown} is not UTF-8: save it again with that encoding (in Excel: "CSV UTF-8").') from error
    except OSError as error:
        raise UserError(f"{shown} cannot be read: {error.strerror}.") from error


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
