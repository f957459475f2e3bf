"""Keeping memory that a training step frees, so that the next step need not ask the operating system for it again."""

import ctypes
import platform
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_LARGEST_BLOCKS = (2**30, 2**25)  # bytes; glibc before 2.35 takes no more than the second
_NEVER = -1


def keep_freed_memory() -> bool:
    """Tell glibc to reuse freed memory instead of giving it back; return whether it is glibc and listened.

    A step on the CPU allocates and frees hundreds of tensors of megabytes. By default each of them may come as fresh
    pages, which the kernel clears one by one: a tenth of the step's processor time, measured with the default preset.
    Resident memory then does not fall between two peaks, and blocks of 1 GiB and more (32 MiB with glibc before 2.35)
    are given back as ever. Environment variables do the same (MALLOC_TRIM_THRESHOLD_ and MALLOC_MMAP_THRESHOLD_), but
    have to be set before Python starts.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # In this order: once the trim threshold is set, glibc no longer raises the other one by itself.
    return any(mallopt(_MMAP_THRESHOLD, size) for size in _LARGEST_BLOCKS) and bool(mallopt(_TRIM_THRESHOLD, _NEVER))
