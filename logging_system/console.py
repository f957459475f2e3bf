"""Messages to the person at the keyboard that do not tear a progress bar."""

import sys

from tqdm import tqdm


def report(message: str) -> None:
    """Write one line to the standard error stream, above a tqdm bar if there is one."""
    tqdm.write(message, file=sys.stderr)
    sys.stderr.flush()
