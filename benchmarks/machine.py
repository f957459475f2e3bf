"""What a measurement was made on, and how much memory this process needed."""

import importlib.metadata
import platform
import resource
import sys
from pathlib import Path

import psutil
import torch

GIBIBYTE = 2**30
_STATUS = Path("/proc/self/status")
_PROCESSORS = Path("/proc/cpuinfo")


def machine_line(*distributions: str) -> str:
    """Return one line for the head of a report: processor, threads of PyTorch, memory, versions.

    Args:
        distributions: names on PyPI of further packages whose versions belong to the figures.

    Raises:
        importlib.metadata.PackageNotFoundError: one of them is not installed.
    """
    parts = [
        f"{psutil.cpu_count()} cores of {_processor()}",
        f"{torch.get_num_threads()} threads",
        f"{psutil.virtual_memory().total / GIBIBYTE:.0f} GiB of memory",
        f"{platform.system()} {platform.machine()}",
        f"Python {platform.python_version()}",
        f"PyTorch {torch.__version__}",
        *(f"{name} {importlib.metadata.version(name)}" for name in distributions),
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
