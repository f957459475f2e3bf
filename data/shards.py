"""Writing a data set of any format as WebDataset shards: a few large files, which clusters read faster than many small.

The library's own writer makes them, so that every program that reads WebDataset reads them.
"""

import itertools
import json
import os
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from webdataset import TarWriter

from common.console import counted, with_progress
from common.errors import UserError
from common.files import new_folder
from common.randomness import numpy_generator
from data.media.containers import check_kind
from data.media.decode import open_media
from data.media.encode import ENCODED_SUFFIX, encode_clip
from data.media.files import MOST_MEMBER_BYTES
from data.media.frames import FrameFolder
from data.rows import WHOLE, Manifest, ManifestRow, Media, SkippedRow, UnusableClip

MOST_WORKERS = 8  # threads: reading and encoding leave Python's lock; each holds one clip in memory
NAMED_CLIPS = 3  # that the message names if none can be written
_BLOCK = 512  # bytes: of a header in a tar file, and what contents are padded to
_END_BYTES = 10_240  # at most, of what ends a tar file


@dataclass
class ShardReport:
    """What was written."""

    shards: int = 0
    clips: int = 0
    encoded: int = 0  # of the clips: those that were parts of a longer file, or folders of frames
    skipped: list[SkippedRow] = field(default_factory=list)  # rows that were not written


def write_shards(manifest: Manifest, output: Path, *, shard_bytes: int, seed: int) -> ShardReport:
    """Write ``shard-000000.tar`` and so on into a new folder.

    Each clip comes once and by itself, as ``00000000.mp4`` (or another kind), ``.txt`` with the caption, and ``.json``
    with its id and, if they are known, signer, split and language. Complete files are copied byte by byte. A part of a
    video and a folder of frames are encoded anew (see `encode_clip`). A part of a .pose file is the complete file,
    which is small, with start and end in the .json.

    The clips are shuffled, so that those of one signer do not lie together. The same data set and seed give the same
    bytes. The folder appears when all shards have reached the disk.

    Args:
        manifest: the clips. Only the beginning of a file is checked: leave out what an inspection found to be unusable.
        output: must not exist, or be an empty folder.
        shard_bytes: no shard is larger, unless a single clip is.
        seed: of the order.

    Raises:
        UserError: the folder is not empty or cannot be written, or no clip can be read. Nothing is left behind.
    """
    missing = [folder for folder in output.parents if not folder.exists()]  # will be made on the way
    try:
        check_new_folder(output)
        with new_folder(output) as folder:
            report = _Writer(manifest, folder, shard_bytes, seed).write()
            check_new_folder(output)  # it may have been filled meanwhile, and would be replaced
    except BaseException as error:
        with suppress(OSError):  # a folder that was never made, or holds something by now
            for parent in missing:
                parent.rmdir()
        if isinstance(error, OSError):
            raise UserError(f"{output} cannot be written: {error.strerror}. Nothing of it was kept.") from error
        raise
    return report


def check_new_folder(output: Path) -> None:
    """Refuse a folder that holds something.

    Raises:
        UserError: it does, or it is no folder.
    """
    if output.is_symlink() or (output.exists() and not output.is_dir()):
        raise UserError(f"{output} is there already, and is no folder: give a new folder for the shards.")
    if output.exists() and any(output.iterdir()):
        raise UserError(f"{output} is not empty: give a new folder for the shards, or empty this one.")


@dataclass(frozen=True)
class ShardSample:
    """The files of one clip."""

    files: Mapping[str, bytes]  # by extension, without a dot
    is_encoded: bool  # anew; the others are as they were

    @property
    def bytes_in_tar(self) -> int:
        """Return the room that they take in a tar file."""
        return sum(_BLOCK + -(-len(content) // _BLOCK) * _BLOCK for content in self.files.values())


def prepare_sample(root: Path, row: ManifestRow) -> ShardSample:
    """Read or encode a clip, and write down what its row says.

    Raises:
        UnusableClip: it cannot be read, or is too large.
    """
    span = row.media.span
    is_encoded = row.media.kind == "frames" or (row.media.kind == "video" and span != WHOLE)
    try:
        suffix, content = (ENCODED_SUFFIX, encode_clip(root, row.media)) if is_encoded else _read(root, row.media)
    except OSError as error:
        raise UnusableClip(f"cannot be read ({error.strerror})") from error
    facts: dict[str, object] = {"id": row.id, "signer": row.signer, "split": row.split, "language": row.language}
    if not is_encoded and span != WHOLE:
        facts |= {"start": span.start, "end": span.end}
    known = {name: value for name, value in facts.items() if value is not None}
    files = {suffix.removeprefix("."): content, "txt": row.caption.encode(), "json": json.dumps(known).encode()}
    return ShardSample(files, is_encoded)


def _read(root: Path, media: Media) -> tuple[str, bytes]:
    """Return the extension and the content of a file, after a check of its beginning."""
    opened = open_media(root, media)
    assert not isinstance(opened, FrameFolder)
    opened.check_size()
    if media.kind == "video":
        check_kind(opened)
    content = opened.read_bytes(MOST_MEMBER_BYTES + 1)
    if len(content) > MOST_MEMBER_BYTES:
        raise UnusableClip(f"is larger than {MOST_MEMBER_BYTES >> 20} MiB: too large for a clip in a shard")
    return opened.suffix, content


class _Writer:
    def __init__(self, manifest: Manifest, folder: Path, shard_bytes: int, seed: int) -> None:
        order = numpy_generator(seed, "shard_order").permutation(len(manifest.rows))
        self._rows = [manifest.rows[index] for index in order]
        self._root = manifest.root
        self._folder = folder
        self._shard_bytes = shard_bytes
        self._workers = min(MOST_WORKERS, os.cpu_count() or 1)
        self._report = ShardReport()

    def write(self) -> ShardReport:
        pool = ThreadPoolExecutor(self._workers)
        try:
            for number, members in itertools.groupby(self._numbered(pool), key=lambda numbered: numbered[0]):
                with open(self._folder / f"shard-{number:06d}.tar", "wb") as file:
                    self._write_shard(TarWriter(file, encoder=False, mtime=0), (sample for _, sample in members))
                self._report.shards += 1
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        if not self._report.clips:
            named = ", ".join(f"{row.id} {row.reason}" for row in self._report.skipped[:NAMED_CLIPS])
            raise UserError(
                f"Not one of {counted(len(self._rows), 'clip')} can be written: {named or 'the data set is empty'}."
            )
        return self._report

    def _write_shard(self, tar: TarWriter, samples: Iterator[ShardSample]) -> None:
        # The time is fixed, and the owner is the library's: the same clips give the same bytes.
        with tar:
            for sample in samples:
                tar.write({"__key__": f"{self._report.clips:08d}", **sample.files})
                self._report.clips += 1
                self._report.encoded += sample.is_encoded

    def _numbered(self, pool: ThreadPoolExecutor) -> Iterator[tuple[int, ShardSample]]:
        """Yield each sample with the number of its shard."""
        shard, filled = 0, 0
        for row, prepared in self._prepared(pool):
            try:
                sample = prepared.result()
            except UnusableClip as error:
                self._report.skipped.append(SkippedRow(row.id, str(error)))
                continue
            if filled and filled + sample.bytes_in_tar + _END_BYTES > self._shard_bytes:
                shard, filled = shard + 1, 0
            filled += sample.bytes_in_tar
            yield shard, sample

    def _prepared(self, pool: ThreadPoolExecutor) -> Iterator[tuple[ManifestRow, Future[ShardSample]]]:
        """Yield all rows in order, while a few that come later are prepared."""
        waiting: deque[tuple[ManifestRow, Future[ShardSample]]] = deque()
        for row in with_progress(self._rows, "Writing shards"):
            waiting.append((row, pool.submit(prepare_sample, self._root, row)))
            if len(waiting) > self._workers:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
