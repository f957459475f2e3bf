"""Puts tensors that are divided over several processes together: on the main process, which alone needs room for it."""

from collections.abc import Iterator, Mapping

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from training.sharded_model import own_part

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
