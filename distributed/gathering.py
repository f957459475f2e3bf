"""Puts tensors that are divided over several processes together: on the main process, which alone needs room for it."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from distributed.models import own_part
from distributed.processes import Processes

BUCKET_BYTES = (
    2**24
)  # of a process's parts that are sent at once; a message for each tensor would take 40 times as long


def gather_tensors(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Gather, and yield each tensor with its name: whole on the main process; on the others, nothing.

    Call on all processes, with the same keys and shapes in the same order, and go through it to the end.

    Args:
        tensors: DTensors that are divided by rows over all processes. Others, which every process has, come first, as
            they are.
    """
    divided = {name: tensor for name, tensor in tensors.items() if isinstance(tensor, DTensor)}
    for name, tensor in tensors.items():
        if name not in divided and dist.get_rank() == 0:
            yield name, tensor
    for bucket in _buckets(divided):
        yield from _gather(bucket)


def _buckets(tensors: Mapping[str, DTensor]) -> Iterator[dict[str, DTensor]]:
    """Divide into runs of one type of number and about `BUCKET_BYTES`, or a single larger tensor."""
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
        whole = torch.cat([part[start:stop] for part in of_rank])[: tensor.numel()]  # padding is at the very end
        yield name, whole.view(tensor.shape)
        start = stop


def _part_size(tensor: DTensor) -> int:
    """Return how many values the first process has, which has the most: each has as many rows but the last ones."""
    rows = tensor.shape[0]
    return -(-rows // tensor.device_mesh.size()) * (tensor.numel() // rows)


def _padded_part(tensor: DTensor) -> Tensor:
    own = own_part(tensor.detach()).flatten()
    return torch.nn.functional.pad(own, (0, _part_size(tensor) - own.numel()))


class PlainCopy:
    """A whole network on the main process's device, which has memory only while somebody looks at it.

    It is one object for the whole run. While nobody looks, its weights read as NaN.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        """`model` is not divided yet; it stays as it is, and its weights are not copied."""
        self._nothing = torch.full((), torch.nan, device=device)
        # What is in the memo takes the place of what would be copied.
        self.module = copy.deepcopy(model, {id(each): self._empty(each) for each in model.parameters()})

    def clear(self) -> None:
        """Let go of weights and gradients."""
        for parameter in self.module.parameters():
            parameter.grad = None
            parameter.data = self._nothing.expand(parameter.shape)

    def _empty(self, parameter: nn.Parameter) -> nn.Parameter:
        return nn.Parameter(self._nothing.expand(parameter.shape), requires_grad=parameter.requires_grad)


class Copies:
    """What the processes put together for the main one. Each method is to be called by all of them."""

    def __init__(
        self,
        model: nn.Module,
        averaged: nn.Module,
        plain: tuple[PlainCopy, PlainCopy] | None,
        processes: Processes,
    ) -> None:
        """Make it.

        Args:
            model: the divided network.
            averaged: the divided average.
            plain: the main process's copies of the two; None on all others.
            processes: that train together.
        """
        self._model = model
        self._averaged = averaged
        self._plain_model = None if plain is None else plain[0]
        self._plain_averaged = None if plain is None else plain[1]
        self._processes = processes

    @contextmanager
    def of_model(self, *, with_gradients: bool = False) -> Iterator[None]:
        """Have the weights within."""
        with self._filled(self._plain_model, self._model, with_gradients=with_gradients):
            yield

    @contextmanager
    def of_both(self) -> Iterator[None]:
        """Have weights and averaged weights within."""
        with self.of_model(), self._filled(self._plain_averaged, self._averaged, with_gradients=False):
            yield

    @contextmanager
    def _filled(self, plain: PlainCopy | None, divided: nn.Module, *, with_gradients: bool) -> Iterator[None]:
        self._processes.wait()  # for a main process that was long busy with something else: only this may take long
        try:
            parameters = dict(divided.named_parameters())
            for name, weight in gather_tensors(parameters):
                if plain is not None:
                    plain.module.get_parameter(name).data = weight.detach()
            gradients = {name: each.grad for name, each in parameters.items() if each.grad is not None}
            for name, gradient in gather_tensors(gradients if with_gradients else {}):
                if plain is not None:
                    plain.module.get_parameter(name).grad = gradient
            yield
        finally:
            if plain is not None:
                plain.clear()
