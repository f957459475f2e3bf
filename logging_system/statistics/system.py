"""Readings of the computer: its training device, its memory and disk, taken on a thread with its own period.

What is unavailable is absent, never 0.
"""

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import torch

GIGABYTE = 1e9


class DeviceReadings:
    """Readings of the training device, by the last part of their tags: none if it shares the computer's own memory."""

    def read(self) -> dict[str, float]:
        return {}


class CudaReadings(DeviceReadings):
    """One CUDA device. Load, temperature and power need NVIDIA's or AMD's management library.

    `torch.cuda` honours CUDA_VISIBLE_DEVICES there, which a look-up by number in the library itself would not.
    """

    def __init__(
        self, cuda: Any, device: int, management_errors: tuple[type[Exception], ...] = (RuntimeError,)
    ) -> None:
        """`cuda` is `torch.cuda`; `management_errors` are what a missing or unwilling management library raises."""
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


class MpsReadings(DeviceReadings):
    """Apple's GPU. `mps` is `torch.mps`."""

    def __init__(self, mps: Any) -> None:
        self._mps = mps

    def read(self) -> dict[str, float]:
        return {
            "MPS_Memory_Allocated_GB": self._mps.current_allocated_memory() / GIGABYTE,
            "MPS_Driver_Memory_GB": self._mps.driver_allocated_memory() / GIGABYTE,
        }


def device_readings(device: torch.device) -> DeviceReadings:
    if device.type == "cuda":
        index = device.index if device.index is not None else torch.cuda.current_device()
        errors: tuple[type[Exception], ...] = (ImportError, RuntimeError, OSError)
        with suppress(ImportError):
            import pynvml  # the optional package nvidia-ml-py

            errors = (*errors, pynvml.NVMLError)
        return CudaReadings(torch.cuda, index, errors)
    if device.type == "mps":
        return MpsReadings(torch.mps)
    return DeviceReadings()


class HostReadings:
    """CPU, memory, this process, its children and the disk of the run."""

    def __init__(self, run_folder: Path, device: DeviceReadings) -> None:
        self._run_folder = run_folder
        self._device = device
        self._process = psutil.Process()
        self._last_times = _busy_and_total()

    def read(self) -> dict[str, float]:
        """Return readings by the last part of their tags; one that is unavailable is absent.

        CPU_Percent is since the last call. psutil's own function remembers the last call of each thread separately,
        so that the first call on another thread would return 0.
        """
        readings = {
            "RAM_Used_GB": psutil.virtual_memory().used / GIGABYTE,
            "Process_RSS_GB": self._process.memory_info().rss / GIGABYTE,
            "Disk_Free_GB": psutil.disk_usage(str(self._run_folder)).free / GIGABYTE,
        }
        busy, total = _busy_and_total()
        last_busy, last_total = self._last_times
        if total > last_total:
            readings["CPU_Percent"] = 100 * min(1.0, max(0.0, (busy - last_busy) / (total - last_total)))
            self._last_times = (busy, total)
        sizes = []
        for child in self._process.children(recursive=True):
            with suppress(psutil.Error):  # it ended between the two calls, or belongs to another user
                sizes.append(child.memory_info().rss)
        if sizes:
            readings["Loader_RSS_GB"] = sum(sizes) / GIGABYTE
        return {**readings, **self._device.read()}


class SystemSampler:
    """Calls `read` every `period_seconds` on a daemon thread, until `close`."""

    def __init__(self, read: Callable[[], dict[str, float]], period_seconds: float) -> None:
        self._read = read
        self._period_seconds = period_seconds
        self._lock = threading.Lock()
        self._newest: dict[str, float] = {}
        self._failure: Exception | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="system-sampler", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def sample_now(self) -> None:
        """Take readings on the calling thread, too."""
        with self._lock:
            self._newest.update(self._read())

    def take(self) -> Mapping[str, float]:
        """Return the newest readings that were not returned before.

        Raises:
            psutil.Error, OSError, RuntimeError: what stopped the thread, once.
        """
        with self._lock:
            newest, self._newest = self._newest, {}
            failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        return newest

    def close(self) -> None:
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2.0)

    def _run(self) -> None:
        # Readings taken at once would cover no time, so the wait comes first.
        while not self._stopped.wait(self._period_seconds):
            try:
                self.sample_now()
            except (psutil.Error, OSError, RuntimeError) as error:
                with self._lock:
                    self._failure = error
                return


def _busy_and_total() -> tuple[float, float]:
    """Return seconds that all CPUs together have been busy, and have existed, since the computer started."""
    times = psutil.cpu_times()._asdict()
    # Linux counts the time of virtual machines a second time, within user and nice.
    total = sum(times.values()) - times.get("guest", 0.0) - times.get("guest_nice", 0.0)
    return total - times["idle"] - times.get("iowait", 0.0), total
