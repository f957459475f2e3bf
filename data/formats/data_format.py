"""What a module of this package provides, and what its readers collect rows with."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError
from data.formats.fields import shown_name
from data.media.files import printable
from data.rows import WHOLE, Manifest, ManifestRow, Media, SkippedRow, Split, TimeSpan, UnusableClip


@dataclass(frozen=True)
class DataFormat:
    """One layout of data sets."""

    name: str  # as DATA_FORMAT calls it
    title: str  # for people: "How2Sign"
    needs: str  # what there must be, for people: "a folder with WLASL_v0.3.json"
    # Says why a path looks like this format, for people: "it holds how2sign_realigned_train.csv"; None if it does not.
    # Cheap, and never raises.
    recognise: Callable[[Path], str | None]
    # Reads all of the data set without opening a clip. Raises UserError if it cannot be read at all; what is wrong with
    # a single clip becomes a SkippedRow.
    read: Callable[[Path], Manifest]


class RowCollector:
    """Rows of one data set while they are read: each gets an id of its own, and repetitions are refused.

    Args:
        skipped: what was left out before.
    """

    def __init__(self, skipped: Sequence[SkippedRow] = ()) -> None:
        self._rows: dict[str, ManifestRow] = {}
        self._skipped = list(skipped)
        self._seen: set[tuple[str, TimeSpan, str, str | None]] = set()
        self._uses_of_name: Counter[str] = Counter()

    def add(
        self,
        name: str,
        media: Media,
        caption: str,
        *,
        signer: str | None = None,
        split: Split | None = None,
        language: str | None = None,
    ) -> None:
        """Add a clip; see `ManifestRow`.

        Args:
            name: of the clip in the data set. Several clips may share it: other parts of a file, or other captions.
            media: its file and the part of it.
            caption: normalised.
            signer: who signs.
            split: where the data set puts it.
            language: of the signs.

        Raises:
            UnusableClip: the same part of the same file was already added with this caption and language.
        """
        key = (media.path, media.span, caption, language)
        if key in self._seen:
            raise UnusableClip("repeats an earlier line: the same clip with the same caption")
        self._seen.add(key)
        row_id = self._unused_id(printable(name) + _shown_span(media.span))
        self._rows[row_id] = ManifestRow(row_id, media, caption, _clean(signer), split, _clean(language))

    def skip(self, row_id: str, reason: str, *, is_absent: bool = False) -> None:
        """Leave a clip out; see `SkippedRow`."""
        self._skipped.append(SkippedRow(shown_name(row_id), printable(reason), is_absent))

    def manifest(self, root: Path, source: str, notes: Sequence[str] = ()) -> Manifest:
        """Return all that was collected.

        Args:
            root: folder that every path is within.
            source: what lists the clips, for the message.
            notes: further sentences.

        Raises:
            UserError: nothing was, not even clips that are left out.
        """
        if not self._rows and not self._skipped:
            raise UserError(f"{source} lists no clip: it is empty, or cut off.")
        return Manifest(root, tuple(self._rows.values()), tuple(self._skipped), tuple(notes))

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


def _clean(name: str | None) -> str | None:
    return printable(name.strip()) or None if name is not None else None
