"""Names of files that other people chose."""

from pathlib import Path

from data.unusable import UnusableClip


def inside(root: Path, name: str) -> Path:
    """Return the path of something within a folder; neither ``..`` nor links may lead out of it.

    Raises:
        UnusableClip: they do, or there is nothing of this name.
    """
    try:
        path = root / name
        resolved = path.resolve(strict=True)
        is_within = resolved.is_relative_to(root.resolve())
    except FileNotFoundError as error:
        kind = "is a link that leads nowhere" if path.is_symlink() else "does not exist"
        raise UnusableClip(kind) from error
    except RuntimeError as error:  # Python 3.11 and 3.12 on a circle of links
        raise UnusableClip("is a link that leads nowhere") from error
    except ValueError as error:  # a zero byte
        raise UnusableClip("has a name that no file can have") from error
    except OSError as error:
        raise UnusableClip(f"cannot be read ({error.strerror})") from error
    if not is_within:
        raise UnusableClip("leads out of the data set's folder")
    return path


def inside_file(root: Path, name: str) -> Path:
    """Return the path of a regular file within a folder.

    Raises:
        UnusableClip: see `inside`; or it is a folder, a pipe or a device.
    """
    path = inside(root, name)
    try:
        is_file = path.is_file()
    except OSError as error:
        raise UnusableClip(f"cannot be read ({error.strerror})") from error
    if not is_file:
        raise UnusableClip("is not a regular file")
    return path


def printable(name: str) -> str:
    """Return a name on one line that any terminal and any JSON file can take.

    Line breaks, other control characters and bytes that are not UTF-8 become escapes such as ``\\n``.
    """
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape", "surrogatepass").decode("ascii")
        for character in name
    )
