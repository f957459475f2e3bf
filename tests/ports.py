"""Ports for servers that tests start."""

import socket


def free_port() -> int:
    """Return a port of this machine that nobody listens at, chosen by the system.

    `choose_port` takes the first one that is free, which two tests that run beside each other would both find.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
