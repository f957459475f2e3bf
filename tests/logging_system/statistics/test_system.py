"""CUDA and MPS readings with devices that are not there, and the sampler thread."""

import threading
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from logging_system.statistics.system import (
    CudaReadings,
    DeviceReadings,
    HostReadings,
    MpsReadings,
    SystemSampler,
    _busy_and_total,
    device_readings,
)
from tests.waiting import wait_until


class Cuda:
    """What `torch.cuda` offers; the management library is there unless `error` is given."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.asked: list[str] = []

    def memory_allocated(self, device: int) -> int:
        return 1_500_000_000 + device

    def memory_reserved(self, device: int) -> int:
        return 2_000_000_000

    def max_memory_allocated(self, device: int) -> int:
        return 1_750_000_000

    def memory_stats(self, device: int) -> dict[str, int]:
        return {"num_alloc_retries": 3}

    def _managed(self, name: str, value: int) -> int:
        self.asked.append(name)
        if self.error is not None:
            raise self.error
        return value

    def utilization(self, device: int) -> int:
        return self._managed("utilization", 85)

    def temperature(self, device: int) -> int:
        return self._managed("temperature", 61)

    def power_draw(self, device: int) -> int:
        return self._managed("power_draw", 250_500)


def test_cuda_readings() -> None:
    assert CudaReadings(Cuda(), 0).read() == {
        "GPU_Memory_Allocated_GB": 1.5,
        "GPU_Memory_Reserved_GB": 2.0,
        "GPU_Memory_Peak_GB": 1.75,
        "GPU_Alloc_Retries": 3.0,
        "GPU_Utilization_Percent": 85.0,
        "GPU_Temperature_Celsius": 61.0,
        "GPU_Power_Watts": 250.5,
    }


def test_without_a_management_library_its_readings_are_absent_and_not_asked_for_again() -> None:
    cuda = Cuda(ModuleNotFoundError("nvidia-ml-py does not seem to be installed"))
    readings = CudaReadings(cuda, 0, (ImportError,))
    for _ in range(3):
        assert set(readings.read()) == {
            "GPU_Memory_Allocated_GB",
            "GPU_Memory_Reserved_GB",
            "GPU_Memory_Peak_GB",
            "GPU_Alloc_Retries",
        }
    assert sorted(cuda.asked) == ["power_draw", "temperature", "utilization"]


def test_the_names_that_are_called_exist_in_torch() -> None:
    for name in ("memory_allocated", "memory_reserved", "max_memory_allocated", "memory_stats"):
        assert callable(vars(torch.cuda)[name])
    for name in ("utilization", "temperature", "power_draw"):
        assert callable(vars(torch.cuda)[name])
    for name in ("current_allocated_memory", "driver_allocated_memory"):
        assert callable(vars(torch.mps)[name])


def test_mps_readings() -> None:
    mps = SimpleNamespace(current_allocated_memory=lambda: 10**9, driver_allocated_memory=lambda: 3 * 10**9)
    assert MpsReadings(mps).read() == {"MPS_Memory_Allocated_GB": 1.0, "MPS_Driver_Memory_GB": 3.0}


def test_device_decides_the_readings() -> None:
    assert isinstance(device_readings(torch.device("cpu")), DeviceReadings)
    assert isinstance(device_readings(torch.device("cuda", 1)), CudaReadings)
    assert isinstance(device_readings(torch.device("mps")), MpsReadings)


def test_host_readings_agree_with_psutil(tmp_path: Path) -> None:
    host = HostReadings(tmp_path, DeviceReadings())
    begun = _busy_and_total()[1]
    wait_until(lambda: _busy_and_total()[1] > begun)  # it is counted in hundredths of a second
    readings = host.read()
    assert readings["RAM_Used_GB"] == pytest.approx(psutil.virtual_memory().used / 1e9, rel=0.2)
    assert readings["Process_RSS_GB"] == pytest.approx(psutil.Process().memory_info().rss / 1e9, rel=0.1)
    assert readings["Disk_Free_GB"] == pytest.approx(psutil.disk_usage(str(tmp_path)).free / 1e9, rel=0.1)
    assert 0 <= readings["CPU_Percent"] <= 100


def test_children_are_added_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> None:
        raise psutil.NoSuchProcess(1)

    children = [
        SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=10**8)),
        SimpleNamespace(memory_info=gone),
        SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=2 * 10**8)),
    ]
    monkeypatch.setattr(psutil.Process, "children", lambda self, recursive: children)
    assert HostReadings(tmp_path, DeviceReadings()).read()["Loader_RSS_GB"] == pytest.approx(0.3)
    monkeypatch.setattr(psutil.Process, "children", lambda self, recursive: [])
    assert "Loader_RSS_GB" not in HostReadings(tmp_path, DeviceReadings()).read()


def test_sampler_reads_on_its_own_thread_and_ends() -> None:
    threads = set()

    def read() -> dict[str, float]:
        threads.add(threading.current_thread().name)
        return {"x": 1.0}

    sampler = SystemSampler(read, 0.01)
    sampler.start()
    wait_until(lambda: sampler._newest)
    assert sampler.take() == {"x": 1.0}
    sampler.close()
    sampler.take()
    assert sampler.take() == {}
    assert threads == {"system-sampler"}
    assert not [thread for thread in threading.enumerate() if thread.name == "system-sampler"]


def test_a_failed_reading_is_raised_once_where_it_can_be_reported() -> None:
    def read() -> dict[str, float]:
        raise OSError("the disk is gone")

    sampler = SystemSampler(read, 0.01)
    sampler.start()
    wait_until(lambda: not sampler._thread.is_alive())
    with pytest.raises(OSError, match="the disk is gone"):
        sampler.take()
    assert sampler.take() == {}
    sampler.close()
