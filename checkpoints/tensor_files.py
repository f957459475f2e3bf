"""The tensors of a checkpoint on the disk: written by one process or several, read as far as a process needs them."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_bytes
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor

from common.errors import UserError
from compute.memory import first_line
from distributed.models import own_part


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors of any device and memory layout.

    Raises:
        OSError: the disk is full or not writable.
    """
    # Row-major on disk, because safetensors stores no strides. On the CPU, because a GPU may have no memory left.
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(plain, path)
    except SafetensorError as error:  # its name for a full disk
        raise OSError(f"{path.name}: {error}") from error


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read tensors to the CPU.

    The file is not mapped: a mapped file that is truncated later ends the process with a bus error.

    Raises:
        UserError: the file is missing, or holds something else.
    """
    try:
        return load_bytes(path.read_bytes())
    except SafetensorError as error:
        raise UserError(f"{path} is no safetensors file: {error}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def shard_names(count: int) -> list[str]:
    """Return the file names of a checkpoint that `count` processes wrote."""
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


class WholeTensors:
    """The tensors of "model", "ema" or "optimizer", in one file that one process wrote.

    Every method raises a UserError if they cannot be read.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def read(self) -> dict[str, Tensor]:
        """Return all of them, undivided, on the CPU."""
        return load_tensors(self._file)

    def shapes(self) -> dict[str, torch.Size]:
        """Return the shape of each by its name."""
        with _readable(self._file), safe_open(self._file, framework="pt") as opened:
            return {key: torch.Size(opened.get_slice(key).get_shape()) for key in opened.keys()}  # noqa: SIM118  no dict

    def fill(self, targets: Mapping[str, Tensor]) -> None:
        """Read into tensors, of which a divided one takes the rows that this process has. Waits for no other process.

        Maps the file, and does not read all of it as `read` does: it holds more than this process needs.

        `targets`: some of the stored tensors, each with its shape.
        """
        with _readable(self._file), safe_open(self._file, framework="pt") as opened:
            for key, target in targets.items():
                part = own_part(target.detach())
                if isinstance(target, DTensor):
                    start = _first_row(target)
                    part.copy_(opened.get_slice(key)[start : start + part.shape[0]])
                else:
                    part.copy_(opened.get_tensor(key))


class ShardedTensors:
    """The same in the files of several processes, as `write_shards` writes them; the methods are those above."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._prefix = f"{name}."

    def read(self) -> dict[str, Tensor]:
        tensors = {key: torch.empty(each.size, dtype=each.properties.dtype) for key, each in self._stored().items()}
        self.fill(tensors)
        return tensors

    def shapes(self) -> dict[str, torch.Size]:
        return {key: each.size for key, each in self._stored().items()}

    def fill(self, targets: Mapping[str, Tensor]) -> None:
        if not targets:
            return
        prefixed = {f"{self._prefix}{key}": target.detach() for key, target in targets.items()}
        with _readable(self._folder), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # it is not asked to take part
            load(prefixed, storage_reader=HuggingFaceStorageReader(str(self._folder)), no_dist=True)

    def _stored(self) -> dict[str, TensorStorageMetadata]:
        with _readable(self._folder):
            stored = HuggingFaceStorageReader(str(self._folder)).read_metadata().state_dict_metadata
        return {
            key.removeprefix(self._prefix): each
            for key, each in stored.items()
            if key.startswith(self._prefix) and isinstance(each, TensorStorageMetadata)
        }


StoredTensors = WholeTensors | ShardedTensors


def _first_row(tensor: DTensor) -> int:
    """Return this process's first row: all but the last processes have the same number, as in `torch.chunk`."""
    rows, count = tensor.shape[0], tensor.device_mesh.size()
    return min(rows, tensor.device_mesh.get_local_rank() * -(-rows // count))


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        if not path.exists():
            raise UserError(
                f"{path} is not to be seen: it has gone, or it lies on a disk that this machine does not share with "
                "the others. LOG_DIR must be on one that all machines of a run see"
            )
        yield
    except CheckpointException as error:  # no `Exception` in PyTorch
        cause, _ = next(iter(error.failures.values()))
        raise UserError(f"{path} cannot be read: {first_line(cause)}") from error
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
