"""Which device to train on, and in which precision."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from common.errors import UserError

DeviceName = Literal["auto", "cpu", "cuda", "mps"]
MixedPrecision = Literal["auto", "off", "bfloat16"]

# Dense bfloat16 tensor-core peaks from NVIDIA's data sheets, in FLOP/s, by a part of the device's name.
_PEAK_FLOPS = {"H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "A10G": 70e12, "RTX 4090": 165e12}


@dataclass(frozen=True)
class FlagOnItsWay:
    """A scalar bool that is copied from a device to the host while both go on working."""

    flag: Tensor
    arrival: torch.cuda.Event | None  # None: nothing has to be waited for

    def has_arrived(self) -> bool:
        """Say whether reading it would not wait."""
        return self.arrival is None or bool(self.arrival.query())

    def read(self) -> bool:
        """Return it, after waiting if need be."""
        if self.arrival is not None:
            self.arrival.synchronize()
        return bool(self.flag)


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

    def send_to_host(self, flag: Tensor) -> FlagOnItsWay:
        """Start copying a scalar bool. On MPS the step has waited for it already (`optimizer.step_unless`)."""
        if self.device.type != "cuda":
            return FlagOnItsWay(flag, None)
        copy = flag.to("cpu", non_blocking=True)
        arrival = torch.cuda.Event()
        arrival.record()
        return FlagOnItsWay(copy, arrival)

    @property
    def peak_flops_per_second(self) -> float | None:
        """The arithmetic peak where it is known, for model FLOPs utilisation."""
        if self.device.type != "cuda" or self.autocast_dtype is None:
            return None
        name = torch.cuda.get_device_name(self.device)
        words = f" {name.replace('-', ' ')} "  # "NVIDIA A100-SXM4-80GB" is an A100, "NVIDIA RTX A1000" is none
        return next((peak for model, peak in _PEAK_FLOPS.items() if f" {model} " in words), None)


def choose_device(name: DeviceName, mixed_precision: MixedPrecision) -> ComputeDevice:
    """Resolve DEVICE and MIXED_PRECISION.

    "auto" prefers CUDA, then MPS, then the CPU. Mixed precision "auto" is bfloat16 on CUDA devices and CPUs that
    compute in it (measured on a CPU: about two thirds of the time); on MPS it is off, because it is untested there.

    Raises:
        UserError: a device was asked for that this machine does not have.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    chosen = next(kind for kind in ("cuda", "mps", "cpu") if available[kind]) if name == "auto" else name
    if not available[chosen]:
        present = ", ".join(kind for kind, here in available.items() if here)
        raise UserError(
            f"DEVICE is {name!r}, but PyTorch sees only: {present}. Set DEVICE to one of these or to 'auto'."
        )
    device = torch.device(chosen)
    use = _computes_in_bfloat16(chosen) if mixed_precision == "auto" else mixed_precision == "bfloat16"
    return ComputeDevice(device, torch.bfloat16 if use else None)


def _computes_in_bfloat16(device_type: str) -> bool:
    """Say whether it is known to have instructions for it. Where bfloat16 is emulated it is slower than float32."""
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device_type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return False
