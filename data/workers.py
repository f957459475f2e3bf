"""What a loader worker does before it starts to work."""

import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

STOPPING_SIGNALS = {
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
}  # Windows has no SIGHUP
PARENT_CHECK_SECONDS = 0.5


@contextmanager
def signals_held_back() -> Iterator[None]:
    """Keep SIGINT and SIGTERM waiting while workers are started: they inherit that, and so cannot be hit too early.

    The signals reach this process when the block ends; a worker by then ignores them.
    """
    if sys.platform == "win32":
        yield
        return
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


class WorkerStart:
    """Called in every new worker process.

    - Ctrl-C, a scheduler's SIGTERM and a closed terminal's SIGHUP reach the whole process group; the main process alone
      decides what they mean, and ends the workers itself.
    - A forked worker holds copies of the main process's open files. A lock (flock) belongs to the open file, so a
      worker that outlives the main process would keep the run folder locked. Each inherited regular file is
      therefore replaced by the null device. Spawned workers inherit none.
    - A worker whose main process is gone, killed without a chance to end it, ends itself within half a second.
    """

    def __init__(self, parent_process_id: int) -> None:
        self._parent_process_id = parent_process_id

    def __call__(self, worker_number: int) -> None:
        for number in STOPPING_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        if sys.platform == "linux":
            release_inherited_files()
        torch.set_num_threads(1)
        watch = threading.Thread(target=self._end_with_parent, name="parent-watch", daemon=True)
        watch.start()

    def _end_with_parent(self) -> None:
        while os.getppid() == self._parent_process_id:
            time.sleep(PARENT_CHECK_SECONDS)
        os._exit(1)


def release_inherited_files() -> None:
    """Replace every open regular file, the three standard streams aside, by the null device."""
    null = os.open(os.devnull, os.O_RDWR)
    for name in os.listdir("/proc/self/fd"):
        descriptor = int(name)
        if descriptor <= 2 or descriptor == null:
            continue
        try:
            is_regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        except OSError:  # the descriptor of the listing itself
            continue
        if is_regular:
            os.dup2(null, descriptor, inheritable=False)
    os.close(null)
