"""03_Epoch_Summary: one point an epoch; the x axis is the epoch, not the step."""

import math

from logging_system.category import Category, Due
from logging_system.files.writer import Writer
from logging_system.records import EpochRecord, StepRecord, ValidationRecord
from logging_system.statistics.moments import StepMoments
from logging_system.tags import Tag, write_scalars
from logging_system.view import TrainingView

VALIDATION_TAG = "01_Training/Validation_Loss"
BEST_TAG = "03_Epoch_Summary/Best_Validation_Loss"
NO_VALIDATION = "no validation has taken place"

TAGS = {
    "03_Epoch_Summary/Average_Loss": Tag(
        "Mean training loss over every optimizer step since the last summary, which is one epoch unless "
        "LOG_EVERY_EPOCHS is above 1 or the run stopped within it. X axis: epoch."
    ),
    "03_Epoch_Summary/Validation_Loss": Tag(
        "The latest validation loss when the epoch ended.", absent_when=NO_VALIDATION
    ),
    BEST_TAG: Tag("The lowest validation loss of the run so far.", absent_when=NO_VALIDATION),
    "03_Epoch_Summary/Average_Gradient_Norm": Tag(
        "Mean gradient norm before clipping over every optimizer step since the last summary."
    ),
    "03_Epoch_Summary/Epoch_Time_Seconds": Tag(
        "Seconds that the latest epoch took in this launch, validation and logging included."
    ),
    "03_Epoch_Summary/Optimizer_Steps": Tag("Optimizer steps of the latest epoch, in this launch."),
    "03_Epoch_Summary/Samples": Tag("Clips trained on in the latest epoch, in this launch."),
    "03_Epoch_Summary/Skipped_Steps": Tag(
        "Updates left out since the last summary because the loss or the gradient was not finite. Should be 0."
    ),
    "03_Epoch_Summary/Learning_Rate": Tag("Learning rate when the epoch ended."),
}


class EpochSummary(Category):
    """Averages over whole epochs."""

    name = "03_Epoch_Summary"

    def __init__(self) -> None:
        self._moments = StepMoments()
        self._validation_loss: float | None = None
        self._best_validation_loss: float | None = None

    def on_start(self, view: TrainingView, writer: Writer) -> None:
        # A resumed run goes on with what the launches before it measured.
        validations = writer.history.series(VALIDATION_TAG)
        if len(validations):
            self._validation_loss = float(validations.values[-1])
            best = [*validations.finite().values, *writer.history.series(BEST_TAG).finite().values]
            self._best_validation_loss = float(min(best, default=math.inf))

    def on_step(self, record: StepRecord, due: Due, view: TrainingView, writer: Writer) -> None:
        self._moments.add({"loss": record.loss, "gradient_norm": record.gradient_norm, "skipped": record.skipped})

    def on_validation(self, record: ValidationRecord, view: TrainingView, writer: Writer) -> None:
        self._validation_loss = record.loss
        self._best_validation_loss = record.best_loss

    def on_epoch(self, record: EpochRecord, view: TrainingView, writer: Writer) -> None:
        values: dict[str, float] = {
            "03_Epoch_Summary/Epoch_Time_Seconds": record.seconds,
            "03_Epoch_Summary/Optimizer_Steps": record.optimizer_steps,
            "03_Epoch_Summary/Samples": record.clips,
            "03_Epoch_Summary/Learning_Rate": record.learning_rate,
        }
        moments = self._moments.collect()
        if moments:
            values["03_Epoch_Summary/Average_Loss"] = moments["loss"].mean
            values["03_Epoch_Summary/Average_Gradient_Norm"] = moments["gradient_norm"].mean
            values["03_Epoch_Summary/Skipped_Steps"] = round(moments["skipped"].mean * moments["skipped"].count)
        if self._validation_loss is not None:
            values["03_Epoch_Summary/Validation_Loss"] = self._validation_loss
        if self._best_validation_loss is not None:
            values[BEST_TAG] = self._best_validation_loss
        write_scalars(writer, TAGS, values, record.epoch)
