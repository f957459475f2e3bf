"""Files for the data benchmark to read: finger-spelled words as MP4 and GIF, each with its caption."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from common.randomness import numpy_generator
from common.video_encoding import encode_gif, encode_mp4
from data.fingerspelling.drawing import compose_word, random_style, render_word
from data.fingerspelling.source import load_letters

SIGNED_LANGUAGE = "ase"  # its symbols are single letters, so any of them together make a word
LETTERS = (3, 6)  # of the shortest and the longest word
FRAMES_PER_SECOND = 25.0  # of the kind that GIF can hold exactly: whole hundredths of a second


@dataclass(frozen=True)
class ClipSize:
    """What every file of a folder has in common."""

    width: int
    height: int
    frames: int


def write_clip_folders(folder: Path, clips: int, size: ClipSize) -> Mapping[str, Path]:
    """Write the same clips as H.264 MP4 and as GIF; return the folder of each kind.

    Args:
        folder: an existing folder, in which one is made for each kind.
        clips: how many.
        size: even numbers of pixels, no higher than wide.
    """
    folders = {"MP4": folder / "mp4", "GIF": folder / "gif"}
    for made in folders.values():
        made.mkdir()
    _, letters = load_letters(SIGNED_LANGUAGE)
    symbols = sorted(letters)
    top = (size.width - size.height) // 2
    for number in range(clips):
        generator = numpy_generator(0, "benchmark_clip", number)
        count = int(generator.integers(LETTERS[0], LETTERS[1] + 1))
        word = [symbols[place] for place in generator.integers(0, len(symbols), count).tolist()]
        motion = compose_word([letters[symbol] for symbol in word], size.frames)
        square_THWC = render_word(motion, size.width, random_style(generator))
        video_THWC = square_THWC[:, top : top + size.height]
        content = {
            "MP4": (".mp4", encode_mp4(video_THWC, FRAMES_PER_SECOND)),
            "GIF": (".gif", encode_gif(video_THWC, FRAMES_PER_SECOND)),
        }
        for kind, (extension, data) in content.items():
            (folders[kind] / f"clip_{number:03}{extension}").write_bytes(data)
            (folders[kind] / f"clip_{number:03}.txt").write_text("".join(word) + "\n", encoding="utf-8")
    return folders
