"""Freed memory is kept, which the number of page faults of a process shows."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import torch
from training.allocator import keep_freed_memory

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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is told")
def test_memory_of_large_tensors_comes_back_without_page_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    megabytes_asked_for = 20 * 40
    assert page_faults("default", monkeypatch) > 100 * megabytes_asked_for  # of 4 KiB each: nearly all of it is fresh
    assert page_faults("keep", monkeypatch) < megabytes_asked_for


def test_elsewhere_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    from training import allocator

    monkeypatch.setattr(allocator.platform, "libc_ver", lambda: ("musl", "1.2"))
    assert not allocator.keep_freed_memory()
