"""Telling the processes that torchrun has just started from those of before a restart, which used the same store."""

import time
import uuid
from datetime import timedelta

from torch.distributed.distributed_c10d import Store

POLL_SECONDS = 0.02


def agree_on_start(store: Store, rank: int, world_size: int, timeout: timedelta) -> str:
    """Return a name that the processes of one start share, and those of no other.

    Torchrun counts restarts on each machine for itself, and not those for which machines join or leave, so what it says
    in the environment differs between processes of one start. Here every process but the first leaves a number that was
    never there before, and the first answers each with the name until all have thanked for it: what dead processes
    left is answered too, but nobody thanks.

    Args:
        store: of torchrun, in which keys of earlier starts still are.
        rank: of this process.
        world_size: number of processes.
        timeout: for the others to come.

    Raises:
        RuntimeError: not all came in time.
    """
    if rank == 0:
        return _welcome(store, world_size, timeout)
    nonce = uuid.uuid4().hex
    store.set(f"text2sign/here/{rank}", nonce)
    store.wait([f"text2sign/welcome/{nonce}"], timeout)
    name = store.get(f"text2sign/welcome/{nonce}").decode()
    store.set(f"text2sign/thanks/{name}/{rank}", "")
    return name


def _welcome(store: Store, world_size: int, timeout: timedelta) -> str:
    name = uuid.uuid4().hex
    missing = set(range(1, world_size))
    deadline = time.monotonic() + timeout.total_seconds()
    while True:
        for rank in missing:
            if store.check([f"text2sign/here/{rank}"]):
                nonce = store.get(f"text2sign/here/{rank}").decode()
                store.set(f"text2sign/welcome/{nonce}", name)
        missing = {rank for rank in missing if not store.check([f"text2sign/thanks/{name}/{rank}"])}
        if not missing:
            return name
        if time.monotonic() > deadline:
            raise RuntimeError(f"ranks {', '.join(map(str, sorted(missing)))} did not come in {timeout}")
        time.sleep(POLL_SECONDS)
