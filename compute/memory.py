"""Memory: how much there is, how to tell that it ran out, and what helps."""

import ctypes
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

SMALLER_CLIP = "MAX_FRAMES, IMAGE_SIZE or MODEL_CHANNELS"
SMALLER_BATCH = "BATCH_SIZE (and raise GRADIENT_ACCUMULATION_STEPS, for as many clips a step)"

CONTROL_GROUP = Path("/sys/fs/cgroup")
OWN_CONTROL_GROUP = Path("/proc/self/cgroup")

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_LARGEST_BLOCKS = (2**30, 2**25)  # bytes; glibc before 2.35 takes no more than the second
_NEVER = -1


@dataclass(frozen=True)
class MemoryInUse:
    """Bytes of a device; on the CPU, of the machine's memory."""

    here: int  # by this process
    limit: int  # that this process could have


def memory_in_use(device: torch.device, processes_here: int = 1) -> MemoryInUse:
    """Ask the device, or the operating system for the CPU.

    Args:
        device: of this process. A GPU belongs to it alone.
        processes_here: that share the machine's memory: each can have its part of what is free.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return MemoryInUse(torch.cuda.memory_allocated(device), free + torch.cuda.memory_reserved(device))
    if device.type == "mps":
        return MemoryInUse(torch.mps.current_allocated_memory(), torch.mps.recommended_max_memory())
    resident: int = psutil.Process().memory_info().rss
    free = min(psutil.virtual_memory().available, _left_in_container())
    return MemoryInUse(resident, resident + free // processes_here)


def _left_in_container() -> int:
    """Return the bytes that control groups (version 2) leave to this process; `sys.maxsize` without a limit.

    Containers and schedulers of clusters limit memory with them, and end a process that exceeds it. Any group above
    the process may have a limit. A group's use includes files that were read or written lately, which make room when
    it is needed.
    """
    try:
        own = OWN_CONTROL_GROUP.read_text("ascii").strip().splitlines()[-1].partition("::")[2].lstrip("/")
    except (OSError, IndexError):
        own = ""
    groups = [CONTROL_GROUP / own, *(CONTROL_GROUP / parent for parent in Path(own).parents)]
    return min(_left_in_group(group) for group in groups)


def _left_in_group(group: Path) -> int:
    try:
        limit, used = ((group / name).read_text("ascii").strip() for name in ("memory.max", "memory.current"))
        if limit == "max":
            return sys.maxsize
        statistics_of_group = dict(line.split() for line in (group / "memory.stat").read_text("ascii").splitlines())
    except OSError:
        return sys.maxsize
    return max(0, int(limit) - int(used) + int(statistics_of_group.get("inactive_file", 0)))


def device_name(device: torch.device) -> str:
    """Return "CPU" or "GPU"."""
    return "CPU" if device.type == "cpu" else "GPU"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an allocation failed. CUDA's error has a class of its own, those of the CPU and MPS have not."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message; the name of its class if there is none."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def out_of_memory_advice(error: BaseException) -> str:
    """Say which constants to lower."""
    return (
        f"the memory is too small ({first_line(error)}). Set ACTIVATION_CHECKPOINTING, or lower {SMALLER_BATCH}, "
        f"{SMALLER_CLIP}. ACTIVATION_CHECKPOINTING and the batch can be changed with --resume; MODEL_CHANNELS, "
        f"IMAGE_SIZE and MAX_FRAMES need a new run."
    )


def keep_freed_memory() -> bool:
    """Tell glibc to reuse freed memory instead of giving it back; return whether it is glibc and listened.

    A step on the CPU allocates and frees hundreds of tensors of megabytes. By default each of them may come as fresh
    pages, which the kernel clears one by one: a tenth of the step's processor time, measured with the default preset.
    Resident memory then does not fall between two peaks, and blocks of 1 GiB and more (32 MiB with glibc before 2.35)
    are still given back. Environment variables do the same (MALLOC_TRIM_THRESHOLD_ and MALLOC_MMAP_THRESHOLD_), but
    have to be set before Python starts.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # In this order: once the trim threshold is set, glibc no longer raises the other one by itself.
    return any(mallopt(_MMAP_THRESHOLD, size) for size in _LARGEST_BLOCKS) and bool(mallopt(_TRIM_THRESHOLD, _NEVER))
