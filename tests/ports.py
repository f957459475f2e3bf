"""Ports for servers that tests start."""

import random
import socket

OWN_PORTS = (10_000, 30_000)  # below those that systems give to connections


def free_port() -> int:
    """Return a port of this machine that nobody listens at.

    `choose_port` takes the first one that is free, which two tests that run beside each other would both find.
    """
    while True:
        port = random.SystemRandom().randrange(*OWN_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
