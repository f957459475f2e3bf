"""The processes that train one model together: one alone, or several that torchrun has started."""

import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from common.errors import UserError
from compute.device import Place
from data.order import WHOLE_WORK, Part

STEP_TIMEOUT = timedelta(minutes=30)  # after which a process that does not take part in a step counts as lost
WAIT_TIMEOUT = timedelta(days=30)  # while one prepares data or makes samples; torchrun notices if it dies
POLL_SECONDS = 0.02

PEER_LOST = "another process of this run has ended, so this one cannot go on"

# What gloo and NCCL say when the other side is gone. Their other errors are shown as they are.
_GONE = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "remote process exited")

_FAILURE, _RUN = "failure", "text2sign/run"  # keys of the stores

Value = TypeVar("Value")


class Processes:
    """This process as the run sees it. This class is a process that trains alone; `ProcessGroup` is one of several.

    All processes have to call each method, in the same order.
    """

    def __init__(self, part: Part = WHOLE_WORK) -> None:
        """`part` is this process's rank, and how many there are."""
        self.part = part
        self.processes_here = 1
        """How many of them share this machine."""

    @property
    def is_main(self) -> bool:
        """Whether it is the one that logs and writes checkpoints."""
        return self.part.rank == 0

    @property
    def are_several(self) -> bool:
        """Whether there are others."""
        return self.part.world_size > 1

    def gather_clips(self, numbers_KB: Tensor, clips: int) -> Tensor:
        """Gather K numbers for each clip of a step, [K, B] on the training device.

        Nobody waits: on a GPU, it happens when the device gets there.

        `clips`: of all processes together, of which each has every `world_size`-th, from its rank on.

        Returns:
            [K, clips], the same on every process, in the order of the global batch (`data.order`).
        """
        return numbers_KB

    def gather(self, value: Value) -> list[Value]:
        """Return every process's value, by rank. Waits for all."""
        return [value]

    def from_main(self, value: Value) -> Value:
        """Return the main process's value. Waits for it."""
        return value

    def wait(self) -> None:
        """Wait for all, however long the slowest takes."""

    def first_on_each_machine(self, work: Callable[[], Value]) -> Value:
        """Let one process of each machine do some work, and then the others, who find the files that it wrote."""
        return work()

    @property
    def run_is_remembered(self) -> bool:
        """Whether torchrun keeps what `remember_run` notes for the processes that replace these."""
        return True

    def remember_run(self, name: str) -> None:
        """Note the name of the run's folder for the processes that torchrun starts anew, should one of these fail."""

    def remembered_run(self) -> str | None:
        """Return what the processes that these replace have noted; None without any."""
        return None

    def report_failure(self, message: str) -> bool:
        """Tell the others why this process ends; return whether no other on its machine has reported the same."""
        return True

    def failure_is_known(self) -> bool:
        """Return whether a process has reported why it ended."""
        return False


class ProcessGroup(Processes):
    """One of several processes."""

    def __init__(self, place: Place, waiting: dist.ProcessGroup, store: Store, lasting_store: Store) -> None:
        """Take over connections, as `connected_processes` makes them.

        Args:
            waiting: the same processes, connected by gloo, for what may take long.
            store: of these processes, kept by torchrun and not by one of them.
            lasting_store: of this torchrun, also after it has replaced these processes by others.
        """
        super().__init__(Part(place.rank, place.world_size))
        self.processes_here = place.processes_here
        self._local_rank = place.local_rank
        self._waiting = waiting
        self._store = store
        self._lasting_store = lasting_store

    def gather_clips(self, numbers_KB: Tensor, clips: int) -> Tensor:
        most = -(-clips // self.part.world_size)  # of a process; the last ones may have one less
        own = torch.nn.functional.pad(numbers_KB, (0, most - numbers_KB.shape[1]))
        of_rank = [torch.empty_like(own) for _ in range(self.part.world_size)]
        dist.all_gather(of_rank, own)
        return torch.stack(of_rank, dim=2).flatten(1)[:, :clips]

    def gather(self, value: Value) -> list[Value]:
        values: list[Value | None] = [None] * self.part.world_size
        dist.all_gather_object(values, value, group=self._waiting)
        return values  # type: ignore[return-value]  # all are filled

    def from_main(self, value: Value) -> Value:
        values = [value]
        dist.broadcast_object_list(values, src=0, group=self._waiting, device=torch.device("cpu"))
        return values[0]

    def wait(self) -> None:
        dist.barrier(group=self._waiting)

    def first_on_each_machine(self, work: Callable[[], Value]) -> Value:
        if self._local_rank == 0:
            done = work()
            self.wait()
            return done
        self.wait()
        return work()

    @property
    def run_is_remembered(self) -> bool:
        return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"  # else the store is in a process of the run

    def remember_run(self, name: str) -> None:
        self._lasting_store.set(_RUN, name)

    def remembered_run(self) -> str | None:
        name = None
        if self.is_main and self._lasting_store.check([_RUN]):
            name = self._lasting_store.get(_RUN).decode()
        return self.from_main(name)

    def report_failure(self, message: str) -> bool:
        reason = message.partition(". ")[0]  # the rest may differ, such as which checkpoint is the last
        try:
            self._store.set(_FAILURE, reason)
            return self._store.add(f"said on {socket.gethostname()}: {reason}", 1) == 1
        except RuntimeError:  # torchrun itself is gone
            return True

    def failure_is_known(self) -> bool:
        try:
            return self._store.check([_FAILURE])
        except RuntimeError:
            return False


@contextmanager
def connected_processes(place: Place, device: torch.device) -> Iterator[Processes]:
    """Connect the processes of the run during the ``with`` block; one without torchrun needs no connection.

    Gloo connects CPUs, NCCL connects CUDA devices. What processes tell each other outside of a step goes over gloo.

    Raises:
        PeerLost: the others cannot be reached.
    """
    if not place.is_by_torchrun:
        yield Processes()
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        lasting_store, rank, world_size = next(iter(rendezvous("env://")))
        start = agree_on_start(lasting_store, rank, world_size, STEP_TIMEOUT)
        # Torchrun's store still holds the addresses of the processes before a restart.
        store = PrefixStore(f"text2sign/{start}", lasting_store)
        dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=STEP_TIMEOUT)
        waiting = waiting_group()
    except (RuntimeError, ValueError) as error:
        raise PeerLost(
            f"the processes of this run cannot reach each other ({error}). Check that every machine reaches "
            f"MASTER_ADDR ({os.environ.get('MASTER_ADDR')}), and GLOO_SOCKET_IFNAME where there are several networks."
        ) from error
    yield ProcessGroup(place, waiting, store, lasting_store)
    dist.destroy_process_group()  # not after an error: it would wait for processes that may be gone


def waiting_group() -> dist.ProcessGroup:
    """Connect all processes once more, by gloo and for what may take long. All have to call it."""
    group = dist.new_group(backend="gloo", timeout=WAIT_TIMEOUT)
    assert isinstance(group, dist.ProcessGroup)  # and not the number that stands for a group without this process
    return group


def agree_on_start(store: Store, rank: int, world_size: int, timeout: timedelta) -> str:
    """Return a name that the processes of one start share, and those of no other.

    Torchrun counts restarts on each machine separately, and does not count those for which machines join or leave, so
    its environment variables differ between processes of one start. Here every process but the first leaves a random
    name, and the first answers each until all have thanked for it. It also answers what dead processes have left, but
    those do not thank.

    `store`: of torchrun, which still holds keys of earlier starts.

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


class PeerLost(UserError):
    """Another process of the run has ended, so that this one cannot go on."""


def peer_lost(error: BaseException) -> bool:
    """Return whether an error means that another process has ended. The errors of gloo have no class of their own."""
    if isinstance(error, PeerLost):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _GONE)
