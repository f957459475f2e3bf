"""03_Epoch_Summary: one point an epoch; the x axis is the epoch, not the step."""

import math

from logging_system.cadence import Due
from logging_system.category import EPOCHS, Category, CategoryContext, Tag
from logging_system.records import EpochRecord, StepRecord, ValidationRecord
from logging_system.statistics.moments import DeviceMeans

VALIDATION_TAG = "01_Training/Validation_Loss"
NO_VALIDATION = "no validation has taken place"

TAGS = {
    "Average_Loss": Tag(
        "Mean training loss over every optimizer step since the last summary, which is one epoch unless "
        "LOG_EVERY_EPOCHS is above 1 or the run stopped within it. X axis: epoch."
    ),
    "Validation_Loss": Tag("The latest validation loss when the epoch ended.", absent_when=NO_VALIDATION),
    "Best_Validation_Loss": Tag("The lowest validation loss of the run so far.", absent_when=NO_VALIDATION),
    "Average_Gradient_Norm": Tag(
        "Mean gradient norm before clipping over every optimizer step since the last summary."
    ),
    "Epoch_Time_Seconds": Tag("Seconds that the latest epoch took in this launch, validation and logging included."),
    "Optimizer_Steps": Tag("Optimizer steps of the latest epoch, in this launch."),
    "Samples": Tag("Clips trained on in the latest epoch, in this launch."),
    "Frames": Tag("Frames of these clips."),
    "Skipped_Steps": Tag(
        "Updates left out since the last summary because the loss or the gradient was not finite. Should be 0."
    ),
    "Learning_Rate": Tag("Learning rate when the epoch ended."),
}


class EpochSummary(Category):
    """Averages over epochs."""

    name = "03_Epoch_Summary"
    cadence = EPOCHS
    tags = TAGS

    def __init__(self, context: CategoryContext) -> None:
        super().__init__(context)
        self._means = DeviceMeans()
        self._validation_loss: float | None = None
        self._best_validation_loss: float | None = None

    def on_start(self) -> None:
        # A resumed run goes on with what the launches before it measured.
        history = self.writer.history
        validations = history.series(VALIDATION_TAG)
        if len(validations):
            self._validation_loss = float(validations.values[-1])
            best = history.series(self.full_tag("Best_Validation_Loss"))
            losses = [*validations.finite().values, *best.finite().values]
            self._best_validation_loss = float(min(losses, default=math.inf))

    def on_step(self, record: StepRecord, due: Due) -> None:
        self._means.add_step({"loss": record.loss, "gradient_norm": record.gradient_norm, "skipped": record.skipped})

    def on_validation(self, record: ValidationRecord) -> None:
        self._validation_loss = record.loss
        self._best_validation_loss = record.best_loss

    def on_epoch(self, record: EpochRecord) -> None:
        values: dict[str, float] = {
            "Epoch_Time_Seconds": record.seconds,
            "Optimizer_Steps": record.optimizer_steps,
            "Samples": record.clips,
            "Frames": record.frames,
            "Learning_Rate": record.learning_rate,
        }
        means = self._means.collect()
        if means:
            values["Average_Loss"] = means["loss"].mean
            values["Average_Gradient_Norm"] = means["gradient_norm"].mean
            values["Skipped_Steps"] = round(means["skipped"].mean * means["skipped"].count)
        if self._validation_loss is not None:
            values["Validation_Loss"] = self._validation_loss
        if self._best_validation_loss is not None:
            values["Best_Validation_Loss"] = self._best_validation_loss
        self.scalars(values, record.epoch)
