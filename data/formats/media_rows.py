"""What several formats share: which files are clips, and finding all files below a folder."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from common.errors import UserError
from data.formats.fields import shown_name
from data.manifest import MediaKind, SkippedRow
from data.media.video import VIDEO_EXTENSIONS

POSE_EXTENSION = ".pose"
MEDIA_EXTENSIONS = (*VIDEO_EXTENSIONS, POSE_EXTENSION)
NAMED_FOLDERS = 3  # that a message names where nothing was found
LINK = "is a link to a folder, which is not followed: put the folder itself there, or set DATA_ROOT to where it leads"


def media_kind(name: str) -> MediaKind | None:
    """Return the kind of clip that a file of this name holds; None if it holds none."""
    suffix = PurePosixPath(name).suffix.lower()
    if suffix == POSE_EXTENSION:
        return "pose"
    return "video" if suffix in VIDEO_EXTENSIONS else None


@dataclass(frozen=True)
class FoundFiles:
    """What lies below a folder."""

    names: tuple[str, ...]  # paths within the folder, with "/"
    skipped: tuple[SkippedRow, ...]  # the folders in it that were not gone through, and why

    def not_searched(self) -> str:
        """Return a sentence that names the first skipped folders, to go on with after a message; or nothing."""
        if not self.skipped:
            return ""
        return f" Not searched: {', '.join(f'{row.id} {row.reason}' for row in self.skipped[:NAMED_FOLDERS])}."


def _none(folder: str) -> bool:
    return False


def walk_files(root: Path, leave_out: Callable[[str], bool] = _none) -> FoundFiles:
    """Find every file below a folder, sorted within its folder; hidden files and folders do not count.

    Links to folders are not followed, so that nothing is found twice and a circle does no harm.

    Args:
        root: the folder.
        leave_out: tells by its name whether a folder is left out without a word.

    Raises:
        UserError: `root` itself cannot be listed.
    """
    names, skipped, waiting = list[str](), list[SkippedRow](), [""]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(root / folder) as listed:
                entries = sorted(listed, key=lambda entry: entry.name)
        except OSError as error:
            if not folder:
                shown = shown_name(str(root))
                raise UserError(f"DATA_ROOT: the folder {shown} cannot be read: {error.strerror}.") from error
            skipped.append(SkippedRow(shown_name(folder), f"cannot be read ({error.strerror})"))
            continue
        subfolders = []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if not _is_folder(entry):
                names.append(folder + entry.name)
            elif entry.name.startswith("__MACOSX") or leave_out(entry.name):
                continue
            elif entry.is_symlink():
                skipped.append(SkippedRow(shown_name(f"{folder}{entry.name}/"), LINK))
            else:
                subfolders.append(f"{folder}{entry.name}/")
        waiting += reversed(subfolders)
    return FoundFiles(tuple(names), tuple(skipped))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads nowhere: it is named as a file, should it count as one
        return False
