"""Finding the files of a data set: which are clips, what lies below a folder, and what a list names."""

import glob
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from common.console import counted
from common.errors import UserError
from data.formats.fields import Values, as_text, shown, shown_name
from data.media.containers import VIDEO_EXTENSIONS
from data.rows import WHOLE, Manifest, Media, MediaKind, Notice, SkippedRow, TimeSpan, UnusableClip

POSE_EXTENSION = ".pose"
MEDIA_EXTENSIONS = (*VIDEO_EXTENSIONS, POSE_EXTENSION)
NAMED_FOLDERS = 3  # that a message names if nothing was found
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
    skipped: tuple[SkippedRow, ...]  # the folders in it that were not searched, and why

    def not_searched(self) -> str:
        """Return a sentence that names the first skipped folders, to append to a message; or nothing."""
        if not self.skipped:
            return ""
        return f" Not searched: {', '.join(f'{row.id} {row.reason}' for row in self.skipped[:NAMED_FOLDERS])}."


def walk_files(root: Path, leave_out: Callable[[str], bool] | None = None) -> FoundFiles:
    """Find every file below a folder, sorted within its folder; hidden files and folders do not count.

    Links to folders are not followed, so that nothing is found twice and a circle does no harm. `leave_out` tells by
    its name whether a folder is left out silently.

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
                raise _unreadable(root, error) from error
            skipped.append(SkippedRow(shown_name(folder), f"cannot be read ({error.strerror})"))
            continue
        subfolders = []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if not _is_folder(entry):
                names.append(folder + entry.name)
            elif entry.name.startswith("__MACOSX") or (leave_out is not None and leave_out(entry.name)):
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


def names_in(folder: Path, *, only_folders: bool = False) -> list[str]:
    """Return the names in a folder, sorted; none if there is no such folder.

    Raises:
        UserError: it cannot be listed.
    """
    if not os.path.isdir(folder):
        return []
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if not only_folders or entry.is_dir())
    except OSError as error:
        raise _unreadable(folder, error) from error


def _unreadable(folder: Path, error: OSError) -> UserError:
    return UserError(f"DATA_ROOT: the folder {shown_name(str(folder))} cannot be read: {error.strerror}.")


def first_matches(root: Path, folders: Sequence[str], names: Iterable[str]) -> tuple[str, ...]:
    """Return the files of certain names in the first folder that holds one of them, as paths within the root.

    Both are patterns: folders within the root, the likeliest first ("" is the root itself), and the names of files, in
    the order of the result.
    """
    wanted = tuple(names)
    for folder in folders:
        pattern = f"{folder}/" if folder else ""
        found = [path for name in wanted for path in sorted(glob.glob(pattern + name, root_dir=root))]
        files = [path.replace(os.sep, "/") for path in found if os.path.isfile(root / path)]
        if files:
            return tuple(path for path in files if PurePosixPath(path).parent == PurePosixPath(files[0]).parent)
    return ()


def first_folder(root: Path, patterns: Sequence[str]) -> str | None:
    """Return the path within the root of the first folder that matches the first pattern that has one."""
    for pattern in patterns:
        found = [path for path in glob.glob(pattern, root_dir=root) if os.path.isdir(root / path)]
        if found:
            return min(found).replace(os.sep, "/")
    return None


def with_cut_notice(manifest: Manifest) -> Manifest:
    """Return a published set with a notice of the clips that are parts of complete videos, if there are any."""
    cut = [row for row in manifest.rows if row.media.span != WHOLE]
    if not cut:
        return manifest
    text = (
        f"parts of complete videos, by the times in the list: {len(cut)} of {counted(len(manifest.rows), 'clip')}, "
        f"such as {shown_name(cut[0].id)} of {shown_name(cut[0].media.path)} (a clip with a file of its own is read "
        "from that)"
    )
    return replace(manifest, notices=(*manifest.notices, Notice("clips", text)))


def listed_media(root: Path, values: Values, span: TimeSpan) -> Media:
    """Return the clip that the field path names, a file or a folder of frames within the root.

    When it is opened, its place is checked again, links included.

    Raises:
        UnusableClip: there is no such file, or it is of a kind that cannot be read.
    """
    named = as_text(values, "path")
    path = _within(root, named)
    if not os.path.lexists(os.path.join(root, path)):
        path = _within(root, named.replace("\\", "/"))  # the list may have been written on Windows
        if not os.path.lexists(os.path.join(root, path)):
            raise UnusableClip(f"names path={shown(named)}, which does not exist below {shown(str(root))}")
    if os.path.isdir(os.path.join(root, path)):
        return Media("frames", path, span)
    kind = media_kind(path)
    if kind is None:
        possible = ", ".join(MEDIA_EXTENSIONS)
        raise UnusableClip(f"names path={shown(named)}: a clip is one of {possible}, or a folder of frames")
    return Media(kind, path, span)


def _within(root: Path, named: str) -> str:
    """Return a path as it is from the root, in its simplest form; refuse one that leads elsewhere."""
    path = PurePosixPath(named)
    if path.is_absolute():
        try:
            path = path.relative_to(os.path.abspath(root))
        except ValueError as error:
            raise UnusableClip(
                f"names path={shown(named)}, which is not below {shown(os.path.abspath(root))}"
            ) from error
    if ".." in path.parts:
        raise UnusableClip(f"names path={shown(named)}: write paths without .., from the list's own folder")
    return str(path)
