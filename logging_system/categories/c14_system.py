"""14_System: the computer that trains. Gigabytes are 10^9 bytes."""

from pathlib import Path

import torch

from logging_system.category import Category, Due
from logging_system.files.writer import Writer
from logging_system.records import StepRecord
from logging_system.statistics.devices import DeviceReadings, device_readings
from logging_system.statistics.system_sampler import HostReadings, SystemSampler
from logging_system.tags import Tag, write_scalars
from logging_system.view import TrainingView

NOT_CUDA = "training does not run on a CUDA device"
NO_MANAGEMENT = "not on CUDA, or nvidia-ml-py is not installed or does not offer it"
NOT_MPS = "training does not run on Apple's GPU"

TAGS = {
    "14_System/CPU_Percent": Tag(
        "Load of all CPUs together since the last reading, in percent.",
        absent_when="the last reading is less than a hundredth of a second old",
    ),
    "14_System/RAM_Used_GB": Tag("Memory in use on the whole computer, in 10^9 bytes. Steady growth is a leak."),
    "14_System/Process_RSS_GB": Tag("Memory of the training process (resident set), in 10^9 bytes."),
    "14_System/Disk_Free_GB": Tag("Free space on the disk that holds the run, in 10^9 bytes."),
    "14_System/Loader_RSS_GB": Tag(
        "Memory of the child processes, which load data, in 10^9 bytes; memory they share is counted for each.",
        absent_when="there are no child processes (NUM_WORKERS is 0)",
    ),
    "14_System/GPU_Memory_Allocated_GB": Tag("GPU memory held by tensors now, in 10^9 bytes.", NOT_CUDA),
    "14_System/GPU_Memory_Reserved_GB": Tag("GPU memory held by PyTorch's allocator now, in 10^9 bytes.", NOT_CUDA),
    "14_System/GPU_Memory_Peak_GB": Tag("Most GPU memory held by tensors in this launch, in 10^9 bytes.", NOT_CUDA),
    "14_System/GPU_Alloc_Retries": Tag(
        "Times the allocator had to free its cache and try again in this launch. Growing: memory is nearly full.",
        NOT_CUDA,
    ),
    "14_System/GPU_Utilization_Percent": Tag(
        "Share of the last moments in which the GPU computed, in percent. Low: it waits for data or for Python.",
        NO_MANAGEMENT,
    ),
    "14_System/GPU_Temperature_Celsius": Tag("Temperature of the GPU in degrees Celsius.", NO_MANAGEMENT),
    "14_System/GPU_Power_Watts": Tag("Power that the GPU draws, in watts.", NO_MANAGEMENT),
    "14_System/MPS_Memory_Allocated_GB": Tag("GPU memory held by tensors now, in 10^9 bytes.", NOT_MPS),
    "14_System/MPS_Driver_Memory_GB": Tag("GPU memory that the driver holds for training, in 10^9 bytes.", NOT_MPS),
}


class System(Category):
    """A thread reads; the training thread writes what is new at log points, so that steps are in order."""

    name = "14_System"

    def __init__(self, run_folder: Path, sample_seconds: float, device: DeviceReadings | None = None) -> None:
        """`device` None looks at the device that the model is on."""
        self._run_folder = run_folder
        self._sample_seconds = sample_seconds
        self._device = device
        self._sampler: SystemSampler | None = None
        self._has_written = False

    def on_start(self, view: TrainingView, writer: Writer) -> None:
        device = self._device or device_readings(_device_of(view.model))
        self._sampler = SystemSampler(HostReadings(self._run_folder, device).read, self._sample_seconds)
        self._sampler.start()

    def on_step(self, record: StepRecord, due: Due, view: TrainingView, writer: Writer) -> None:
        if not due.scalars or self._sampler is None:
            return
        if record.is_last or not self._has_written:  # a run shorter than the period has its points all the same
            self._sampler.sample_now()
        readings = self._sampler.take()
        write_scalars(writer, TAGS, {f"14_System/{name}": value for name, value in readings.items()}, record.step)
        self._has_written = True

    def close(self) -> None:
        if self._sampler is not None:
            self._sampler.close()


def _device_of(model: torch.nn.Module) -> torch.device:
    parameter = next(iter(model.parameters()), None)
    return torch.device("cpu") if parameter is None else parameter.device
