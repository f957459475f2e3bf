"""What is said of a failure: once, by the process that knows why, however many end because of it."""

import socket
import sys

from training.memory import first_line
from training.process_group import Place, peer_lost
from training.processes import PEER_LOST, PeerLost, Processes


def say_failure(error: BaseException, message: str, place: Place, processes: Processes) -> None:
    """Print why this process ends, unless another one of its run says so.

    Args:
        processes: those that are connected; `Processes()` before they are. Until then all fail for the same reason, on
            each machine at least, and the first of each machine speaks for the others.
    """
    if not processes.are_several:
        if place.local_rank == 0:
            print(f"error: {message}", file=sys.stderr)
        return
    who = f"rank {place.rank} on {socket.gethostname()}: "
    if peer_lost(error):
        if not processes.failure_is_known():
            said = message if isinstance(error, PeerLost) else f"{PEER_LOST} ({first_line(error)})."
            print(f"error: {who}{said} torchrun tells which one.", file=sys.stderr)
    elif processes.report_failure(message):
        print(f"error: {who}{message}", file=sys.stderr)
