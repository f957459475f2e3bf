"""Values of command-line options, checked before minutes go into measuring."""

import argparse
import importlib.util
from pathlib import Path

PICTURE_SUFFIXES = (".png", ".svg", ".pdf")


def at_least(smallest: int, text: str) -> int:
    """Read a whole number of at least `smallest`."""
    try:
        number = int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be a whole number, not {text}") from error
    if number < smallest:
        raise argparse.ArgumentTypeError(f"must be at least {smallest}, not {number}")
    return number


def at_least_one(text: str) -> int:
    """Read a count."""
    return at_least(1, text)


def seed(text: str) -> int:
    """Read a seed."""
    return at_least(0, text)


def above_zero(text: str) -> float:
    """Read a finite quantity."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a finite number above 0, not {text}")
    return number


def output_file(text: str) -> Path:
    """Read the name of a file to write, in a folder that exists."""
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text} must be a file in a folder that exists")
    return path


def picture_file(text: str) -> Path:
    """Read the name of a picture that matplotlib, which has to be there, can write."""
    path = output_file(text)
    if path.suffix.lower() not in PICTURE_SUFFIXES:
        raise argparse.ArgumentTypeError(f"{text} must end in {', '.join(PICTURE_SUFFIXES)}")
    if importlib.util.find_spec("matplotlib") is None:
        raise argparse.ArgumentTypeError("pictures need matplotlib: pip install -r benchmarks/requirements.txt")
    return path
