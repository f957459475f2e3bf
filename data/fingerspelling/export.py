"""Writing finger-spelled words as video files."""

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import av
import imageio.v3
import numpy

from common.errors import UserError
from common.randomness import derive_seed, numpy_generator
from data.fingerspelling.composition import compose_word
from data.fingerspelling.renderer import random_style, render_word
from data.fingerspelling.source import jittered_boundaries, load_letters

MOST_WORD_LIST_BYTES = 10_000_000


def read_words(path: Path) -> tuple[str, ...]:
    """Return the words of a text file, one a line; empty lines do not count.

    Raises:
        UserError: the file cannot be read, is not UTF-8, or holds no word.
    """
    try:
        if path.stat().st_size > MOST_WORD_LIST_BYTES:
            raise UserError(f"--words {path}: larger than {MOST_WORD_LIST_BYTES} bytes, which is no list of words.")
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"--words {path}: cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise UserError(f"--words {path}: not UTF-8 text. Save the list as UTF-8, one word a line.") from error
    words = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not words:
        raise UserError(f"--words {path}: holds no word. Write one word a line.")
    return words


def export_words(
    words: Sequence[str],
    output: Path,
    *,
    signed_language: str,
    num_frames: int,
    image_size: int,
    frames_per_second: float,
    seed: int,
) -> int:
    """Write WORD.mp4 (H.264, yuv420p) and WORD.txt for each different word and return how many there are.

    All words are checked before anything is written, and the files appear together when the last is finished.

    Raises:
        UserError: a word cannot be spelled or is too long for the frames, or the folder cannot be written.
    """
    alphabet, letters = load_letters(signed_language)
    spelled = {"".join(symbols): symbols for symbols in map(alphabet.segment, words)}
    for word, symbols in spelled.items():
        if len(symbols) > num_frames:
            raise UserError(f"{word!r} has {len(symbols)} letters: too many for --frames {num_frames}.")
    created = not output.exists()
    try:
        output.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".tmp-render-", dir=output))
    except OSError as error:
        raise UserError(f"--output {output}: cannot be written ({error.strerror}).") from error
    try:
        for word, symbols in spelled.items():
            generator = numpy_generator(derive_seed(seed, f"exported_word/{word}"), "fingerspelling_style")
            style = random_style(generator)
            boundaries = jittered_boundaries(len(symbols), num_frames, generator)
            motion = compose_word([letters[symbol] for symbol in symbols], num_frames, boundaries)
            _write_video(staging / f"{word}.mp4", render_word(motion, image_size, style), frames_per_second)
            (staging / f"{word}.txt").write_text(word + "\n", encoding="utf-8")
        for file in sorted(staging.iterdir()):
            os.replace(file, output / file.name)
    except (OSError, av.FFmpegError) as error:
        raise UserError(f"--output {output}: cannot be written ({error}).") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if created and not any(output.iterdir()):
            output.rmdir()
    return len(spelled)


def _write_video(path: Path, video_THWC: numpy.ndarray, frames_per_second: float) -> None:
    imageio.v3.imwrite(
        path, video_THWC, plugin="pyav", codec="libx264", fps=frames_per_second, out_pixel_format="yuv420p"
    )
