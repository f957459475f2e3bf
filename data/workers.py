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
    """Start workers in the ``with`` block so that signals do no harm. (Only the main thread gets any.)

    - A new worker inherits a mask that holds stopping signals back until the worker ignores them.
    - Here they are deferred too, until all workers have started: PyTorch cannot clean up what is half built. (A mask is
      not enough: another thread of this process then takes the signal, and its handler runs all the same.)
    - PyTorch installs a handler that raises in this thread when a worker has died, even in the middle of an update. It
      is removed again; the code that waits for a batch notices the dead worker within seconds.
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

    - Ctrl-C, a scheduler's SIGTERM and a closed terminal's SIGHUP reach all of the process group. Only the main process
      decides what they mean, and ends the workers itself.
    - A forked worker holds copies of the main process's open files. A lock (flock) belongs to the open file, so a
      worker that outlives the main process would keep the run folder locked. Each inherited regular file is
      therefore replaced by the null device. Spawned workers inherit none.
    - A worker ends itself within a tenth of a second when its main process has been killed or after `end_workers`, even
      in the middle of a clip.
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
            _release_inherited_files()
        torch.set_num_threads(1)
        threading.Thread(target=self._watch, name="watch", daemon=True).start()

    def _watch(self) -> None:
        while os.getppid() == self._parent_process_id and not self._is_over.value:
            time.sleep(CHECK_SECONDS)
        os._exit(0)  # what it was loading is of no use to anybody, and whatever it writes has a temporary name


def _release_inherited_files() -> None:
    """Replace every open regular file, apart from the three standard streams, by the null device."""
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
