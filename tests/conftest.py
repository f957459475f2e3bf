"""Shared by all tests: a CUDA device that does not exist, and a finished run."""

import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from hypothesis import settings
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.operators import guarded_cuda

# One thread, here and in the processes that tests start: the networks are tiny, and on a busy machine threads that
# wait for each other are many times slower than one.
torch.set_num_threads(1)
# Tests that are started with nohup, or beside something, would else start processes that ignore these as they do.
for _name, _handler in (("SIGHUP", signal.SIG_DFL), ("SIGINT", signal.default_int_handler)):
    if hasattr(signal, _name) and signal.getsignal(getattr(signal, _name)) == signal.SIG_IGN:
        signal.signal(getattr(signal, _name), _handler)
os.environ.setdefault("OMP_NUM_THREADS", "1")


settings.register_profile("any machine", deadline=None)  # by default, an example fails that takes 0.2 s
settings.load_profile("any machine")

TAKES_PORTS = {"test_launch_tensorboard.py", "test_dashboard_pictures.py"}
SLOW_SECONDS = 7200  # after which a slow test hangs, on any machine


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests take minutes, and how many depends on the machine: the timeout of all others is not for them."""
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.timeout(SLOW_SECONDS))


@pytest.fixture(autouse=True, scope="module")
def ports_to_itself(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let tests of programs that take the first free port wait for each other: two would find the same one."""
    if request.path.name not in TAKES_PORTS:
        yield
        return
    with FileLock(tmp_path_factory.getbasetemp().parent / "ports.lock"):
        yield


def _refuse_float64(result: object, function: object) -> None:
    """Fail where something on a device is float64: MPS does not have it, and GPUs are slow in it."""
    for value in tree_leaves(result):
        if isinstance(value, Tensor) and value.device.type != "cpu":
            assert value.dtype not in (torch.float64, torch.complex128), f"{function} returned float64 on the device"


class NoFloat64(TorchDispatchMode):
    """Fails where an operation returns float64 on a device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        _refuse_float64(result, func)
        return result


@pytest.fixture
def cuda_can_be_named() -> None:
    """Skip where `guarded_cuda` does not work."""
    if torch.version.cuda is None and sys.platform != "linux":
        pytest.skip("a PyTorch without CUDA can only pretend to have it on Linux")


@pytest.fixture
def fake_cuda(cuda_can_be_named: None) -> Iterator[str]:
    """The name of a CUDA device under FakeTensorMode: shapes, devices and float64 are checked, nothing is computed."""
    with guarded_cuda(), FakeTensorMode(), NoFloat64():
        yield "cuda:0"


class ImaginedCuda(TorchDispatchMode):
    """A CUDA device without values beside a CPU with them, so that what follows a transfer to the host runs as well.

    Tensors on the device know shape and type alone, as under FakeTensorMode. What mixes them with CPU tensors fails.
    What comes to the host is a stand-in: numbers between 0.25 and 0.75, ones for integers, False for bool; a mask picks
    everything. `transfers` counts how often the host would wait for the device; copies that are `under_way` while it
    goes on (non_blocking) are counted apart. float64 on the device fails, unless
    `has_float64`.
    """

    name = "cuda:0"

    def __init__(self) -> None:
        super().__init__()
        self.transfers = 0
        self.under_way = 0
        self.has_float64 = False
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = {name: value for name, value in (kwargs or {}).items() if name != "pin_memory"}  # ordinary memory
        target = kwargs.get("device")
        here = any(isinstance(leaf, FakeTensor) for leaf in tree_leaves((args, kwargs)))
        if (
            here
            and func is torch.ops.aten._to_copy.default
            and target is not None
            and torch.device(target).type == "cpu"
        ):
            dtype = kwargs.get("dtype")
            is_waited_for = not kwargs.get("non_blocking")
            self.under_way += not is_waited_for
            return self._on_host(args[0].shape, args[0].dtype if dtype is None else dtype, is_waited_for=is_waited_for)
        if here and func is torch.ops.aten._local_scalar_dense.default:
            return self._on_host((), args[0].dtype).item()
        if here and func is torch.ops.aten.copy_.default and not isinstance(args[0], FakeTensor):
            return args[0].copy_(self._on_host(args[1].shape, args[1].dtype))
        if here and func is torch.ops.aten.nonzero.default:
            return self._all_of(args[0])
        if here or (target is not None and torch.device(target).type == "cuda"):
            with self._fake:
                result = func(*args, **kwargs)
            if not self.has_float64:
                _refuse_float64(result, func)
            return result
        return func(*args, **kwargs)

    def _all_of(self, mask: Tensor) -> Tensor:
        """Return the indices of a mask that is True everywhere; the host would wait for how many they are."""
        self.transfers += 1
        with self._fake:
            return torch.cartesian_prod(*(torch.arange(size, device=mask.device) for size in mask.shape)).view(
                -1, mask.ndim
            )

    def _on_host(self, shape: Sequence[int], dtype: torch.dtype, *, is_waited_for: bool = True) -> Tensor:
        self.transfers += is_waited_for
        if not dtype.is_floating_point:
            return torch.zeros(shape, dtype=dtype) if dtype == torch.bool else torch.ones(shape, dtype=dtype)
        count = math.prod(shape)
        return (0.25 + 0.5 * ((torch.arange(count) * 0.618) % 1)).view(shape).to(dtype)


@pytest.fixture
def imagined_cuda(cuda_can_be_named: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[ImaginedCuda]:
    """An `ImaginedCuda`, in force while the test runs."""
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: None)
    # `new_tensor` and `torch.tensor` then make CPU tensors and move them by an operation that can be seen.
    before = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)
    try:
        with guarded_cuda(), ImaginedCuda() as device:
            yield device
    finally:
        torch._C._set_only_lift_cpu_tensors(before)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a real run of a few steps with all fifteen categories, made by main.py in a process of its own.

    One for all the processes that run tests; what is in it is not to be changed.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # of all of them
    folder /= "finished_run"
    run = folder / "logs" / "spelling"
    with FileLock(f"{folder}.lock"):
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)  # of one that failed, so that others see why, too
            _make_finished_run(folder)
            (folder / "complete").touch()
    return run


def _make_finished_run(folder: Path) -> None:
    root = Path(__file__).resolve().parent.parent
    options = {
        "max-steps": 3,
        "log-every-steps": 1,
        "experiment-name": "spelling",
        "log-dir": folder / "logs",
        "cache-dir": folder / "cache",
        "image-size": 16,
        "patch-size": 2,
        "max-frames": 8,
        "model-channels": "16,32",
        "spatial-attention-sizes": 4,
        "attention-head-channels": 16,
        "text-channels": 32,
        "text-heads": 2,
        "batch-size": 4,
        "epoch-size": 8,
        "sampling-steps": 4,
        "recogniser-steps": 2,
        "device": "cpu",
    }
    command = [sys.executable, "main.py", *(f"--{name}={value}" for name, value in options.items())]
    finished = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=280)
    assert finished.returncode == 0, finished.stderr


SMALL = (
    "--image-size=16",
    "--patch-size=2",
    "--max-frames=8",
    "--model-channels=16,32",
    "--spatial-attention-sizes=4",
    "--attention-head-channels=16",
    "--text-channels=32",
    "--text-layers=1",
    "--text-heads=2",
    "--epoch-size=24",
    "--validation-clips=4",
    "--sampling-steps=2",
    "--recogniser-steps=0",
    "--num-workers=0",
    "--device=cpu",
)


@pytest.fixture
def small_arguments(tmp_path: Path) -> Callable[..., list[str]]:
    """Command-line arguments of a small run in the test's own folders; more arguments may be added."""

    def make(*more: str) -> list[str]:
        return [*SMALL, f"--log-dir={tmp_path / 'logs'}", f"--cache-dir={tmp_path / 'cache'}", *more]

    return make
