"""The device that a process computes on: which one, in which precision, and how data get there and back."""

import os
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from common.console import counted
from common.errors import UserError
from compute.compiled import check_compiler
from compute.self_check import check_kernels, kernel_cases
from config import Config

DeviceName = Literal["auto", "cpu", "cuda", "mps"]
MixedPrecision = Literal["auto", "off", "bfloat16", "float16"]

LAG_STEPS = 2
"""By how many steps a CUDA device may be behind the host before the host waits for it."""

# Dense peaks of the tensor cores in bfloat16, which are those in float16 too, in FLOP/s, from the data sheets and white
# papers that NVIDIA publishes under the models' names (half of what a sheet gives "with sparsity"), by the whole name
# that CUDA gives the device: cards of one name differ (an H100 has 989, 835 or 756), and so does a part of one (MIG).
_PEAK_FLOPS = {
    "NVIDIA A10": 125e12,
    "NVIDIA A10G": 70e12,
    "NVIDIA A30": 165e12,
    "NVIDIA A40": 149.7e12,
    "NVIDIA A100-PCIE-40GB": 312e12,
    "NVIDIA A100 80GB PCIe": 312e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA B200": 2250e12,
    "NVIDIA GH200 480GB": 989e12,
    "NVIDIA H100 80GB HBM3": 989e12,  # SXM
    "NVIDIA H100 NVL": 835e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H200": 989e12,  # SXM
    "NVIDIA H200 NVL": 835e12,
    "NVIDIA L4": 121e12,
    "NVIDIA L40": 181e12,
    "NVIDIA L40S": 362e12,
    "NVIDIA GeForce RTX 3090": 71e12,
    "NVIDIA GeForce RTX 4090": 165e12,
    "NVIDIA GeForce RTX 5090": 209.5e12,
}


@dataclass(frozen=True)
class Place:
    """Which process this is among those of its run, and among those on its machine."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0  # also the number of its GPU
    processes_here: int = 1
    is_by_torchrun: bool = False


ALONE = Place()


def place_of_this_process() -> Place:
    """Return what torchrun's environment variables say; without torchrun, the place of a process alone."""
    if not dist.is_torchelastic_launched():
        return ALONE
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    rank, world_size, local_rank, processes_here = (int(os.environ[name]) for name in names)
    return Place(rank, world_size, local_rank, processes_here, is_by_torchrun=True)


@dataclass(frozen=True)
class OnItsWay:
    """A small tensor that is copied from a device to the host while both go on working."""

    copy: Tensor
    arrival: torch.cuda.Event | None  # None: nothing to wait for

    @property
    def is_on_host(self) -> bool:
        """Whether it was on the host from the start, so that reading it never waits."""
        return self.arrival is None

    def read(self) -> Tensor:
        """Return it, after waiting if need be."""
        if self.arrival is not None:
            self.arrival.synchronize()
        return self.copy


@dataclass(frozen=True)
class ComputeDevice:
    """A device with the precision that the network runs in; loss, optimizer and average stay float32."""

    device: torch.device
    autocast_dtype: torch.dtype | None

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context for forward passes."""
        if self.autocast_dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.autocast_dtype)

    @property
    def precision(self) -> str:
        """Name the number format of the heavy operations, as MIXED_PRECISION would."""
        return "float32" if self.autocast_dtype is None else str(self.autocast_dtype).removeprefix("torch.")

    def wait(self) -> None:
        """Wait until the device has done all it was given; the CPU always has."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()

    def empty_on_host(self, shape: Sequence[int]) -> Tensor:
        """Return float32 memory of the host to be filled and sent; `send` need not copy it to pinned memory first."""
        return torch.empty(shape, pin_memory=self.device.type == "cuda")

    def send(self, tensor: Tensor) -> Tensor:
        """Copy a tensor from the host to the device, through pinned memory if that is a GPU.

        From other memory, which the system may move, the host would wait until the GPU gets there. PyTorch keeps pinned
        memory for later tensors, but no sooner than the copy has been made.
        """
        if self.device.type != "cuda":
            return tensor.to(self.device)
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def send_to_host(self, numbers: Tensor) -> OnItsWay:
        """Start copying a small tensor. On MPS the step has waited for it already (`optimizer.step_unless`)."""
        if self.device.type != "cuda":
            return OnItsWay(numbers, None)
        copy = numbers.to("cpu", non_blocking=True)
        arrival = torch.cuda.Event()
        arrival.record()
        return OnItsWay(copy, arrival)

    @property
    def peak_flops_per_second(self) -> float | None:
        """The arithmetic peak where it is known, for model FLOPs utilisation."""
        if self.device.type != "cuda" or self.autocast_dtype is None:
            return None
        return _PEAK_FLOPS.get(torch.cuda.get_device_name(self.device))


About = TypeVar("About")


class LateNumbers(Generic[About]):
    """Small tensors of successive steps on their way to the host, each with what it is about.

    From a CUDA device they are read LAG_STEPS steps later. That number is fixed, and does not depend on how fast the
    device is, so that every process of a run learns of a step at the same step.
    """

    def __init__(self, compute: ComputeDevice) -> None:
        self._compute = compute
        self._on_their_way: deque[tuple[About, OnItsWay]] = deque()

    def put(self, about: About, numbers: Tensor) -> list[tuple[About, Tensor]]:
        """Send the numbers of a step; return those of the steps that are known now, in order, each once."""
        on_its_way = self._compute.send_to_host(numbers)
        self._on_their_way.append((about, on_its_way))
        return self._take(0 if on_its_way.is_on_host else LAG_STEPS)

    def rest(self) -> list[tuple[About, Tensor]]:
        """Return all that are not known yet, after waiting for the device."""
        return self._take(0)

    def _take(self, left: int) -> list[tuple[About, Tensor]]:
        taken = []
        while len(self._on_their_way) > left:
            about, on_its_way = self._on_their_way.popleft()
            taken.append((about, on_its_way.read()))
        return taken


def build_device(config: Config, place: Place) -> ComputeDevice:
    """Choose the device of this process and try out what may be missing or wrong on it.

    Raises:
        UserError: it is not there, computes wrongly, or cannot compile what is to be compiled.
    """
    _choose_algorithms(config)
    compute = choose_device(config.DEVICE, config.MIXED_PRECISION, place)
    if compute.device.type == "mps":
        check_kernels(compute.device, kernel_cases(compute.autocast_dtype))
    if config.COMPILE_MODEL:
        check_compiler(compute.device)
    return compute


def _choose_algorithms(config: Config) -> None:
    """Let CUDA take algorithms whose results never differ, or the fastest that it finds. Call before CUDA starts.

    In search of the fastest, cuDNN tries them at the first convolution of each shape, and another launch may find
    another one. Shapes are few here: of training, validation and samples.
    """
    torch.backends.cuda.enable_cudnn_sdp(config.CUDNN_ATTENTION)
    torch.backends.cudnn.benchmark = not config.DETERMINISTIC
    torch.use_deterministic_algorithms(config.DETERMINISTIC)  # cuDNN's too
    if config.DETERMINISTIC:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # or products in two streams may differ (cuBLAS)
        # What it fills, nothing reads before it has written there.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


NOT_DETERMINISTIC = "does not have a deterministic implementation"
"""PyTorch's words for an operator that DETERMINISTIC rules out."""


def determinism_advice(error: BaseException) -> str:
    """Name the operator and the constant."""
    return (
        f"DETERMINISTIC is True, and on this device {str(error).partition(NOT_DETERMINISTIC)[0].strip()} has no "
        "deterministic form in PyTorch. Set DETERMINISTIC to False, or DEVICE to 'cpu', where all operators have one"
    )


def choose_device(name: DeviceName, mixed_precision: MixedPrecision, place: Place = ALONE) -> ComputeDevice:
    """Resolve DEVICE and MIXED_PRECISION, and make the device this process's own.

    "auto" prefers CUDA, then MPS, then the CPU. Mixed precision "auto" is bfloat16 on CUDA devices and CPUs that
    compute in it (measured on a CPU: about two thirds of the time), and float16 on CUDA devices that compute in that
    alone (Volta, Turing); on MPS it is off, because it is untested there. "off" is float32 everywhere: CUDA's
    convolutions then do not round their inputs to the 10 bits of TF32, which PyTorch lets them do by default.

    Raises:
        UserError: a device or a precision was asked for that this machine does not have, or there are fewer GPUs than
            processes.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    chosen = next(kind for kind in ("cuda", "mps", "cpu") if available[kind]) if name == "auto" else name
    if not available[chosen]:
        present = ", ".join(kind for kind, here in available.items() if here)
        raise UserError(
            f"DEVICE is {name!r}, but PyTorch sees only: {present}. Set DEVICE to one of these or to 'auto'."
        )
    device = torch.device(chosen) if place.processes_here == 1 else _own_device(chosen, place)
    compute = ComputeDevice(device, _autocast_dtype(chosen, mixed_precision))
    torch.backends.cudnn.allow_tf32 = compute.autocast_dtype is not None
    return compute


def precision_elsewhere(mixed_precision: MixedPrecision) -> MixedPrecision:
    """Return the precision for what a run has trained, on a device that may not have the run's own."""
    return "off" if mixed_precision == "off" else "auto"


def _own_device(device_type: str, place: Place) -> torch.device:
    """Return the device of one of several processes, and make it CUDA's current device."""
    if device_type == "mps":
        raise UserError(
            f"{place.processes_here} processes cannot share this machine's one MPS device. Start one process, or set "
            "DEVICE to 'cpu'."
        )
    if device_type == "cpu":
        return torch.device("cpu")
    gpus = torch.cuda.device_count()
    if place.processes_here > gpus:
        raise UserError(
            f"{place.processes_here} processes were started on this machine, but PyTorch sees "
            f"{counted(gpus, 'CUDA device')}, and each process needs its own. Start torchrun with "
            f"--nproc-per-node={gpus}, or set DEVICE to 'cpu'."
        )
    device = torch.device("cuda", place.local_rank)
    torch.cuda.set_device(device)
    return device


def _autocast_dtype(device_type: str, mixed_precision: MixedPrecision) -> torch.dtype | None:
    if mixed_precision == "float16" and device_type != "cuda":
        raise UserError(
            f"MIXED_PRECISION is 'float16', which is for CUDA devices; this run is on {device_type}. Set "
            f"MIXED_PRECISION to 'auto' or 'off'."
        )
    if mixed_precision == "bfloat16" and device_type == "mps" and not torch.backends.mps.is_macos_or_newer(14, 0):
        raise UserError(
            "MIXED_PRECISION is 'bfloat16', which MPS has from macOS 14 on. Set MIXED_PRECISION to 'auto' or 'off', or "
            "update macOS."
        )
    if mixed_precision == "auto":
        return _fastest_dtype(device_type)
    return {"off": None, "bfloat16": torch.bfloat16, "float16": torch.float16}[mixed_precision]


def _fastest_dtype(device_type: str) -> torch.dtype | None:
    """Return the lower precision that it has instructions for. Emulated bfloat16 is slower than float32."""
    if device_type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16
        has_tensor_cores = torch.cuda.get_device_capability() >= (7, 0)  # before Volta, float16 is not faster
        return torch.float16 if has_tensor_cores else None
    if device_type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()):
        return torch.bfloat16
    return None
