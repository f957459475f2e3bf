"""What a loader worker does before it starts to work."""

import multiprocessing
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from common.interruption import STOPPING_SIGNALS

CHECK_SECONDS = 0.1


@contextmanager
def starting_workers() -> Iterator[None]:
    """Start workers in the ``with`` block so that signals do no harm. (Another thread than the main one gets none.)

    - A new worker inherits that its thread holds stopping signals back until it ignores them, and so cannot be hit too
      early.
    - Here they wait too, until all workers have started: PyTorch cannot clean up what is half built. (Holding them back
      does not do it: another thread of this process takes the signal then, and its handler runs all the same.)
    - PyTorch installs a handler that raises in this thread, wherever it is, when a worker has died: in the middle of an
      update too. It is taken away again; whoever waits for a batch finds the dead worker within seconds.
    """
    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    on_child_end = signal.getsignal(signal.SIGCHLD)
    handlers = {number: handler for number in STOPPING_SIGNALS if callable(handler := signal.getsignal(number))}
    for number in handlers:
        signal.signal(number, lambda number, frame: came.append(number))
    held_back = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING_SIGNALS)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, on_child_end if on_child_end is not None else signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, held_back)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)


class WorkerStart:
    """Called in every new worker process.

    - Ctrl-C, a scheduler's SIGTERM and a closed terminal's SIGHUP reach the whole process group; the main process alone
      decides what they mean, and ends the workers itself.
    - A forked worker holds copies of the main process's open files. A lock (flock) belongs to the open file, so a
      worker that outlives the main process would keep the run folder locked. Each inherited regular file is
      therefore replaced by the null device. Spawned workers inherit none.
    - A worker whose main process is gone, killed without a chance to end it, ends itself within a tenth of a second.
    - So it does after `end_workers`, also in the middle of a clip, and however long that clip may take.
    """

    def __init__(self, parent_process_id: int, start_method: str) -> None:
        self._parent_process_id = parent_process_id
        # A bare byte, without a lock that a killed worker could leave locked.
        self._is_over = multiprocessing.get_context(start_method).RawValue("b", 0)

    def end_workers(self) -> None:
        """Called in the main process when no more batches are wanted."""
        self._is_over.value = 1

    def __call__(self, worker_number: int) -> None:
        for number in STOPPING_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        if sys.platform == "linux":
            release_inherited_files()
        torch.set_num_threads(1)
        threading.Thread(target=self._watch, name="watch", daemon=True).start()

    def _watch(self) -> None:
        while os.getppid() == self._parent_process_id and not self._is_over.value:
            time.sleep(CHECK_SECONDS)
        os._exit(0)  # what it was loading is of no use to anybody, and whatever it writes has a temporary name


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
