"""Look at the real thing: `python -m data.fingerspelling render --words FILE --output DIR` writes words as videos."""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import av

from common.console import counted, program
from common.errors import UserError
from common.randomness import derive_seed
from common.video_encoding import encode_mp4
from data.fingerspelling.lexicon import available_languages, language_entries
from data.fingerspelling.source import draw_word, load_letters, style_speed
from data.fingerspelling.timing import spelled_time
from data.fingerspelling.words import letters_of

LARGEST_SIZE = 2048
MOST_FRAMES = 10_000
MOST_WORD_LIST_BYTES = 10_000_000


@program
def main(arguments: Sequence[str]) -> None:
    """Run the command. Usage errors exit with 2."""
    options = _parser().parse_args(arguments)
    if options.command == "languages":
        _list_languages()
    else:
        print(f"{counted(_render(options), 'word')} written to {options.output}")


def _list_languages() -> None:
    for language in available_languages():
        entries = language_entries(language)
        print(f"{language} ({entries[0].spoken_language}): {' '.join(entry.symbol for entry in entries)}")


def _render(options: argparse.Namespace) -> int:
    """Check all words, then write WORD.mp4 and WORD.txt for each different one, all at once; return how many."""
    output: Path = options.output
    words = _read_words(options.words)
    alphabet, letters = load_letters(options.language)
    spelled = {"".join(symbols): symbols for symbols in map(alphabet.segment, words)}
    if options.frames is not None:
        for word, symbols in spelled.items():
            if (count := len(letters_of(symbols))) > options.frames:
                raise UserError(f"{word!r} has {count} letters: too many for --frames {options.frames}.")
    created = not output.exists()
    try:
        output.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".tmp-render-", dir=output))
    except OSError as error:
        raise UserError(f"--output {output}: cannot be written ({error.strerror}).") from error
    try:
        for word, symbols in spelled.items():
            style_seed = derive_seed(options.seed, f"exported_word/{word}")
            time = spelled_time(symbols, letters)
            natural = round(time.seconds / style_speed(style_seed) * options.frames_per_second)
            frames = options.frames or max(natural, len(symbols))
            drawn = [letters[symbol] for symbol in letters_of(symbols)]
            video_THWC = draw_word(drawn, time, frames, (options.size, options.size), style_seed)
            (staging / f"{word}.mp4").write_bytes(encode_mp4(video_THWC, options.frames_per_second))
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


def _read_words(path: Path) -> tuple[str, ...]:
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data.fingerspelling", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("languages", help="list the languages and what each can spell")
    render = commands.add_parser("render", help="write WORD.mp4 and WORD.txt for each word of a list")
    render.add_argument("--words", type=Path, required=True, help="UTF-8 text file, one word a line")
    render.add_argument("--output", type=Path, required=True, help="folder for the videos; made if it is missing")
    render.add_argument("--frames", type=_frames, help="frames of each video (default: what its word takes)")
    render.add_argument("--size", type=_size, default=128, help="side in pixels, an even number (default 128)")
    render.add_argument("--frames-per-second", type=_rate, default=12.0, help="speed of the video (default 12)")
    render.add_argument("--seed", type=int, default=0, help="of speed, timing, look and placing (default 0)")
    render.add_argument("--language", default="ase", help="code of the sign language (default ase)")
    return parser


def _frames(text: str) -> int:
    value = int(text)
    if not 4 <= value <= MOST_FRAMES:
        raise argparse.ArgumentTypeError(f"{value} is not between 4 and {MOST_FRAMES}")
    return value


def _size(text: str) -> int:
    value = int(text)
    if not 16 <= value <= LARGEST_SIZE or value % 2:
        raise argparse.ArgumentTypeError(f"{value} is not an even number between 16 and {LARGEST_SIZE}")
    return value


def _rate(text: str) -> float:
    value = float(text)
    if not 1 <= value <= 120:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and 120")
    return value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
