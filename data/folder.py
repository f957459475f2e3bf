"""A folder of videos with captions: name.mp4 (or gif, webm, mov, avi, mkv) beside name.txt."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy

from common.errors import UserError
from common.randomness import derive_seed
from data.cache import ClipCache
from data.decode import UnusableVideo
from data.folder_scan import ClipFile, FolderReader, SkippedFile, normalise_caption, scan_folder
from data.records import ClipRow, DataSplits

LARGEST_UNUSABLE_SHARE = 0.5
NAMED_FILES = 5  # skipped files that a message names
PROMPTS_OF_EACH_KIND = 3


@dataclass(frozen=True)
class FolderClips:
    """Some of the folder's clips, the same in every epoch."""

    reader: FolderReader
    files: tuple[ClipFile, ...]

    def __len__(self) -> int:
        return len(self.files)

    def row(self, epoch: int, index: int) -> ClipRow:
        if not 0 <= index < len(self.files):
            raise IndexError(index)
        return ClipRow(self.files[index].name, self.files[index].caption)

    @cached_property
    def _file_by_name(self) -> dict[str, ClipFile]:
        return {file.name: file for file in self.files}

    def load(self, row: ClipRow) -> numpy.ndarray:
        try:
            return self.reader.clip(self._file_by_name[row.id])
        except UnusableVideo as error:
            raise UserError(f"{self.reader.root / row.id} {error}: put it back, or start again without it.") from error


@dataclass(frozen=True)
class FolderSplits(DataSplits):
    """See `open_folder`."""

    reader: FolderReader
    files: tuple[ClipFile, ...]
    training_captions: frozenset[str]

    def is_held_out(self, caption: str) -> bool:
        """Return whether no training clip has this caption."""
        return normalise_caption(caption) not in self.training_captions

    def real_clip(self, caption: str) -> numpy.ndarray | None:
        """Return the first clip with this caption; None if there is none or it has gone."""
        for file in self.files:
            if file.caption == normalise_caption(caption):
                try:
                    return self.reader.clip(file)
                except UnusableVideo:
                    return None
        return None


def open_folder(
    root: Path,
    *,
    num_frames: int,
    image_size: int,
    validation_fraction: float,
    validation_clips: int,
    seed: int,
    cache: ClipCache,
) -> DataSplits:
    """Open a folder of videos, each with its caption (UTF-8 text) beside it. Videos are never mirrored.

    Args:
        root: the folder; its subfolders are not searched.
        num_frames: T; each video is resampled over its whole duration.
        image_size: H and W; the centre square of each frame is resized.
        validation_fraction: share of the different captions that is held out for validation, with all their clips.
        validation_clips: no more clips than this are validated on.
        seed: decides which captions are held out.
        cache: keeps the decoded clips.

    Raises:
        UserError: the folder holds no usable video, or more than half of its videos are unusable.
    """
    reader = FolderReader(root, num_frames, image_size, cache)
    usable, skipped = scan_folder(reader)
    _refuse_broken_folder(root, usable, skipped)
    held_out = _held_out_captions(usable, validation_fraction, seed)
    training = tuple(file for file in usable if file.caption not in held_out)
    shares = not held_out
    candidates = training if shares else tuple(file for file in usable if file.caption in held_out)
    validation = _by_hash(candidates, seed)[:validation_clips]
    note = "taken from the training clips" if shares else "with captions held out"
    description = f"Folder {root}: {len(training)} clips for training, {len(validation)} for validation ({note})"
    if skipped:
        description += f"; {len(skipped)} skipped: {_name_skipped(skipped)}"
    return FolderSplits(
        description=description,
        training=FolderClips(reader, training),
        validation=FolderClips(reader, validation),
        symbols=None,
        default_prompts=_default_prompts(training, validation),
        report={
            "data": "folder",
            "root": str(root),
            "seed": seed,
            "validation_shares_training_clips": shares,
            "held_out_captions": sorted(held_out),
            "training": [{"file": file.name, "caption": file.caption} for file in training],
            "validation": [{"file": file.name, "caption": file.caption} for file in validation],
            "skipped": [{"file": file.name, "reason": file.reason} for file in skipped],
        },
        reader=reader,
        files=usable,
        training_captions=frozenset(file.caption for file in training),
    )


def _refuse_broken_folder(root: Path, usable: Sequence[ClipFile], skipped: Sequence[SkippedFile]) -> None:
    total = len(usable) + len(skipped)
    if usable and len(skipped) <= LARGEST_UNUSABLE_SHARE * total:
        return
    raise UserError(
        f"DATA_ROOT={str(root)!r}: {len(skipped)} of {total} videos cannot be used, which looks like a mistake. "
        f"{_name_skipped(skipped)}. Put them right or take them away."
    )


def _name_skipped(skipped: Sequence[SkippedFile]) -> str:
    named = ", ".join(f"{file.name} {file.reason}" for file in skipped[:NAMED_FILES])
    more = len(skipped) - NAMED_FILES
    return f"{named} and {more} more" if more > 0 else named


def _by_hash(files: Sequence[ClipFile], seed: int) -> tuple[ClipFile, ...]:
    return tuple(sorted(files, key=lambda file: (derive_seed(seed, f"validation_clip/{file.name}"), file.name)))


def _held_out_captions(files: Sequence[ClipFile], fraction: float, seed: int) -> frozenset[str]:
    """Return at least `fraction` of the captions, in hash order; one at least stays for training."""
    captions = sorted(
        {file.caption for file in files}, key=lambda text: derive_seed(seed, f"validation_caption/{text}")
    )
    wanted = math.ceil(fraction * len(captions) - 1e-9)
    return frozenset(captions[: min(wanted, len(captions) - 1)])


def _default_prompts(training: Sequence[ClipFile], validation: Sequence[ClipFile]) -> tuple[str, ...]:
    """Return the most frequent training captions and the first validation captions."""
    frequent = [caption for caption, _ in Counter(file.caption for file in training).most_common(PROMPTS_OF_EACH_KIND)]
    fixed = list(dict.fromkeys(file.caption for file in validation))[:PROMPTS_OF_EACH_KIND]
    return tuple(dict.fromkeys([*frequent, *fixed]))
