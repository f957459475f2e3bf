"""A folder of numbered pictures as a clip."""

import hashlib
import io
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy
from PIL import ExifTags, Image

from data.media.budget import MOST_PICTURE_BYTES, Budget, check_frame_count, failures_as_reasons, large_frame_lock
from data.media.files import MOST_BYTES, inside_file, printable
from data.media.resample import (
    UPRIGHT,
    ClipShape,
    DecodedClip,
    Frame,
    Frames,
    MediaFacts,
    Turn,
    begins_within,
    choose_frames,
    needed_frames,
    rgb_pixels,
    turn_changes,
    turned,
)
from data.rows import WHOLE, TimeSpan, UnusableClip

FRAME_EXTENSIONS = (".png", ".jpg", ".jpeg")
_PILLOW_FORMATS = ["PNG", "JPEG"]
_EXIF_TURNS: dict[object, Turn] = {  # by the number of the orientation; 1 is upright
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}


@dataclass(frozen=True)
class FrameFolder:
    """The pictures of one clip, in the order of the numbers in their names."""

    root: Path  # no picture may lie outside of it
    path: str  # of the folder, from the root
    frames_per_second: float
    allowed: tuple[Path, ...] = ()  # where pictures may lie nevertheless

    def names(self) -> tuple[str, ...]:
        """Return the paths of the pictures from the root.

        Raises:
            UnusableClip: there are too many.
            OSError: the folder cannot be listed.
        """
        files = sorted((file.name for file in (self.root / self.path).iterdir()), key=_by_number)
        names = tuple(
            f"{self.path}/{name}"
            for name in files
            if Path(name).suffix.lower() in FRAME_EXTENSIONS
            and not name.startswith(".")  # some systems put such files there
        )
        check_frame_count(len(names))
        return names

    def digest(self) -> str:
        """Return the sha256 of all pictures, in order."""
        whole = hashlib.sha256()
        total = 0
        for name in self.names():
            content = self.read(name)
            total += len(content)
            if total > MOST_BYTES:
                raise UnusableClip(f"is larger than {MOST_BYTES >> 20} MiB")
            whole.update(hashlib.sha256(content).digest())
        return whole.hexdigest()

    def read(self, name: str) -> bytes:
        """Return the content of one picture, which may neither lie outside of the root nor be too large."""
        try:
            path = inside_file(self.root, name, self.allowed)
        except UnusableClip as error:
            reason = f"has a frame that cannot be used: {printable(Path(name).name)} {error}"
            raise UnusableClip(reason, error.outside) from error
        if path.stat().st_size > MOST_PICTURE_BYTES:
            raise UnusableClip(
                f"has a frame that is larger than {MOST_PICTURE_BYTES >> 20} MiB: {printable(path.name)}"
            )
        return path.read_bytes()


def _by_number(name: str) -> list[tuple[int, str]]:
    """Return what sorts 2.png before 10.png."""
    return [(int(part), part) if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def decode_frames(
    folder: FrameFolder, shape: ClipShape, span: TimeSpan = WHOLE, known: MediaFacts | None = None
) -> DecodedClip:
    """Return a folder of frames, or a part of it, resampled over its full duration; `known` was found out before.

    Every picture is decoded, so that whether a clip can be used does not depend on its new length.

    Raises:
        UnusableClip: there are too few or too many pictures, or one is damaged or too large.
    """
    with failures_as_reasons():
        names = folder.names()
        seconds = 1 / folder.frames_per_second
        times = [number * seconds for number in range(len(names))]
        within = [time for time in times if begins_within(time, span)]
        duration = within[-1] - within[0] + seconds if within else 0.0
        expected = needed_frames(within, duration, shape.lengths)
        return choose_frames(lambda: folder_frames(folder, names), expected, shape, span, known)


def folder_frames(folder: FrameFolder, names: Sequence[str]) -> Frames:
    """Yield every picture.

    Raises:
        UnusableClip: one is too large. Pillow's own errors pass through.
    """
    budget = Budget()
    for number, name in enumerate(names):
        with Image.open(io.BytesIO(folder.read(name)), formats=_PILLOW_FORMATS) as image:
            budget.spend(*image.size)
            with large_frame_lock(*image.size):
                image.load()
                rate = folder.frames_per_second
                turn = _turn(image)
                changes = turn_changes(turn)
                if image.has_transparency_data:
                    changes |= {"transparent"}
                yield Frame(number / rate, 1 / rate, partial(_upright_pixels, image, turn), changes=changes)


def _turn(image: Image.Image) -> Turn:
    """Return how a camera was held, by the picture's EXIF; what cannot be read counts as upright."""
    try:
        return _EXIF_TURNS.get(image.getexif().get(ExifTags.Base.Orientation), UPRIGHT)
    except (OSError, SyntaxError, TypeError, ValueError, struct.error):
        return UPRIGHT


def _upright_pixels(image: Image.Image, turn: Turn) -> numpy.ndarray:
    return turned(rgb_pixels(image), turn)
