"""What a measurement was made on, and how much memory this process needed."""

import importlib.metadata
import platform
import resource
import sys
from pathlib import Path

import psutil
import torch

from common.errors import UserError
from compute.device import ComputeDevice
from compute.environment import describe_environment

GIBIBYTE = 2**30
MEMORY_NOTE = "As in a run of main.py, memory that a step frees is kept for the next one."
"""For a report of networks that train or sample after `compute.memory.keep_freed_memory`."""
_STATUS = Path("/proc/self/status")
_PROCESSORS = Path("/proc/cpuinfo")


def machine_line(*distributions: str) -> str:
    """Return one line for the head of a report: processor, threads of PyTorch, memory, versions, git commit.

    Args:
        distributions: names on PyPI of further packages whose versions belong to the figures.

    Raises:
        UserError: one of them is not installed.
    """
    try:
        versions = [f"{name} {importlib.metadata.version(name)}" for name in distributions]
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(f"{error.name} is not installed: pip install -r benchmarks/requirements.txt") from error
    facts = describe_environment(ComputeDevice(torch.device("cpu"), autocast_dtype=None), [])
    parts = [
        f"{psutil.cpu_count()} cores of {_processor()}",
        f"{torch.get_num_threads()} threads",
        f"{psutil.virtual_memory().total / GIBIBYTE:.0f} GiB of memory",
        f"{platform.system()} {platform.machine()}",
        f"Python {platform.python_version()}",
        f"PyTorch {torch.__version__}",
        *versions,
        f"commit {facts.get('git_commit', 'unknown')}",
    ]
    if torch.cuda.is_available():
        parts.insert(1, torch.cuda.get_device_name())
    return ", ".join(parts)


def peak_memory_gib() -> float:
    """Return the most memory (resident set) that this process ever had.

    `getrusage` would do, but on Linux a new process starts with the peak of the one that started it.
    """
    if _STATUS.exists():
        for line in _STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / GIBIBYTE
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIBIBYTE


def _processor() -> str:
    if _PROCESSORS.exists():
        for line in _PROCESSORS.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "an unnamed processor"
