"""Tensors on disk, without a pickle: safetensors."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from common.errors import UserError


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors of any device and memory layout.

    Raises:
        OSError: the disk is full or not writable.
    """
    # Row-major on disk whatever the layout in memory: safetensors stores no strides. Turned round on the CPU, because a
    # GPU may have no memory left.
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(plain, path)
    except SafetensorError as error:  # its name for a full disk
        raise OSError(f"{path.name}: {error}") from error


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read tensors to the CPU.

    Read whole, not mapped: a mapped file that is truncated later ends the process with a bus error.

    Raises:
        UserError: the file is missing, or holds something else.
    """
    try:
        return load(path.read_bytes())
    except SafetensorError as error:
        raise UserError(f"{path} is no safetensors file: {error}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}") from error
