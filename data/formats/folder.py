"""A folder of clips, each next to its caption: ``name.mp4`` and ``name.txt``."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from common.errors import UserError
from data.captions import read_caption
from data.formats.data_format import DataFormat
from data.formats.fields import shown_name
from data.formats.manifest import EXTENSIONS as LIST_EXTENSIONS
from data.formats.search import MEDIA_EXTENSIONS, composed, media_kind, name_lookup, walk_files
from data.media.files import printable
from data.rows import Manifest, ManifestRow, Media, Notice, SkippedRow, UnusableClip

NAMED_LISTS = 3  # that a note names
OTHER_VIDEOS = (".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".mts", ".3gp", ".ogv", ".webp", ".apng")


def _recognise(path: Path) -> str | None:
    return "it is a folder, and nothing in it tells of another format" if path.is_dir() else None


def _read(path: Path, allowed: tuple[Path, ...] = ()) -> Manifest:
    found = walk_files(path, allowed=allowed)
    clips = [name for name in found.names if media_kind(name) is not None]
    if not clips:
        raise UserError(
            f"DATA_ROOT={str(path)!r} holds no clip ({', '.join(MEDIA_EXTENSIONS)}). Each clip is a file with its "
            f"caption beside it: name.mp4 and name.txt.{found.not_searched()}"
        )
    rows: dict[str, ManifestRow] = {}
    skipped = list(found.skipped)
    captions = name_lookup(found.names)
    for name in clips:
        clip_id = printable(name)
        try:
            if clip_id in rows:
                raise UnusableClip("cannot be told by its name from another file")
            wanted, capitals = (str(PurePosixPath(name).with_suffix(suffix)) for suffix in (".txt", ".TXT"))
            caption = read_caption(path, captions(wanted) or captions(capitals) or wanted, allowed)
        except UnusableClip as error:
            skipped.append(SkippedRow(clip_id, str(error), outside=error.outside))
            continue
        kind = media_kind(name)
        assert kind is not None
        rows[clip_id] = ManifestRow(clip_id, Media(kind, name), caption)
    return Manifest(path, tuple(rows.values()), tuple(skipped), _notices(found.names, clips))


def with_signers(manifest: Manifest) -> Manifest:
    """Return the clips of a folder with the signer that each file's name begins with: alice_hello.mp4."""
    rows = []
    for row in manifest.rows:
        before, underscore, _ = PurePosixPath(row.media.path).stem.partition("_")
        rows.append(replace(row, signer=printable(before) if underscore and before else None))
    return replace(manifest, rows=tuple(rows))


def _notices(names: Sequence[str], clips: Sequence[str]) -> tuple[Notice, ...]:
    wanted = {composed(str(PurePosixPath(name).with_suffix(".txt"))) for name in clips}
    captions = {composed(name) for name in names if PurePosixPath(name).suffix == ".txt"}
    lists = [name for name in names if "/" not in name and PurePosixPath(name).suffix.lower() in LIST_EXTENSIONS]
    notes = []
    if lonely := captions - wanted:
        notes.append(f"{len(lonely)} .txt files have no clip beside them, such as {shown_name(min(lonely))}")
    if others := [name for name in names if PurePosixPath(name).suffix.lower() in OTHER_VIDEOS]:
        notes.append(
            f"{len(others)} videos are of kinds that are not read, such as {shown_name(others[0])}: encode anew"
        )
    if lists and wanted - captions:
        named = " or ".join(shown_name(name) for name in lists[:NAMED_LISTS])
        notes.append(f"{named} may be the list of clips: give it as DATA_ROOT")
    return tuple(Notice("files", note) for note in notes)


FORMAT = DataFormat(
    "folder",
    "folder of clips with captions",
    "a folder of clips, each with its caption beside it: name.mp4 and name.txt",
    _recognise,
    _read,
)
