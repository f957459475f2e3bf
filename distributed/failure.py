"""Telling the user of a failure: once on each machine, by a process that knows why, however many end because of it."""

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from common.errors import UserError
from compute.device import NOT_DETERMINISTIC, Place, determinism_advice
from compute.memory import first_line, is_out_of_memory, out_of_memory_advice
from distributed.processes import PEER_LOST, Processes, peer_lost


class ReportedFailure(Exception):
    """Something failed, and the user has been told."""


@contextmanager
def report_failures(place: Place, processes: Processes) -> Iterator[None]:
    """Tell the user of what fails in the ``with`` block for a known reason.

    `processes` are those that are connected; `Processes()` before they are.

    Raises:
        ReportedFailure: replaces an error that was reported.
    """
    try:
        yield
    except (UserError, RuntimeError, MemoryError) as error:
        if isinstance(error, UserError):
            message = str(error)
        elif is_out_of_memory(error):
            message = out_of_memory_advice(error)
        elif NOT_DETERMINISTIC in str(error):
            message = determinism_advice(error)
        elif peer_lost(error):
            message = f"{PEER_LOST} ({first_line(error)})."
        else:
            raise
        print_failure(error, message, place, processes)
        raise ReportedFailure from error


def print_failure(error: BaseException, message: str, place: Place, processes: Processes) -> None:
    """Print why this process ends, unless another process of its run has already done so.

    Until processes are connected, all fail for the same reason, on each machine at least, and the first of each machine
    speaks for the others.
    """
    if not processes.are_several:
        if place.local_rank == 0:
            print(f"error: {message}", file=sys.stderr)
        return
    who = f"rank {place.rank} on {socket.gethostname()}: "
    if peer_lost(error):
        if not processes.failure_is_known():
            print(f"error: {who}{message} torchrun tells which process it was; --resume goes on.", file=sys.stderr)
    elif processes.report_failure(message):
        print(f"error: {who}{message}", file=sys.stderr)
