"""What the benchmarks say and save: progress on standard error, figures in a JSON file."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from common.files import write_atomically

INTERRUPTED = 130
"""The exit code of a program that Ctrl-C ended."""


def say(text: str) -> None:
    """Show progress, apart from the report on standard output."""
    print(text, file=sys.stderr, flush=True)


def save_figures(path: Path | None, content: Mapping[str, object]) -> None:
    """Write figures as JSON, whole or not at all; nothing without a path.

    Raises:
        OSError: the file cannot be written.
    """
    if path is not None:
        write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())


def save_progress(path: Path | None, content: Mapping[str, object]) -> None:
    """Write the figures so far; where that fails, warn and let the measuring go on."""
    try:
        save_figures(path, content)
    except OSError as error:
        say(f"warning: the figures so far are not saved: {error}")
