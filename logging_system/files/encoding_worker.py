"""One thread that encodes videos while training goes on."""

import threading
import time
from collections import deque
from collections.abc import Callable

MAXIMUM_JOBS = 128
MAXIMUM_BYTES = 256 * 1024 * 1024


class EncodingWorker:
    """Runs jobs one after the other on a thread of its own, in the order they came.

    The queue is bounded in jobs and in bytes of waiting frames: a slow encoder costs videos, never memory or training
    time. The thread starts with the first job, and again if it should have died.

    Args:
        on_error: told of every attempt that raised (a job gets two), and of a job that took the thread with it; called
            on the worker thread.
    """

    def __init__(self, on_error: Callable[[BaseException], None]) -> None:
        self._on_error = on_error
        self._jobs: deque[tuple[Callable[[], None], int]] = deque()
        self._bytes = 0
        self._busy = False
        self._closed = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def submit(self, job: Callable[[], None], size: int) -> bool:
        """Queue a job that holds ``size`` bytes of frames. Returns False, without waiting, when the queue is full."""
        with self._changed:
            full = len(self._jobs) >= MAXIMUM_JOBS or (self._jobs and self._bytes + size > MAXIMUM_BYTES)
            if full or self._closed:
                return False
            self._jobs.append((job, size))
            self._bytes += size
            self._start_if_needed()
            self._changed.notify_all()
            return True

    def drain(self, patience: Callable[[], float]) -> bool:
        """Wait until every job is done. Returns False when time ran out first.

        `patience`: seconds since the beginning of the wait; it may change meanwhile.
        """
        start = time.monotonic()
        with self._changed:
            while self._jobs or self._busy:
                self._start_if_needed()
                if time.monotonic() - start >= patience():
                    return False
                self._changed.wait(timeout=0.1)  # short, so that a thread that died is noticed and replaced
        return True

    def close(self, patience: Callable[[], float]) -> bool:
        """Finish the jobs, then end the thread. Returns False when time ran out; what is left is given up.

        Only the first call waits; later ones return True.
        """
        if self._closed:
            return True
        finished = self.drain(patience)
        with self._changed:
            self._closed = True
            self._jobs.clear()
            self._changed.notify_all()
        return finished

    def _start_if_needed(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._busy = False
            self._thread = threading.Thread(target=self._run, name="video-encoder", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._jobs and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                job, size = self._jobs.popleft()
                self._bytes -= size
                self._busy = True
            try:
                self._attempt(job)
            except BaseException as error:
                self._on_error(error)  # such as SystemExit: it ends the thread, and this job with it
                raise
            finally:
                del job  # frees the frames
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()

    def _attempt(self, job: Callable[[], None]) -> None:
        """Run the job, and once more if it raises: at once, so that the videos of a tag stay in order."""
        for _ in range(2):
            try:
                job()
            except Exception as error:  # noqa: BLE001  whatever an encoder does must not end the thread
                self._on_error(error)
            else:
                return
