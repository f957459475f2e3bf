"""A checkpoint's tensors as several processes write them together, each its part: `torch.distributed.checkpoint`.

    shard-00001-model-00001-of-00001.safetensors    what the first process has: weights, average and moments
    shard-00002-model-00001-of-00001.safetensors    the second, and so on; PyTorch chooses the names

A key is "model.", "ema." or "optimizer." and the name of the tensor. Each file's header says where in the whole tensor
its rows belong. PyTorch's default writer pickles such facts, which no checkpoint here may hold, as reading a pickle can
run code; its writer for safetensors does not.
"""

from collections.abc import Mapping
from pathlib import Path

import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_saver import save


def shard_names(count: int) -> list[str]:
    """Return the files of a checkpoint that so many processes wrote."""
    return [f"shard-{number:05d}-model-00001-of-00001.safetensors" for number in range(1, count + 1)]


def write_shards(folder: Path, tensors: Mapping[str, Mapping[str, Tensor]], group: dist.ProcessGroup) -> None:
    """Write what this process has of all tensors. Call on all processes; the file has reached the disk afterwards.

    Args:
        folder: the same for all, on a disk that they share.
        tensors: those of "model", "ema" and "optimizer", divided.
        group: over which the processes agree who writes what.

    Raises:
        OSError: this process or another one cannot write; all learn it.
    """
    state = {f"{name}.{key}": tensor for name, of_name in tensors.items() for key, tensor in of_name.items()}
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    try:
        save(state, storage_writer=writer, process_group=group)
    except CheckpointException as error:  # no `Exception` in PyTorch
        rank = min(error.failures)
        cause, _ = error.failures[rank]
        raise OSError(f"rank {rank}: {' '.join(str(cause).split()) or type(cause).__name__}") from error
