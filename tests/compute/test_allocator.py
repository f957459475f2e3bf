"""Freed memory is kept, which the number of page faults of a process shows."""

import platform
import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from compute import memory as allocator

PROGRAM = """
import resource, sys
import torch
from compute.memory import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
tensor = None
for _ in range(15):  # until a hole is there that is large enough for one more
    del tensor
    tensor = torch.zeros(10_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    del tensor
    tensor = torch.zeros(10_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(word: str, monkeypatch: pytest.MonkeyPatch) -> int:
    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "LD_PRELOAD", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    done = subprocess.run([sys.executable, "-c", PROGRAM, word], capture_output=True, text=True, check=True)
    return int(done.stdout)


def huge_pages_are_always_used() -> bool:
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return setting.exists() and "[always]" in setting.read_text()


@pytest.mark.slow
@pytest.mark.skipif(huge_pages_are_always_used(), reason="one page fault brings megabytes there")
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is told")
def test_memory_of_large_tensors_comes_back_without_page_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    pages_asked_for = 20 * 40_000_000 // resource.getpagesize()
    assert page_faults("default", monkeypatch) > 0.5 * pages_asked_for
    assert page_faults("keep", monkeypatch) < 0.01 * pages_asked_for


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is told")
@pytest.mark.parametrize(
    ("largest", "calls"),
    [
        (2**30, [(-3, 2**30), (-1, -1)]),
        (2**25, [(-3, 2**30), (-3, 2**25), (-1, -1)]),  # glibc before 2.35
        (0, [(-3, 2**30), (-3, 2**25)]),  # trimming stays as it was: alone it would make things worse
    ],
)
def test_trimming_is_only_turned_off_where_large_blocks_are_kept(
    largest: int, calls: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[int, int]] = []

    def mallopt(parameter: int, value: int) -> int:
        made.append((parameter, value))
        return int(value <= largest)

    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=mallopt))
    assert allocator.keep_freed_memory() is (largest > 0)
    assert made == calls


def test_elsewhere_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator.platform, "libc_ver", lambda: ("musl", "1.2"))
    assert not allocator.keep_freed_memory()
