"""02_Loss_Components: where the loss comes from, and whether the text is used."""

from logging_system.category import Category, Due
from logging_system.files.writer import Writer
from logging_system.records import StepRecord, ValidationRecord, number_of_timesteps
from logging_system.statistics.moments import ClipBuffer, DeviceMoments, TimestepBins
from logging_system.tags import Tag, write_scalars
from logging_system.view import TrainingView

BINS = 8
NO_VALIDATION = "validation is off or there are no validation clips"
KNOWN_WORDS = "most words of most held-out captions occur in training captions, or the data is finger-spelling"
NO_INTERVAL = "there are fewer than two validation clips"

TAGS = {
    "02_Loss_Components/Weighted_Loss": Tag(
        "Mean per-clip loss with the timestep weighting, as minimised, since the last point; squared error."
    ),
    "02_Loss_Components/Unweighted_MSE": Tag(
        "Mean squared error of the network's own target without weighting, since the last point. Comparable between "
        "runs that weight timesteps differently."
    ),
    "02_Loss_Components/Captioned": Tag(
        "Unweighted squared error of the clips that kept their caption, since the last point.",
        absent_when="no clip since the last point kept its caption",
    ),
    "02_Loss_Components/Uncaptioned": Tag(
        "Unweighted squared error of the clips whose caption was dropped for classifier-free guidance, since the last "
        "point. Captioned below it means that the text helps.",
        absent_when="no clip since the last point had its caption dropped",
    ),
    "02_Loss_Components/Timestep_Bin_{number}": Tag(
        "Unweighted squared error of the clips in one eighth of the timesteps, since the last point; bin 1 has the "
        "least noise, bin 8 the most.",
        absent_when="no clip since the last point fell in the bin",
    ),
    "02_Loss_Components/Temporal_Difference_Error": Tag(
        "Squared error of the frame-to-frame change of the target, mean since the last point. High beside "
        "Unweighted_MSE means that motion is harder to learn than appearance."
    ),
    "02_Loss_Components/Predict_Zero_Baseline": Tag(
        "Squared error that a network which always answers 0 would have on the same clips, mean since the last point. "
        "Unweighted_MSE must fall well below it."
    ),
    "02_Loss_Components/Validation/Loss": Tag(
        "Unweighted squared error on the fixed validation clips with their own captions.", absent_when=NO_VALIDATION
    ),
    "02_Loss_Components/Validation/Loss_Shuffled": Tag(
        "The same with another clip's caption.", absent_when=NO_VALIDATION
    ),
    "02_Loss_Components/Validation/Loss_Null": Tag("The same without a caption.", absent_when=NO_VALIDATION),
    "02_Loss_Components/Validation/Text_Gap_Shuffled": Tag(
        "Loss with another clip's caption minus loss with the right one. Above 0: the model uses the text. Near 0: it "
        "ignores it.",
        absent_when=NO_VALIDATION,
    ),
    "02_Loss_Components/Validation/Text_Gap_Shuffled_Lower_Bound": Tag(
        "Lower end of the 95 % interval of Text_Gap_Shuffled (bootstrap over the validation clips). Above 0: that the "
        "model uses the text is no accident of a few clips.",
        absent_when=NO_INTERVAL,
    ),
    "02_Loss_Components/Validation/Text_Gap_Shuffled_Upper_Bound": Tag(
        "Upper end of the same interval.", absent_when=NO_INTERVAL
    ),
    "02_Loss_Components/Validation/Text_Gap_Null": Tag(
        "Loss without a caption minus loss with the right one. Above 0: the caption carries information for the model.",
        absent_when=NO_VALIDATION,
    ),
    "02_Loss_Components/Validation/Trained_Loss": Tag(
        "Unweighted squared error on fixed training clips with their own captions, where no model can know the signs "
        "of the validation captions.",
        absent_when=KNOWN_WORDS,
    ),
    "02_Loss_Components/Validation/Trained_Text_Gap_Shuffled": Tag(
        "The same with another clip's caption, minus Trained_Loss. Above 0: the model uses the text of what it was "
        "trained on. It takes the place of Text_Gap_Shuffled where validation captions cannot be known.",
        absent_when=f"{KNOWN_WORDS}; or all captions are the same",
    ),
    "02_Loss_Components/Validation/Predict_Zero_Baseline": Tag(
        "Squared error of the answer 0 on the validation clips: what a model that has learned nothing reaches.",
        absent_when=NO_VALIDATION,
    ),
    "02_Loss_Components/Validation/Timestep_Bin_{number}": Tag(
        "Validation error with the right caption at one fixed range of timesteps; bin 1 has the least noise.",
        absent_when=NO_VALIDATION,
    ),
    "02_Loss_Components/Validation/Text_Gap_Shuffled_Bin_{number}": Tag(
        "Text_Gap_Shuffled at one fixed range of timesteps; bin 1 has the least noise. Text shows first where noise "
        "hides the clip.",
        absent_when=NO_VALIDATION,
    ),
}


class LossComponents(Category):
    """The loss split by caption and by timestep; the fixed validation with right, wrong and no captions."""

    name = "02_Loss_Components"

    def __init__(self) -> None:
        self._clips = ClipBuffer()
        self._moments = DeviceMoments()
        self._bins: TimestepBins | None = None

    def on_step(self, record: StepRecord, due: Due, view: TrainingView, writer: Writer) -> None:
        self._clips.add(record.samples)
        if due.scalars or self._clips.is_full:
            self._fold(number_of_timesteps(view.run))
        if due.scalars:
            self._write(record.step, writer)

    def _fold(self, num_timesteps: int) -> None:
        clips = self._clips.take()
        if clips is None:
            return
        self._bins = self._bins or TimestepBins(BINS, num_timesteps)
        self._bins.add(clips.timestep, clips.unweighted_mse)
        self._moments.add(
            {
                "02_Loss_Components/Weighted_Loss": clips.weighted_loss,
                "02_Loss_Components/Unweighted_MSE": clips.unweighted_mse,
                "02_Loss_Components/Temporal_Difference_Error": clips.temporal_difference_mse,
                "02_Loss_Components/Predict_Zero_Baseline": clips.predict_zero_mse,
            }
        )
        self._moments.add_masked("02_Loss_Components/Captioned", clips.unweighted_mse, clips.is_captioned)
        self._moments.add_masked("02_Loss_Components/Uncaptioned", clips.unweighted_mse, ~clips.is_captioned)

    def _write(self, step: int, writer: Writer) -> None:
        means = {tag: moments.mean for tag, moments in self._moments.collect().items()}
        write_scalars(writer, TAGS, means, step)
        if self._bins is None:
            return
        by_bin = self._bins.collect()
        for number, (mean, count) in enumerate(zip(by_bin.means.tolist(), by_bin.counts.tolist(), strict=True), 1):
            if count:
                write_scalars(writer, TAGS, {"02_Loss_Components/Timestep_Bin_{number}": mean}, step, number=number)

    def on_validation(self, record: ValidationRecord, view: TrainingView, writer: Writer) -> None:
        values = {
            "02_Loss_Components/Validation/Loss": record.loss,
            "02_Loss_Components/Validation/Loss_Null": record.loss_null,
            "02_Loss_Components/Validation/Text_Gap_Null": record.loss_null - record.loss,
            "02_Loss_Components/Validation/Predict_Zero_Baseline": record.predict_zero,
        }
        if record.loss_shuffled is not None:  # None: all clips have the same caption, so none can be wrong
            values["02_Loss_Components/Validation/Loss_Shuffled"] = record.loss_shuffled
            values["02_Loss_Components/Validation/Text_Gap_Shuffled"] = record.loss_shuffled - record.loss
        if record.gap_shuffled_interval is not None:
            low, high = record.gap_shuffled_interval
            values["02_Loss_Components/Validation/Text_Gap_Shuffled_Lower_Bound"] = low
            values["02_Loss_Components/Validation/Text_Gap_Shuffled_Upper_Bound"] = high
        if record.trained_loss is not None:
            values["02_Loss_Components/Validation/Trained_Loss"] = record.trained_loss
            if record.trained_loss_shuffled is not None:
                gap = record.trained_loss_shuffled - record.trained_loss
                values["02_Loss_Components/Validation/Trained_Text_Gap_Shuffled"] = gap
        write_scalars(writer, TAGS, values, record.step)
        for number, loss in enumerate(record.loss_by_bin, 1):
            by_bin = {"02_Loss_Components/Validation/Timestep_Bin_{number}": loss}
            write_scalars(writer, TAGS, by_bin, record.step, number=number)
        for number, gap in enumerate(record.gap_shuffled_by_bin, 1):
            by_bin = {"02_Loss_Components/Validation/Text_Gap_Shuffled_Bin_{number}": gap}
            write_scalars(writer, TAGS, by_bin, record.step, number=number)
