"""05_Performance: how fast, what it waits for, and when it will be done."""

import statistics
import time

from config import Config
from logging_system.cadence import Due
from logging_system.category import VALIDATIONS, Category, CategoryContext, Tag
from logging_system.records import CheckpointRecord, StepRecord, ValidationRecord

FORWARD_AND_BACKWARD = 3  # a backward pass costs about two forward passes (Kaplan et al. 2020, section 2.1)

TAGS = {
    "Samples_Per_Second": Tag(
        "Clips trained on in a second, since the last point; logging, validation and sampling time left out."
    ),
    "Steps_Per_Second": Tag("Optimizer steps in a second, since the last point; logging left out."),
    "Frames_Per_Second": Tag("Video frames trained on in a second, since the last point."),
    "Step_Time_Seconds": Tag(
        "Mean seconds of an optimizer step since the last point, waiting for data included, logging left out."
    ),
    "Data_Wait_Percent": Tag(
        "Share of the step time spent waiting for the next batch, since the last point. Above 10 percent: add "
        "NUM_WORKERS or decode less. On a GPU, which is behind the host, it is an upper bound: see "
        "14_System/GPU_Utilization_Percent."
    ),
    "Logging_Overhead_Percent": Tag(
        "Share of (training + logging) time that ordinary logging took in this launch so far; videos are counted in "
        "Sampling_Seconds. High in the first steps, then meant to stay below 2 percent."
    ),
    "Validation_Seconds": Tag(
        "Seconds of the latest validation.", absent_when="validation is off or there are no validation clips"
    ),
    "Sampling_Seconds": Tag(
        "Seconds that training stood still for generated videos and noise videos since this tag's last point.",
        absent_when="ENABLE_VIDEO_LOGGING and ENABLE_NOISE_VISUALIZATION are both off",
    ),
    "Checkpoint_Stall_Seconds": Tag(
        "Seconds that training stood still for the checkpoint of this step.", "no checkpoint was written yet"
    ),
    "Checkpoint_Write_Seconds": Tag(
        "Seconds from the beginning of the checkpoint of this step until it had reached the disk. With "
        "SAVE_IN_BACKGROUND, training goes on meanwhile.",
        absent_when="no checkpoint was written yet",
    ),
    "Checkpoint_Megabytes": Tag(
        "Size of the checkpoint of this step on the disk, in 10^6 bytes.", absent_when="no checkpoint was written yet"
    ),
    "Model_TFLOPs": Tag(
        "Arithmetic done for the model in a second since the last point, in 10^12 operations, counting a training step "
        "as three forward passes, and these by the number of frames.",
        absent_when="the operations of a forward pass could not be counted",
    ),
    "MFU_Percent": Tag(
        "Model_TFLOPs as a share of the device's peak (model FLOPs utilisation, Chowdhery et al. 2022, appendix B).",
        absent_when="the device's peak is not known",
    ),
    "ETA_Seconds": Tag(
        "Seconds until the last step at the pace of this launch so far, logging, validation and sampling included.",
        absent_when="the run has no last step",
    ),
    "Rank_Seconds_Fastest": Tag(
        "Of the processes that train together, the fastest one's mean seconds of a step on its own since the last "
        "point: waiting for data and the forward passes, before it has to wait for the others.",
        absent_when="one process trains alone",
    ),
    "Rank_Seconds_Slowest": Tag(
        "The slowest process's mean seconds of a step on its own since the last point.", "one process trains alone"
    ),
    "Rank_Spread_Percent": Tag(
        "By how much the slowest process is slower than the middle one (the median), as a share of the whole step. The "
        "others wait that long for it.",
        absent_when="one process trains alone",
    ),
    "Slowest_Rank": Tag(
        "Rank of the slowest process since the last point. Always the same one, with a large spread: look at its "
        "machine. A different one at every point: chance.",
        absent_when="one process trains alone",
    ),
    # Written by the dispatcher, which alone sees a category fail.
    "Logging_Failures": Tag(
        "How often a category raised an error or a file or video could not be written, since this process started. "
        "Count; absent while it is 0. logging_errors.log in the run folder holds the details.",
        absent_when="nothing failed",
    ),
    "Dropped_Videos": Tag(
        "Videos of this launch that are missing because they came faster than they could be encoded. Count; absent "
        "while it is 0.",
        absent_when="none was dropped",
    ),
}


class Performance(Category):
    """Rates from the seconds that the training loop reports with each step."""

    name = "05_Performance"
    cadence = VALIDATIONS
    tags = TAGS

    @staticmethod
    def is_enabled(config: Config) -> bool:
        return config.ENABLE_PERFORMANCE_PROFILING

    def __init__(self, context: CategoryContext) -> None:
        super().__init__(context)
        self._clock = context.clock
        self._started = time.perf_counter()
        self._steps_of_launch = 0
        self._training_seconds = 0.0
        self._sampling_reported = 0.0
        self._last_step: int | None = None
        self._reset_interval()

    def _reset_interval(self) -> None:
        self._steps = self._clips = self._frames = 0
        self._seconds = self._data_seconds = 0.0

    def on_start(self) -> None:
        self._started = time.perf_counter()

    def on_step(self, record: StepRecord, due: Due) -> None:
        self._last_step = record.step
        self._steps_of_launch += 1
        self._training_seconds += record.step_seconds
        self._steps += 1
        self._clips += record.clips_in_step
        self._frames += record.frames_in_step
        self._seconds += record.step_seconds
        self._data_seconds += record.data_seconds
        if due.scalars:
            if self._seconds > 0:
                self._write_rates(record)
            self._write_launch(record.step)
            if not record.is_last:  # on_end writes that point, together with the last samples
                self._write_sampling(record.step)
            self._reset_interval()

    def _write_rates(self, record: StepRecord) -> None:
        values = {
            "Samples_Per_Second": self._clips / self._seconds,
            "Steps_Per_Second": self._steps / self._seconds,
            "Frames_Per_Second": self._frames / self._seconds,
            "Step_Time_Seconds": self._seconds / self._steps,
            "Data_Wait_Percent": 100 * self._data_seconds / self._seconds,
        }
        forward, peak = self.view.run.forward_flops, self.view.run.peak_flops_per_second
        if forward is not None:
            longest_clips = self._frames / self.config.MAX_FRAMES  # of which one takes as much
            flops_per_second = FORWARD_AND_BACKWARD * forward * longest_clips / self._seconds
            values["Model_TFLOPs"] = flops_per_second / 1e12
            if peak is not None:
                values["MFU_Percent"] = 100 * flops_per_second / peak
        seconds = record.rank_seconds
        if seconds:
            behind = max(seconds) - statistics.median(seconds)
            values["Rank_Seconds_Fastest"] = min(seconds)
            values["Rank_Seconds_Slowest"] = max(seconds)
            values["Rank_Spread_Percent"] = 100 * behind * self._steps / self._seconds
            values["Slowest_Rank"] = float(seconds.index(max(seconds)))
        self.scalars(values, record.step)

    def _write_launch(self, step: int) -> None:
        values: dict[str, float] = {}
        logging_seconds = self._clock.logging_seconds
        total_seconds = self._training_seconds + logging_seconds
        if total_seconds > 0:
            values["Logging_Overhead_Percent"] = 100 * logging_seconds / total_seconds
        total = self.view.total_steps()
        if total is not None:
            pace = (time.perf_counter() - self._started) / self._steps_of_launch
            values["ETA_Seconds"] = max(0, total - step) * pace
        self.scalars(values, step)

    def _write_sampling(self, step: int) -> None:
        total = self._clock.sampling_seconds
        if total > self._sampling_reported:
            self.scalars({"Sampling_Seconds": total - self._sampling_reported}, step)
            self._sampling_reported = total

    def on_validation(self, record: ValidationRecord) -> None:
        self.scalars({"Validation_Seconds": record.seconds}, record.step)

    def on_checkpoint(self, record: CheckpointRecord) -> None:
        values = {
            "Checkpoint_Stall_Seconds": record.stall_seconds,
            "Checkpoint_Write_Seconds": record.write_seconds,
            "Checkpoint_Megabytes": record.size_bytes / 1e6,
        }
        self.scalars(values, record.step)

    def on_end(self) -> None:
        # The last step's samples are made after its scalars were written, and a tag gets one point a step.
        if self._last_step is not None:
            self._write_sampling(self._last_step)
