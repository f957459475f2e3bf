"""Gathers divided tensors on the main process, the only one that needs room for all of them."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from distributed.models import own_part
from distributed.processes import Processes

# Of a process's parts, sent at once; a message for each tensor would take 40 times as long.
BUCKET_BYTES = 2**24


class GatheredCopy:
    """An undivided copy of a divided network, on the main process's device.

    The copy is one object for the run, but holds weights only within `filled`; elsewhere they read as NaN and take no
    memory.
    """

    def __init__(self, network: nn.Module, device: torch.device, processes: Processes) -> None:
        """Copy a network that is not divided yet, without its weights, to the device; divide it afterwards."""
        self.network = network
        self.module = network
        """The copy; on all processes but the main one, the divided network."""
        self._processes = processes
        self._nothing = torch.full((), torch.nan, device=device)
        if processes.is_main:
            # deepcopy takes what is in the memo instead of copying the weights.
            self.module = copy.deepcopy(network, {id(each): self._empty(each) for each in network.parameters()})

    @contextmanager
    def filled(self, *, with_gradients: bool = False) -> Iterator[None]:
        """Fill the copy with weights, and gradients if asked for, in the ``with`` block. Call on all processes."""
        self._processes.wait()  # a main process may have been busy for long, and only this wait has the timeout for it
        try:
            parameters = dict(self.network.named_parameters())
            for name, weight in gather_tensors(parameters):
                self.module.get_parameter(name).data = weight.detach()
            gradients = {name: each.grad for name, each in parameters.items() if each.grad is not None}
            for name, gradient in gather_tensors(gradients if with_gradients else {}):
                self.module.get_parameter(name).grad = gradient
            yield
        finally:
            if self._processes.is_main:
                self._clear()

    def _clear(self) -> None:
        for parameter in self.module.parameters():
            parameter.grad = None
            parameter.data = self._nothing.expand(parameter.shape)

    def _empty(self, parameter: nn.Parameter) -> nn.Parameter:
        return nn.Parameter(self._nothing.expand(parameter.shape), requires_grad=parameter.requires_grad)


@dataclass(frozen=True)
class GatheredCopies:
    """The copies of a divided network and of its moving average."""

    model: GatheredCopy
    average: GatheredCopy

    def of_model(self, *, with_gradients: bool = False) -> AbstractContextManager[None]:
        """Fill the copy of the network in the ``with`` block. Call on all processes."""
        return self.model.filled(with_gradients=with_gradients)

    @contextmanager
    def of_both(self) -> Iterator[None]:
        """Fill both copies in the ``with`` block. Call on all processes."""
        with self.model.filled(), self.average.filled():
            yield


def gather_tensors(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Gather, and yield each tensor with its name: undivided on the main process; on the others, nothing.

    Call on all processes, with the same keys and shapes in the same order, and iterate to the end.

    `tensors`: DTensors that are divided by rows over all processes. Others, which every process has, come first, as
    they are.
    """
    divided = {name: tensor for name, tensor in tensors.items() if isinstance(tensor, DTensor)}
    for name, tensor in tensors.items():
        if name not in divided and dist.get_rank() == 0:
            yield name, tensor
    for bucket in _buckets(divided):
        yield from _gather(bucket)


def _buckets(tensors: Mapping[str, DTensor]) -> Iterator[dict[str, DTensor]]:
    """Divide into runs of one dtype and about `BUCKET_BYTES`, or a single larger tensor."""
    bucket: dict[str, DTensor] = {}
    dtype, size = None, 0
    for name, tensor in tensors.items():
        part_bytes = _part_size(tensor) * tensor.element_size()
        if bucket and (size + part_bytes > BUCKET_BYTES or tensor.dtype != dtype):
            yield bucket
            bucket, size = {}, 0
        bucket[name] = tensor
        dtype = tensor.dtype
        size += part_bytes
    if bucket:
        yield bucket


def _gather(bucket: Mapping[str, DTensor]) -> Iterator[tuple[str, Tensor]]:
    group = next(iter(bucket.values())).device_mesh.get_group()
    parts = torch.cat([_padded_part(tensor) for tensor in bucket.values()])
    if dist.get_rank() != 0:
        dist.gather(parts, group=group)
        return
    of_rank = [torch.empty_like(parts) for _ in range(dist.get_world_size())]
    dist.gather(parts, of_rank, group=group)
    start = 0
    for name, tensor in bucket.items():
        stop = start + _part_size(tensor)
        values = torch.cat([part[start:stop] for part in of_rank])[: tensor.numel()]  # padding is at the very end
        yield name, values.view(tensor.shape)
        start = stop


def _part_size(tensor: DTensor) -> int:
    """Return how many values the first process has; no other has more."""
    rows = tensor.shape[0]
    return -(-rows // tensor.device_mesh.size()) * (tensor.numel() // rows)


def _padded_part(tensor: DTensor) -> Tensor:
    own = own_part(tensor.detach()).flatten()
    return torch.nn.functional.pad(own, (0, _part_size(tensor) - own.numel()))
