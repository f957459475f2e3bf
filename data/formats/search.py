"""Finding the files of a data set: which are clips, what lies below a folder, and what a list names."""

import glob
import os
import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from common.console import counted
from common.errors import UserError
from data.formats.fields import Values, as_text, shown, shown_name
from data.media.containers import VIDEO_EXTENSIONS
from data.media.files import inside
from data.rows import WHOLE, Manifest, Media, MediaKind, Notice, SkippedRow, TimeSpan, UnusableClip

POSE_EXTENSION = ".pose"
MEDIA_EXTENSIONS = (*VIDEO_EXTENSIONS, POSE_EXTENSION)
NAMED_FOLDERS = 3  # that a message names if nothing was found
MOST_PARTS_TAKEN_AWAY = 20  # of a path, to find what is left of it
NAMED_FILES = 3  # that a message names if it cannot be told which is meant
URL = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)  # pathlib leaves one slash of two
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


def walk_files(root: Path, leave_out: Callable[[str], bool] | None = None, allowed: Sequence[Path] = ()) -> FoundFiles:
    """Find every file below a folder, sorted within its folder; hidden files and folders do not count.

    Links to folders are followed only to what is `allowed`, and only once, so that nothing is found twice and a circle
    does no harm. `leave_out` tells by its name whether a folder is left out silently.

    Raises:
        UserError: `root` itself cannot be listed.
    """
    names, skipped, waiting = list[str](), list[SkippedRow](), [""]
    followed = [Path(os.path.realpath(root))]
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
                target = Path(os.path.realpath(entry.path))
                is_known = any(target.is_relative_to(each) or each.is_relative_to(target) for each in followed)
                if not is_known and any(target.is_relative_to(os.path.realpath(each)) for each in allowed):
                    followed.append(target)
                    subfolders.append(f"{folder}{entry.name}/")
                else:
                    outside = "" if is_known else str(target)
                    skipped.append(SkippedRow(shown_name(f"{folder}{entry.name}/"), LINK, outside=outside))
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


def holding(root: Path, folders: Sequence[str], names: Iterable[str]) -> str | None:
    """Return "it holds NAME" for the first file that `first_matches` finds; None if it finds none."""
    found = first_matches(root, folders, names)
    return f"it holds {PurePosixPath(found[0]).name}" if found else None


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


def composed(name: str) -> str:
    """Return a name with each accent in one character with its letter: some systems store two (NFC, not NFD)."""
    return unicodedata.normalize("NFC", name)


def name_lookup(names: Iterable[str], *, any_capitals: bool = False) -> Callable[[str], str | None]:
    """Return what finds a name among others in whatever form its accents are stored, or also in other capitals.

    The name itself wins. The function that is returned raises UnusableClip if it is not there, and several others
    differ in nothing else.
    """
    exact, forms = frozenset(names), [composed]
    if any_capitals:
        forms.append(lambda name: composed(name).casefold())
    tables: list[tuple[Callable[[str], str], dict[str, list[str]]]] = [(form, {}) for form in forms]
    for form, table in tables:
        for name in sorted(exact):
            table.setdefault(form(name), []).append(name)

    def find(wanted: str) -> str | None:
        if wanted in exact:
            return wanted
        found = next((table[form(wanted)] for form, table in tables if form(wanted) in table), [])
        if len(found) > 1:
            raise UnusableClip(
                f"names {shown(wanted)}, and {len(found)} files differ from it only in capitals or in how accents are "
                f"stored ({', '.join(ascii(name) for name in found[:NAMED_FILES])}): rename all but one"
            )
        return found[0] if found else None

    return find


class ListedFiles:
    """The files that a list names, wherever the list was written: with other separators, accents or capitals."""

    def __init__(self, root: Path, allowed: tuple[Path, ...]) -> None:
        self._root = root
        self._allowed = allowed
        self._lookups: dict[str, Callable[[str], str | None]] = {}  # by folder
        self._clips: dict[str, dict[str, str]] = {}  # by folder, and by their names without ending in small letters
        self._in_other_capitals: list[str] = []
        self._wrong_fronts: Counter[str] = Counter()

    def media(self, values: Values, span: TimeSpan) -> Media:
        """Return the clip that the field path names: a file or a folder of frames below the root or what is allowed.

        When it is opened, its place is checked again, links included.

        Raises:
            UnusableClip: there is no such file, it lies elsewhere, or it is of a kind that cannot be read.
        """
        named = as_text(values, "path")
        if URL.match(named):
            raise UnusableClip(f"names path={shown(named)}: nothing is fetched, so download it and name the file")
        path = self._find(named)
        if os.path.isdir(os.path.join(self._root, path)):
            return Media("frames", path, span)
        kind = media_kind(path)
        if kind is None:
            possible = ", ".join(MEDIA_EXTENSIONS)
            raise UnusableClip(f"names path={shown(named)}: a clip is one of {possible}, or a folder of frames")
        return Media(kind, path, span)

    def notices(self) -> tuple[Notice, ...]:
        """Return what was taken although its name is not quite the one in the list, and what many paths have wrong."""
        texts = []
        if self._in_other_capitals:
            count, first = len(self._in_other_capitals), shown_name(self._in_other_capitals[0])
            files = f"{first} was" if count == 1 else f"{count} files, such as {first}, were"
            texts.append(f"{files} taken although the list writes other capitals")
        for front, count in self._wrong_fronts.most_common(1):
            if count > 1:
                texts.append(f"{count} paths begin with {shown_name(front)}, which is not here: take it away")
        return tuple(Notice("files", text) for text in texts)

    def _find(self, named: str) -> str:
        """Return the path, from the root, of what a list calls `named`."""
        spellings = dict.fromkeys((named, named.replace("\\", "/")))  # the list may have been written on Windows
        paths = [_simplest(self._root, spelling) for spelling in spellings]
        if PurePosixPath(paths[-1]).name in ("", ".."):
            raise UnusableClip(f"names path={shown(named)}: a path must name a clip")
        for path in paths:
            if (found := self._existing(path)) is not None:
                if os.path.isabs(found) or ".." in PurePosixPath(found).parts:
                    inside(self._root, found, self._allowed)
                if composed(found) != composed(path):
                    self._in_other_capitals.append(found)
                return found
        raise UnusableClip(f"names path={shown(named)}, which does not exist{self._advice(named, paths[-1])}")

    def _advice(self, named: str, path: str) -> str:
        """Return what exists in place of a path that does not, and what to do, to append to a message."""
        parts = PurePosixPath(path).parts
        for folder in ("", *map(str, self._allowed)):
            # The list may have been written on another machine, in another folder, or where endings are hidden.
            for number in range(min(len(parts), MOST_PARTS_TAKEN_AWAY + 1)):
                tail = str(PurePosixPath(*parts[number:]))
                whole = posixpath.join(folder, tail)
                found = self._existing(whole)
                ending = "" if found is not None else "write its name with its ending"
                if (found := found or self._with_other_ending(whole)) is None:
                    continue
                found_there = f", but '{shown_name(found)}' does: "
                if folder:
                    return f"{found_there}put the list there, or write whole paths"
                if number == 0:
                    return found_there + ending
                is_plain = named.replace("\\", "/").endswith(tail)
                front = named[: len(named) - len(tail)] if is_plain else path.removesuffix(tail)
                self._wrong_fronts[front] += 1
                return (
                    f"{found_there}paths start at the list's folder, so take '{shown_name(front)}' away"
                    f"{' and ' if ending else ''}{ending}"
                )
        return f" below {shown(str(self._root))}"

    def _with_other_ending(self, path: str) -> str | None:
        """Return the clip that is named like this path but for its ending; None if there is none."""
        parent, name = posixpath.split(path)
        if (folder := self._existing(parent)) is None:
            return None
        stem = PurePosixPath(name).stem if media_kind(name) is not None else name
        self._lookup(folder)
        clip = self._clips[folder].get(composed(stem).casefold())
        return None if clip is None else posixpath.join(folder, clip)

    def _existing(self, path: str) -> str | None:
        """Return what exists of this path, each part by itself or by a name that differs in nothing but its form."""
        if os.path.lexists(os.path.join(self._root, path)):
            return path
        found = ""
        for part in PurePosixPath(path).parts:
            name: str | None = part
            if not os.path.lexists(os.path.join(self._root, found, part)):
                name = self._lookup(found)(part)
            if name is None:
                return None
            found = posixpath.join(found, name)
        return found

    def _lookup(self, folder: str) -> Callable[[str], str | None]:
        if folder not in self._lookups:
            try:
                names = os.listdir(inside(self._root, folder, self._allowed))
            except (OSError, UnusableClip):  # it is a file, or may not be listed
                names = []
            self._lookups[folder] = name_lookup(names, any_capitals=True)
            clips = (name for name in sorted(names, reverse=True) if media_kind(name) is not None)
            self._clips[folder] = {composed(PurePosixPath(name).stem).casefold(): name for name in clips}
        return self._lookups[folder]


def _simplest(root: Path, named: str) -> str:
    """Return a path as it is from the root; one that is not below it stays as it is."""
    path = PurePosixPath(named)
    for folder in (os.path.abspath(root), os.path.realpath(root)) if path.is_absolute() else ():
        if path.is_relative_to(folder):
            return str(path.relative_to(folder))
    return str(path)
