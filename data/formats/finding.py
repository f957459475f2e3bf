"""Finding the files that tell a format, without going through a whole data set."""

import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath


def first_matches(root: Path, folders: Sequence[str], names: Iterable[str]) -> tuple[str, ...]:
    """Return the files of certain names in the first folder that holds one of them.

    Args:
        root: the data set; nothing is found where it is no folder.
        folders: patterns of folders within the root, the likeliest first; "" is the root itself.
        names: of files, or patterns.

    Returns:
        Paths within the root, with "/", in the order of the names.
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
