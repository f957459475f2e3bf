"""Memory and load of the training device, where there is something to read. What is unavailable is absent, never 0."""

from collections.abc import Callable, Mapping
from typing import Protocol

import torch

GIGABYTE = 1e9


class DeviceReadings(Protocol):
    """Something that returns its readings, by the last part of their tags."""

    def read(self) -> dict[str, float]: ...


class CudaInterface(Protocol):
    """The part of `torch.cuda` that is used. The last three need NVIDIA's or AMD's management library.

    They honour CUDA_VISIBLE_DEVICES, which a direct look-up by number in the management library would not.
    """

    def memory_allocated(self, device: int) -> int: ...
    def memory_reserved(self, device: int) -> int: ...
    def max_memory_allocated(self, device: int) -> int: ...
    def memory_stats(self, device: int) -> Mapping[str, int]: ...
    def utilization(self, device: int) -> int: ...
    def temperature(self, device: int) -> int: ...
    def power_draw(self, device: int) -> int: ...


class MpsInterface(Protocol):
    """The part of `torch.mps` that is used."""

    def current_allocated_memory(self) -> int: ...
    def driver_allocated_memory(self) -> int: ...


class NoReadings:
    """A device that shares the computer's own memory and load."""

    def read(self) -> dict[str, float]:
        return {}


class CudaReadings:
    """One CUDA device."""

    def __init__(
        self, cuda: CudaInterface, device: int, management_errors: tuple[type[Exception], ...] = (RuntimeError,)
    ) -> None:
        """`management_errors` are what a missing or unwilling management library raises."""
        self._cuda = cuda
        self._device = device
        self._management_errors = management_errors
        self._managed: dict[str, tuple[Callable[[int], int], float]] = {
            "GPU_Utilization_Percent": (cuda.utilization, 1.0),
            "GPU_Temperature_Celsius": (cuda.temperature, 1.0),
            "GPU_Power_Watts": (cuda.power_draw, 1000.0),  # reported in milliwatts
        }

    def read(self) -> dict[str, float]:
        cuda, device = self._cuda, self._device
        readings = {
            "GPU_Memory_Allocated_GB": cuda.memory_allocated(device) / GIGABYTE,
            "GPU_Memory_Reserved_GB": cuda.memory_reserved(device) / GIGABYTE,
            "GPU_Memory_Peak_GB": cuda.max_memory_allocated(device) / GIGABYTE,
        }
        statistics = cuda.memory_stats(device)
        if "num_alloc_retries" in statistics:
            readings["GPU_Alloc_Retries"] = float(statistics["num_alloc_retries"])
        for name, (function, divisor) in list(self._managed.items()):
            try:
                readings[name] = function(device) / divisor
            except self._management_errors:
                del self._managed[name]  # it will not appear later either; do not ask again every few seconds
        return readings


class MpsReadings:
    """Apple's GPU."""

    def __init__(self, mps: MpsInterface) -> None:
        self._mps = mps

    def read(self) -> dict[str, float]:
        return {
            "MPS_Memory_Allocated_GB": self._mps.current_allocated_memory() / GIGABYTE,
            "MPS_Driver_Memory_GB": self._mps.driver_allocated_memory() / GIGABYTE,
        }


def device_readings(device: torch.device) -> DeviceReadings:
    """Return what reads the device that the model is on."""
    if device.type == "cuda":
        index = device.index if device.index is not None else torch.cuda.current_device()
        return CudaReadings(torch.cuda, index, (ImportError, RuntimeError, OSError, *_nvml_errors()))
    if device.type == "mps":
        return MpsReadings(torch.mps)
    return NoReadings()


def _nvml_errors() -> tuple[type[Exception], ...]:
    try:
        import pynvml  # the optional package nvidia-ml-py
    except ImportError:
        return ()
    return (pynvml.NVMLError,)
