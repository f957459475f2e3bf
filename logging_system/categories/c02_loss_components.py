"""02_Loss_Components: where the loss comes from, and whether the text is used."""

from logging_system.cadence import Due
from logging_system.category import VALIDATIONS, Category, CategoryContext, Tag
from logging_system.records import StepRecord, ValidationRecord
from logging_system.statistics.moments import ClipBuffer, DeviceMeans, TimestepBins

BINS = 8
NO_VALIDATION = "validation is off or there are no validation clips"
KNOWN_WORDS = "most words of most held-out captions occur in training captions, or the data is finger-spelling"
NO_INTERVAL = "there are fewer than two validation clips"

TAGS = {
    "Weighted_Loss": Tag(
        "Mean per-clip loss with the timestep weighting, as minimised, since the last point; squared error."
    ),
    "Unweighted_MSE": Tag(
        "Mean squared error of the network's own target without weighting, since the last point. Comparable between "
        "runs that weight timesteps differently."
    ),
    "Captioned": Tag(
        "Unweighted squared error of the clips that kept their caption, since the last point.",
        absent_when="no clip since the last point kept its caption",
    ),
    "Uncaptioned": Tag(
        "Unweighted squared error of the clips whose caption was dropped for classifier-free guidance, since the last "
        "point. Captioned below it means that the text helps.",
        absent_when="no clip since the last point had its caption dropped",
    ),
    "Timestep_Bin_{number}": Tag(
        "Unweighted squared error of the clips in one eighth of the timesteps, since the last point; bin 1 has the "
        "least noise, bin 8 the most.",
        absent_when="no clip since the last point fell in the bin",
    ),
    "Temporal_Difference_Error": Tag(
        "Squared error of the frame-to-frame change of the target, mean since the last point. High beside "
        "Unweighted_MSE means that motion is harder to learn than appearance."
    ),
    "Predict_Zero_Baseline": Tag(
        "Squared error that a network which always answers 0 would have on the same clips, mean since the last point. "
        "Unweighted_MSE must fall well below it."
    ),
    "Duration_Error_Percent": Tag(
        "How far the durations that the model expects of captions are from those of their clips, as a share, mean "
        "since the last point. Clips of one caption differ, so it does not reach 0.",
        absent_when="no clip since the last point kept its caption",
    ),
    "Validation/Loss": Tag(
        "Unweighted squared error on the fixed validation clips with their own captions.", absent_when=NO_VALIDATION
    ),
    "Validation/Loss_Shuffled": Tag("The same with another clip's caption.", absent_when=NO_VALIDATION),
    "Validation/Loss_Null": Tag("The same without a caption.", absent_when=NO_VALIDATION),
    "Validation/Text_Gap_Shuffled": Tag(
        "Loss with another clip's caption minus loss with the right one. Above 0: the model uses the text. Near 0: it "
        "ignores it.",
        absent_when=NO_VALIDATION,
    ),
    "Validation/Text_Gap_Shuffled_Lower_Bound": Tag(
        "Lower end of the 95 % interval of Text_Gap_Shuffled (bootstrap over the validation clips). Above 0: that the "
        "model uses the text is no accident of a few clips.",
        absent_when=NO_INTERVAL,
    ),
    "Validation/Text_Gap_Shuffled_Upper_Bound": Tag("Upper end of the same interval.", absent_when=NO_INTERVAL),
    "Validation/Text_Gap_Null": Tag(
        "Loss without a caption minus loss with the right one. Above 0: the caption carries information for the model.",
        absent_when=NO_VALIDATION,
    ),
    "Validation/Trained_Loss": Tag(
        "Unweighted squared error on fixed training clips with their own captions, where no model can know the signs "
        "of the validation captions.",
        absent_when=KNOWN_WORDS,
    ),
    "Validation/Trained_Text_Gap_Shuffled": Tag(
        "The same with another clip's caption, minus Trained_Loss. Above 0: the model uses the text of what it was "
        "trained on. It takes the place of Text_Gap_Shuffled where validation captions cannot be known.",
        absent_when=f"{KNOWN_WORDS}; or all captions are the same",
    ),
    "Validation/Predict_Zero_Baseline": Tag(
        "Squared error of the answer 0 on the validation clips: what a model that has learned nothing reaches.",
        absent_when=NO_VALIDATION,
    ),
    "Validation/Duration_Error_Percent": Tag(
        "How far the durations that the model expects of the validation captions are from those of their clips, as a "
        "share: the median over the clips.",
        absent_when=NO_VALIDATION,
    ),
    "Validation/Timestep_Bin_{number}": Tag(
        "Validation error with the right caption at one fixed range of timesteps; bin 1 has the least noise.",
        absent_when=NO_VALIDATION,
    ),
    "Validation/Text_Gap_Shuffled_Bin_{number}": Tag(
        "Text_Gap_Shuffled at one fixed range of timesteps; bin 1 has the least noise. Text shows first where noise "
        "hides the clip.",
        absent_when=NO_VALIDATION,
    ),
}


class LossComponents(Category):
    """The loss split by caption and by timestep; the fixed validation with right, wrong and no captions."""

    name = "02_Loss_Components"
    cadence = VALIDATIONS
    tags = TAGS

    def __init__(self, context: CategoryContext) -> None:
        super().__init__(context)
        self._clips = ClipBuffer()
        self._means = DeviceMeans()
        self._bins = TimestepBins(BINS, self.config.NUM_TRAIN_TIMESTEPS)

    def on_step(self, record: StepRecord, due: Due) -> None:
        self._clips.add(record.samples)
        if due.scalars or self._clips.is_full:
            self._fold()
        if due.scalars:
            self._write(record.step)

    def _fold(self) -> None:
        clips = self._clips.take()
        if clips is None:
            return
        self._bins.add(clips.timestep, clips.unweighted_mse)
        self._means.add(
            {
                "Weighted_Loss": clips.weighted_loss,
                "Unweighted_MSE": clips.unweighted_mse,
                "Temporal_Difference_Error": clips.temporal_difference_mse,
                "Predict_Zero_Baseline": clips.predict_zero_mse,
            }
        )
        self._means.add_masked("Captioned", clips.unweighted_mse, clips.is_captioned)
        self._means.add_masked("Uncaptioned", clips.unweighted_mse, ~clips.is_captioned)
        self._means.add_masked("Duration_Error_Percent", 100 * clips.duration_error, clips.is_captioned)

    def _write(self, step: int) -> None:
        self.scalars({key: mean.mean for key, mean in self._means.collect().items()}, step)
        by_bin = self._bins.collect()
        for number, (mean, count) in enumerate(zip(by_bin.means.tolist(), by_bin.counts.tolist(), strict=True), 1):
            if count:
                self.scalars({"Timestep_Bin_{number}": mean}, step, number=number)

    def on_validation(self, record: ValidationRecord) -> None:
        values = {
            "Validation/Loss": record.loss,
            "Validation/Loss_Null": record.loss_null,
            "Validation/Text_Gap_Null": record.loss_null - record.loss,
            "Validation/Predict_Zero_Baseline": record.predict_zero,
            "Validation/Duration_Error_Percent": 100 * record.duration_error,
        }
        if record.loss_shuffled is not None:  # None: all clips have the same caption, so none can be wrong
            values["Validation/Loss_Shuffled"] = record.loss_shuffled
            values["Validation/Text_Gap_Shuffled"] = record.loss_shuffled - record.loss
        if record.gap_shuffled_interval is not None:
            low, high = record.gap_shuffled_interval
            values["Validation/Text_Gap_Shuffled_Lower_Bound"] = low
            values["Validation/Text_Gap_Shuffled_Upper_Bound"] = high
        if record.trained_loss is not None:
            values["Validation/Trained_Loss"] = record.trained_loss
            if record.trained_loss_shuffled is not None:
                gap = record.trained_loss_shuffled - record.trained_loss
                values["Validation/Trained_Text_Gap_Shuffled"] = gap
        self.scalars(values, record.step)
        for number, loss in enumerate(record.loss_by_bin, 1):
            self.scalars({"Validation/Timestep_Bin_{number}": loss}, record.step, number=number)
        for number, gap in enumerate(record.gap_shuffled_by_bin, 1):
            self.scalars({"Validation/Text_Gap_Shuffled_Bin_{number}": gap}, record.step, number=number)
