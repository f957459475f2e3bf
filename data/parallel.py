"""Doing the same to many things in several threads, with a progress bar."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tqdm import tqdm

PROGRESS_DELAY = 2.0  # seconds: what is done sooner shows no bar

Thing = TypeVar("Thing")
Result = TypeVar("Result")


def map_in_threads(
    work: Callable[[Thing], Result], things: Sequence[Thing], label: str, most_threads: int
) -> list[Result]:
    """Return what `work` makes of each thing, in order.

    Args:
        work: called in several threads; what it raises, or a signal does, ends it all without the things that wait.
        things: may be many thousands.
        label: of the progress bar.
        most_threads: at least 1.
    """
    pool = ThreadPoolExecutor(most_threads)
    try:
        done = pool.map(work, things)
        return list(tqdm(done, label, len(things), leave=False, disable=None, delay=PROGRESS_DELAY))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
