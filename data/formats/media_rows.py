"""What several formats share: which files are clips, and looking them up by name."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from common.errors import UserError
from data.manifest import MediaKind
from data.media.video import VIDEO_EXTENSIONS

POSE_EXTENSION = ".pose"
MEDIA_EXTENSIONS = (*VIDEO_EXTENSIONS, POSE_EXTENSION)


def media_kind(name: str) -> MediaKind | None:
    """Return the kind of clip that a file of this name holds; None if it holds none."""
    suffix = PurePosixPath(name).suffix.lower()
    if suffix == POSE_EXTENSION:
        return "pose"
    return "video" if suffix in VIDEO_EXTENSIONS else None


def walk_files(root: Path) -> Iterator[str]:
    """Yield the path within `root` of every file below it, sorted within its folder; hidden ones are left out.

    Links to folders are not followed, so that nothing is found twice and a circle does no harm.

    Raises:
        UserError: a folder cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise UserError(f"DATA_ROOT: the folder {error.filename} cannot be read: {error.strerror}.") from error

    for folder, subfolders, names in os.walk(root, onerror=refuse):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith((".", "__MACOSX")))
        relative = os.path.relpath(folder, root)
        for name in sorted(names):
            if not name.startswith("."):
                yield name if relative == "." else f"{relative}/{name}".replace(os.sep, "/")
