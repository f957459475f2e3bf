"""Look at the real thing: `python -m data.fingerspelling render --words FILE --output DIR` writes words as videos."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from common.errors import UserError
from data.fingerspelling.export import export_words, read_words
from data.fingerspelling.lexicon import available_languages, language_entries

LARGEST_SIZE = 2048
MOST_FRAMES = 10_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 1 after an error that the user can put right. Usage errors exit with 2."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "languages":
            _list_languages()
        else:
            written = export_words(
                read_words(options.words),
                options.output,
                signed_language=options.language,
                num_frames=options.frames,
                image_size=options.size,
                frames_per_second=options.frames_per_second,
                seed=options.seed,
            )
            print(f"{written} words written to {options.output}")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _list_languages() -> None:
    for language in available_languages():
        entries = language_entries(language)
        print(f"{language} ({entries[0].spoken_language}): {' '.join(entry.symbol for entry in entries)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data.fingerspelling", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("languages", help="list the languages and what each can spell")
    render = commands.add_parser("render", help="write WORD.mp4 and WORD.txt for each word of a list")
    render.add_argument("--words", type=Path, required=True, help="UTF-8 text file, one word a line")
    render.add_argument("--output", type=Path, required=True, help="folder for the videos; made if it is missing")
    render.add_argument("--frames", type=_frames, default=16, help="frames of each video (default 16)")
    render.add_argument("--size", type=_size, default=128, help="side in pixels, an even number (default 128)")
    render.add_argument("--frames-per-second", type=_rate, default=8.0, help="speed of the video (default 8)")
    render.add_argument("--seed", type=int, default=0, help="of line width, colours, timing and placing (default 0)")
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
    sys.exit(main())
