"""Finding the usable videos of a folder, and saying what is wrong with the others."""

import hashlib
import os
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy
from tqdm import tqdm

from common.errors import UserError
from data.cache import ClipCache
from data.decode import VIDEO_EXTENSIONS, UnusableVideo, check_kind, decode_clip

DECODING_VERSION = 1  # raised when the same file would decode differently: old cache entries then do not count
MOST_CAPTION_BYTES = 16_384
MOST_READERS = 4  # threads: decoding leaves Python's lock
PROGRESS_DELAY = 2.0  # seconds: small folders show no bar


@dataclass(frozen=True)
class ClipFile:
    """One usable video."""

    name: str  # within the folder
    caption: str
    digest: str  # sha256 of its content


@dataclass(frozen=True)
class SkippedFile:
    """One video that cannot be used."""

    name: str
    reason: str


@dataclass(frozen=True)
class FolderReader:
    """Decodes the folder's videos to one length and size."""

    root: Path
    num_frames: int
    image_size: int
    cache: ClipCache

    def clip(self, file: ClipFile) -> numpy.ndarray:
        """Return a video as uint8 [T, H, W, 3], from the cache if it was decoded before.

        Raises:
            UnusableVideo: the file cannot be decoded, or is no longer the one that was found.
        """
        key = ("folder", DECODING_VERSION, file.digest, self.num_frames, self.image_size)
        return self.cache.get_or_make(key, lambda: self._decode(file))

    def _decode(self, file: ClipFile) -> numpy.ndarray:
        path = self.root / file.name
        try:
            if content_digest(path) != file.digest:
                raise UnusableVideo("has changed since the data set was opened")
        except OSError as error:
            raise UnusableVideo(f"cannot be read any more ({error.strerror})") from error
        return decode_clip(path, self.num_frames, self.image_size)


def scan_folder(reader: FolderReader) -> tuple[tuple[ClipFile, ...], tuple[SkippedFile, ...]]:
    """Look at every video of the folder, decode it once into the cache, and sort out what cannot be used.

    Raises:
        UserError: the folder cannot be listed or holds no video at all.
    """
    names = _video_names(reader.root)
    with ThreadPoolExecutor(min(MOST_READERS, os.cpu_count() or 1)) as pool:
        looked_at = pool.map(lambda name: _look_at(reader, name), names)
        found = list(tqdm(looked_at, "Reading clips", len(names), leave=False, disable=None, delay=PROGRESS_DELAY))
    usable = tuple(file for file in found if isinstance(file, ClipFile))
    return usable, tuple(file for file in found if isinstance(file, SkippedFile))


def _video_names(root: Path) -> list[str]:
    if not root.is_dir():
        raise UserError(f"DATA_ROOT={str(root)!r} is not a folder. Give the folder that holds the videos.")
    try:
        names = sorted(name for name in os.listdir(root) if Path(name).suffix.lower() in VIDEO_EXTENSIONS)
    except OSError as error:
        raise UserError(f"DATA_ROOT={str(root)!r} cannot be read: {error.strerror}.") from error
    if not names:
        raise UserError(
            f"DATA_ROOT={str(root)!r} holds no video ({', '.join(VIDEO_EXTENSIONS)}). Each clip is a video with its "
            "caption beside it: name.mp4 and name.txt."
        )
    return names


def _look_at(reader: FolderReader, name: str) -> ClipFile | SkippedFile:
    try:
        path = _inside(reader.root, name)
        caption = _read_caption(reader.root, name)
        check_kind(path)  # also refuses files that are too large to be hashed in reasonable time
        file = ClipFile(name, caption, content_digest(path))
        reader.clip(file)
    except UnusableVideo as error:
        return SkippedFile(name, str(error))
    except OSError as error:
        return SkippedFile(name, f"cannot be read ({error.strerror})")
    return file


def _inside(root: Path, name: str) -> Path:
    """Return a file of the folder; links may not lead out of it."""
    path = root / name
    try:
        resolved = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise UnusableVideo("is a link that leads nowhere") from error
    if not resolved.is_relative_to(root.resolve()):
        raise UnusableVideo("is a link that leads out of the folder")
    if not resolved.is_file():
        raise UnusableVideo("is not a regular file")
    return path


def _read_caption(root: Path, video_name: str) -> str:
    name = Path(video_name).stem + ".txt"
    if not os.path.lexists(root / name):
        raise UnusableVideo(f"has no caption: {name} is missing")
    try:
        with open(_inside(root, name), "rb") as file:
            content = file.read(MOST_CAPTION_BYTES + 1)
    except UnusableVideo as error:
        raise UnusableVideo(f"has no usable caption: {name} {error}") from error
    if len(content) > MOST_CAPTION_BYTES:
        raise UnusableVideo(f"has no usable caption: {name} is larger than {MOST_CAPTION_BYTES} bytes")
    try:
        caption = normalise_caption(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UnusableVideo(f"has no usable caption: {name} is not UTF-8") from error
    if not caption:
        raise UnusableVideo(f"has no caption: {name} is empty")
    return caption


def normalise_caption(text: str) -> str:
    """Return a caption on one line, composed (NFC), without control characters and repeated spaces."""
    printable = "".join(" " if unicodedata.category(character) == "Cc" else character for character in text)
    return " ".join(unicodedata.normalize("NFC", printable).split())


def content_digest(path: Path) -> str:
    """Return the sha256 of a file, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
