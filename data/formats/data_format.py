"""What a module of this package provides, and what its readers collect rows with."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from common.errors import UserError
from data.formats.fields import Values, shown, shown_name
from data.formats.tables import Record
from data.media.files import printable
from data.rows import WHOLE, Manifest, ManifestRow, Notice, SkippedRow, TimeSpan, UnusableClip


class Reader(Protocol):
    """Reads all of a data set without opening a clip; what is wrong with a single clip becomes a SkippedRow.

    Raises UserError if it cannot be read at all. Nothing outside of the data set's folder is read but what lies in
    the folders that are `allowed`.
    """

    def __call__(self, path: Path, allowed: tuple[Path, ...] = ()) -> Manifest: ...


@dataclass(frozen=True)
class DataFormat:
    """One layout of data sets."""

    name: str  # as DATA_FORMAT calls it
    title: str  # for people: "How2Sign"
    needs: str  # what there must be, for people: "a folder with WLASL_v0.3.json"
    # Says why a path looks like this format, for people: "it holds how2sign_realigned_train.csv"; None if it does not.
    # It may list all files below the path and read lists, but no clip; it raises no UserError.
    recognise: Callable[[Path], str | None]
    read: Reader


class AbsentClip(UnusableClip):
    """The data set lists a clip whose file was never there, which is no sign of damage."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(reason)
        self.name = name


class RowCollector:
    """Rows of one data set while they are read: each gets an id of its own, and repetitions count once."""

    def __init__(self, skipped: Sequence[SkippedRow] = ()) -> None:
        self._rows: dict[str, ManifestRow] = {}
        self._skipped = list(skipped)
        self._seen: dict[tuple[str, TimeSpan, str, str | None], ManifestRow] = {}
        self._repeats: list[str] = []  # the lines that say again what an earlier one said
        self._uses_of_name: Counter[str] = Counter()

    def collect(self, records: Iterable[Record], row_of: Callable[[Values], ManifestRow]) -> None:
        """Add the row that `row_of` makes of each record's fields; skip those of which it makes none.

        The id of such a row is the clip's name in the data set. Several clips may share it: other parts of a file, or
        other captions. A record that repeats an earlier one in every field is counted; one that gives the same clip
        with the same caption another signer or split is skipped.
        """
        for record in records:
            try:
                self._add(row_of(record.values()), record.place)
            except AbsentClip as reason:
                self._skipped.append(SkippedRow(shown_name(reason.name), printable(str(reason)), is_absent=True))
            except UnusableClip as reason:
                skipped = SkippedRow(shown_name(record.place), printable(str(reason)), outside=reason.outside)
                self._skipped.append(skipped)

    def manifest(self, root: Path, source: str, notices: Sequence[Notice] = ()) -> Manifest:
        """Return all that was collected from `source`, which is named in the message.

        Raises:
            UserError: nothing was, not even clips that are left out.
        """
        if not self._rows and not self._skipped:
            raise UserError(f"{source} lists no clip: it is empty, or cut off.")
        return Manifest(root, tuple(self._rows.values()), tuple(self._skipped), (*notices, *self._repeat_notices()))

    def _repeat_notices(self) -> tuple[Notice, ...]:
        if not self._repeats:
            return ()
        count, first = len(self._repeats), shown_name(self._repeats[0])
        repeats = (
            f"{first} repeats an earlier line and counts"
            if count == 1
            else (f"{count} lines, such as {first}, repeat earlier ones and count")
        )
        return (Notice("files", f"{repeats} once"),)

    def _add(self, row: ManifestRow, place: str) -> None:
        key = (row.media.path, row.media.span, row.caption, row.language)
        earlier = self._seen.setdefault(key, row)
        if earlier is not row:
            for field, new, old in (("signer", row.signer, earlier.signer), ("split", row.split, earlier.split)):
                if new != old:
                    raise UnusableClip(
                        f"contradicts an earlier line: the same clip with the same caption, but {field}="
                        f"{shown(new or '')} in place of {shown(old or '')}; take one of the lines away"
                    )
            self._repeats.append(place)
            return
        row_id = self._unused_id(printable(row.id) + _shown_span(row.media.span))
        self._rows[row_id] = replace(row, id=row_id)

    def _unused_id(self, name: str) -> str:
        row_id = name
        while row_id in self._rows:
            self._uses_of_name[name] += 1
            row_id = f"{name} ({self._uses_of_name[name] + 1})"
        return row_id


def _shown_span(span: TimeSpan) -> str:
    if span == WHOLE:
        return ""
    return f"@{span.start:.10g}-" + ("" if span.end is None else f"{span.end:.10g}")
