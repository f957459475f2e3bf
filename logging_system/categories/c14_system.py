"""14_System: the computer that trains. Gigabytes are 10^9 bytes."""

import torch

from logging_system.cadence import Due
from logging_system.category import SCALARS, Category, CategoryContext, Tag
from logging_system.records import StepRecord
from logging_system.statistics.system import DeviceReadings, HostReadings, SystemSampler, device_readings

NOT_CUDA = "training does not run on a CUDA device"
NO_MANAGEMENT = "not on CUDA, or nvidia-ml-py is not installed or does not offer it"
NOT_MPS = "training does not run on Apple's GPU"

TAGS = {
    "CPU_Percent": Tag(
        "Load of all CPUs together since the last reading, in percent.",
        absent_when="the last reading is less than a hundredth of a second old",
    ),
    "RAM_Used_GB": Tag("Memory in use on the whole computer, in 10^9 bytes. Steady growth is a leak."),
    "Process_RSS_GB": Tag("Memory of the training process (resident set), in 10^9 bytes."),
    "Disk_Free_GB": Tag("Free space on the disk that holds the run, in 10^9 bytes."),
    "Loader_RSS_GB": Tag(
        "Memory of the child processes, which load data, in 10^9 bytes; memory they share is counted for each.",
        absent_when="there are no child processes (NUM_WORKERS is 0)",
    ),
    "GPU_Memory_Allocated_GB": Tag("GPU memory held by tensors now, in 10^9 bytes.", NOT_CUDA),
    "GPU_Memory_Reserved_GB": Tag("GPU memory held by PyTorch's allocator now, in 10^9 bytes.", NOT_CUDA),
    "GPU_Memory_Peak_GB": Tag("Most GPU memory held by tensors in this launch, in 10^9 bytes.", NOT_CUDA),
    "GPU_Alloc_Retries": Tag(
        "Times the allocator had to free its cache and try again in this launch. Growing: memory is nearly full.",
        NOT_CUDA,
    ),
    "GPU_Utilization_Percent": Tag(
        "Share of the last moments in which the GPU computed, in percent. Low: it waits for data or for Python.",
        NO_MANAGEMENT,
    ),
    "GPU_Temperature_Celsius": Tag("Temperature of the GPU in degrees Celsius.", NO_MANAGEMENT),
    "GPU_Power_Watts": Tag("Power that the GPU draws, in watts.", NO_MANAGEMENT),
    "MPS_Memory_Allocated_GB": Tag("GPU memory held by tensors now, in 10^9 bytes.", NOT_MPS),
    "MPS_Driver_Memory_GB": Tag("GPU memory that the driver holds for training, in 10^9 bytes.", NOT_MPS),
}


class System(Category):
    """A thread reads; the training thread writes what is new at log points, so that steps are in order."""

    name = "14_System"
    cadence = f"{SCALARS}, when the sampler thread has new readings"
    tags = TAGS

    def __init__(self, context: CategoryContext, device: DeviceReadings | None = None) -> None:
        """`device` None reads the device that the model is on."""
        super().__init__(context)
        self._run_folder = context.run_folder
        self._device = device
        self._sampler: SystemSampler | None = None
        self._has_written = False

    def on_start(self) -> None:
        parameter = next(self.view.model.parameters(), None)
        device = self._device or device_readings(parameter.device if parameter is not None else torch.device("cpu"))
        self._sampler = SystemSampler(HostReadings(self._run_folder, device).read, self.config.SYSTEM_SAMPLE_SECONDS)
        self._sampler.start()

    def on_step(self, record: StepRecord, due: Due) -> None:
        if not due.scalars or self._sampler is None:
            return
        if record.is_last or not self._has_written:  # a run shorter than the period has its points all the same
            self._sampler.sample_now()
        self.scalars(self._sampler.take(), record.step)
        self._has_written = True

    def close(self) -> None:
        if self._sampler is not None:
            self._sampler.close()
