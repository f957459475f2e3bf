"""Shared by all tests: a CUDA device that does not exist, and a finished run."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from torch._subclasses.fake_tensor import FakeTensorMode

# One thread, here and in the processes that tests start: the networks are tiny, and on a busy machine threads that
# wait for each other are many times slower than one.
torch.set_num_threads(1)
# Tests that are started with nohup, or beside something, would else start processes that ignore these as they do.
for _name, _handler in (("SIGHUP", signal.SIG_DFL), ("SIGINT", signal.default_int_handler)):
    if hasattr(signal, _name) and signal.getsignal(getattr(signal, _name)) == signal.SIG_IGN:
        signal.signal(getattr(signal, _name), _handler)
os.environ.setdefault("OMP_NUM_THREADS", "1")


TAKES_PORTS = {
    "test_launch_tensorboard.py",
    "test_dashboard_after_resume.py",
    "test_exposure.py",
    "test_event_files.py",
}


@pytest.fixture(autouse=True, scope="module")
def ports_to_itself(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let files that start TensorBoard wait for each other: two that look for a free port would find the same one."""
    path = request.path
    if path.name not in TAKES_PORTS and path.parent.name != "browser":
        yield
        return
    with FileLock(tmp_path_factory.getbasetemp().parent / "ports.lock"):
        yield


@pytest.fixture
def fake_cuda() -> Iterator[str]:
    """The name of a CUDA device under FakeTensorMode: shapes and devices are checked, nothing is computed.

    A PyTorch built for CUDA needs no help. One built for the CPU alone has no device guard for CUDA, and then plain
    indexing fails ("PyTorch is not linked with support for cuda devices"), so it borrows the guard of the "meta"
    device, which does nothing, for as long as the test runs.
    """
    if torch.version.cuda is not None:
        with FakeTensorMode():
            yield "cuda:0"
        return
    library = Path(torch.__file__).parent / "lib" / "libc10.so"
    if not library.exists():
        pytest.skip("a PyTorch without CUDA can only pretend to have it on Linux")
    cuda, meta, count = 1, 14, 15  # c10::DeviceType
    guards = (ctypes.c_void_p * count).in_dll(ctypes.CDLL(str(library)), "_ZN3c104impl26device_guard_impl_registryE")
    before = guards[cuda]
    guards[cuda] = guards[meta]
    try:
        with FakeTensorMode():
            yield "cuda:0"
    finally:
        guards[cuda] = before


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a real run of a few steps with all fifteen categories, made by main.py in a process of its own."""
    root = Path(__file__).resolve().parent.parent
    folder = tmp_path_factory.mktemp("finished_run")
    options = {
        "max-steps": 3,
        "log-every-steps": 1,
        "experiment-name": "spelling",
        "log-dir": folder / "logs",
        "cache-dir": folder / "cache",
        "image-size": 16,
        "num-frames": 8,
        "model-channels": "16,32",
        "spatial-attention-sizes": 4,
        "attention-head-channels": 16,
        "text-channels": 32,
        "text-heads": 2,
        "epoch-size": 8,
        "sampling-steps": 4,
        "recogniser-steps": 2,
        "device": "cpu",
    }
    command = [sys.executable, "main.py", *(f"--{name}={value}" for name, value in options.items())]
    finished = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=280)
    assert finished.returncode == 0, finished.stderr
    return folder / "logs" / "spelling"
