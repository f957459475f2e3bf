"""A folder of clips, each beside its caption: ``name.mp4`` and ``name.txt``."""

from pathlib import Path, PurePosixPath

from common.errors import UserError
from data.captions import read_caption
from data.formats.data_format import DataFormat, ReadingOptions
from data.formats.media_rows import MEDIA_EXTENSIONS, media_kind, walk_files
from data.manifest import Manifest, ManifestRow, Media, SkippedRow
from data.paths import printable
from data.unusable import UnusableClip


def _recognise(path: Path) -> str | None:
    return "it is a folder, and nothing in it tells of another format" if path.is_dir() else None


def _read(path: Path, options: ReadingOptions) -> Manifest:
    names = list(walk_files(path))
    clips = [name for name in names if media_kind(name) is not None]
    if not clips:
        raise UserError(
            f"DATA_ROOT={str(path)!r} holds no clip ({', '.join(MEDIA_EXTENSIONS)}). Each clip is a file with its "
            "caption beside it: name.mp4 and name.txt."
        )
    rows: dict[str, ManifestRow] = {}
    skipped = []
    for name in clips:
        clip_id = printable(name)
        try:
            if clip_id in rows:
                raise UnusableClip("cannot be told by its name from another file")
            caption = read_caption(path, str(PurePosixPath(name).with_suffix(".txt")))
        except UnusableClip as error:
            skipped.append(SkippedRow(clip_id, str(error)))
            continue
        signer = _signer(name) if options.signer_from_file_name else None
        kind = media_kind(name)
        assert kind is not None
        rows[clip_id] = ManifestRow(clip_id, Media(kind, name), caption, signer)
    return Manifest(path, tuple(rows.values()), tuple(skipped), _lonely_captions(names, clips))


def _signer(name: str) -> str | None:
    before, underscore, _ = PurePosixPath(name).stem.partition("_")
    return printable(before) if underscore and before else None


def _lonely_captions(names: list[str], clips: list[str]) -> tuple[str, ...]:
    with_clip = {str(PurePosixPath(name).with_suffix("")) for name in clips}
    texts = [name for name in names if PurePosixPath(name).suffix == ".txt"]
    lonely = [name for name in texts if str(PurePosixPath(name).with_suffix("")) not in with_clip]
    if not lonely:
        return ()
    return (f"{len(lonely)} .txt files have no clip beside them, such as {printable(lonely[0])}",)


FORMAT = DataFormat("folder", "folder of clips with captions", _recognise, _read)
