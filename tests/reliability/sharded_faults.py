"""Faults in the checkpoints that several processes write together."""

import errno
import os
import signal
from collections.abc import Callable, Sequence
from typing import Any

from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter

from tests.reliability.faults import replace_part


def fill_the_disk_under_shards(checkpoints: Sequence[int]) -> None:
    """Let this process find no space for its part of these checkpoints, counted from 1."""
    calls = []

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def write(*arguments: Any) -> Any:
            calls.append(1)
            if len(calls) in checkpoints:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return original(*arguments)

        return write

    replace_part(HuggingFaceStorageWriter, "write_data", make)


def kill_after_its_shard(checkpoint: int) -> None:
    """SIGKILL itself when its part of the so-many-th checkpoint is on the disk, and the whole is not yet complete."""
    calls = []

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def write(*arguments: Any) -> Any:
            calls.append(1)
            written = original(*arguments)
            if len(calls) == checkpoint:
                os.kill(os.getpid(), signal.SIGKILL)
            return written

        return write

    replace_part(HuggingFaceStorageWriter, "write_data", make)
