"""Files that lists of clips name by their paths."""

import os
from pathlib import Path, PurePosixPath

from data.formats.fields import Values, as_text, shown
from data.formats.media_rows import MEDIA_EXTENSIONS, media_kind
from data.manifest import WHOLE, Media, TimeSpan
from data.unusable import UnusableClip


def listed_media(root: Path, values: Values, span: TimeSpan = WHOLE) -> Media:
    """Return the clip that the field path names, a file or a folder of frames.

    That it is within the data set's folder is checked again, links included, when it is opened.

    Args:
        root: the folder that paths are within.
        values: of one line.
        span: the part of the file that is the clip.

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
    """Return a path as it is from the root, in its simplest form.

    Raises:
        UnusableClip: it leads elsewhere.
    """
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
