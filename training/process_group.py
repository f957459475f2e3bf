"""Several processes that torchrun has started, connected by torch.distributed."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from common.interruption import Interrupted
from data.order import Part
from training.processes import PeerLost, Processes
from training.signals import StopRequest
from training.starting_together import agree_on_start

Value = TypeVar("Value")

STEP_TIMEOUT = timedelta(minutes=30)  # after which a process that does not take part in a step counts as lost
WAIT_TIMEOUT = timedelta(days=30)  # while one prepares data or makes samples; torchrun notices if it dies
# What gloo and NCCL say when the other side is gone. Their other errors are shown as they are.
_GONE = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "remote process exited")
_FAILURE, _RUN = "failure", "text2sign/run"  # keys of the stores


@dataclass(frozen=True)
class Place:
    """Where this process stands among those of its run, and among those on its machine."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    processes_here: int = 1
    is_by_torchrun: bool = False


def place_of_this_process() -> Place:
    """Return what torchrun says in the environment; the place of one alone without it."""
    if not dist.is_torchelastic_launched():
        return Place()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    rank, world_size, local_rank, processes_here = (int(os.environ[name]) for name in names)
    return Place(rank, world_size, local_rank, processes_here, is_by_torchrun=True)


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
        waiting = dist.new_group(backend="gloo", timeout=WAIT_TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise PeerLost(
            f"the processes of this run cannot reach each other ({error}). Check that every machine reaches "
            f"MASTER_ADDR ({os.environ.get('MASTER_ADDR')}), and GLOO_SOCKET_IFNAME where there are several networks."
        ) from error
    yield ProcessGroup(place, waiting, store, lasting_store)
    dist.destroy_process_group()  # not after an error: it would wait for processes that may be gone


class ProcessGroup(Processes):
    """One of several processes."""

    def __init__(self, place: Place, waiting: dist.ProcessGroup, store: Store, lasting_store: Store) -> None:
        """Make it.

        Args:
            place: of this process.
            waiting: the same processes, connected by gloo, for what may take long.
            store: of these processes, kept by torchrun and not by one of them.
            lasting_store: of this torchrun, also after it has started others in the place of these.
        """
        super().__init__(Part(place.rank, place.world_size))
        self.processes_here = place.processes_here
        self._local_rank = place.local_rank
        self._waiting = waiting
        self._store = store
        self._lasting_store = lasting_store

    def gather_clips(self, numbers_KB: Tensor) -> Tensor:
        of_rank = [torch.empty_like(numbers_KB) for _ in range(self.part.world_size)]
        dist.all_gather(of_rank, numbers_KB)
        return torch.stack(of_rank, dim=2).flatten(1)

    def gather(self, value: Value) -> list[Value]:
        values: list[Value | None] = [None] * self.part.world_size
        dist.all_gather_object(values, value, group=self._waiting)
        return values  # type: ignore[return-value]  # every place is filled

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
        what = message.partition(". ")[0]  # the rest may differ, such as which checkpoint is the last
        try:
            self._store.set(_FAILURE, what)
            return self._store.add(f"said on {socket.gethostname()}: {what}", 1) == 1
        except RuntimeError:  # torchrun itself is gone
            return True

    def failure_is_known(self) -> bool:
        try:
            return self._store.check([_FAILURE])
        except RuntimeError:
            return False


def peer_lost(error: BaseException) -> bool:
    """Say whether an error means that another process has ended. The errors of gloo have no class of their own."""
    if isinstance(error, PeerLost):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _GONE)


@contextmanager
def ending_together(stop: StopRequest) -> Iterator[None]:
    """Where others end for a signal that came here too, end for it as well in the ``with`` block: nothing failed.

    Raises:
        Interrupted: another process has ended, and a signal has come.
    """
    try:
        yield
    except Exception as error:
        if peer_lost(error) and stop.signal_number is not None:
            raise Interrupted(stop.signal_number) from error
        raise
