"""01_Training: is it learning at all?"""

import torch
from torch import Tensor

from logging_system.category import Category, Due
from logging_system.files.writer import Writer
from logging_system.records import StepRecord, ValidationRecord
from logging_system.statistics.moments import StepMoments
from logging_system.tags import Tag, write_scalars
from logging_system.view import TrainingView

EMA_DECAY = 0.99  # per optimizer step

TAGS = {
    "01_Training/Loss": Tag(
        "Mean training loss (weighted, as minimised) over all optimizer steps since the last point; squared error, no "
        "unit. NaN means that no step since then had a finite loss."
    ),
    "01_Training/Loss_EMA": Tag(
        "Exponential moving average of the loss of every step, 0.99 a step, corrected for its start (Kingma and Ba "
        "2015, section 3). It starts anew with every launch. The trend to look at when Loss is noisy."
    ),
    "01_Training/Learning_Rate": Tag(
        "Learning rate that this step used (first parameter group), per step. See 04_Learning_Rate for the plan."
    ),
    "01_Training/Gradient_Norm": Tag(
        "Euclidean norm of the whole gradient before clipping, mean over the steps since the last point. Slow growth "
        "or spikes announce instability."
    ),
    "01_Training/Gradient_Norm_Clipped": Tag(
        "The same norm after clipping, mean over the steps since the last point. Far below Gradient_Norm: clipping "
        "decides the size of most updates."
    ),
    "01_Training/Epoch": Tag("Number of the epoch this step belongs to, counted from 1."),
    "01_Training/Samples_Seen": Tag("Clips used for training since step 0, repeats included."),
    "01_Training/Skipped_Steps": Tag(
        "Steps of this launch whose update was left out because the loss or the gradient was not finite, counted "
        "since the run started or was last resumed. Should stay 0."
    ),
    "01_Training/Loss_Scale": Tag(
        "What the loss was multiplied by in this step, so that float16 holds its gradients. Halves after an overflow, "
        "doubles after 2,000 steps without one. Below 1: the gradients themselves are too large.",
        absent_when="gradients are not float16",
    ),
    "01_Training/Overflow_Steps": Tag(
        "Steps of this launch that changed nothing because the loss scale was too large, counted since the run started "
        "or was last resumed. A few at first, then one in 2,000 steps or so, are how the scale is found.",
        absent_when="gradients are not float16",
    ),
    "01_Training/Validation_Loss": Tag(
        "Unweighted squared error on fixed validation clips, noise and timesteps, right captions: comparable from "
        "point to point. Rising while Loss falls means overfitting.",
        absent_when="validation is off or there are no validation clips",
    ),
}


class Training(Category):
    """Loss, learning rate and gradient norm, averaged over every step since the last point."""

    name = "01_Training"

    def __init__(self) -> None:
        self._moments = StepMoments()
        self._average: Tensor | None = None  # [2]: weighted sum of losses, sum of weights
        self._skipped_steps = 0
        self._overflow_steps = 0

    def on_step(self, record: StepRecord, due: Due, view: TrainingView, writer: Writer) -> None:
        self._accumulate(record)
        if due.scalars:
            self._write(record, writer)

    def _accumulate(self, record: StepRecord) -> None:
        loss = record.loss.float()
        self._moments.add(
            {
                "loss": loss,
                "gradient_norm": record.gradient_norm,
                "gradient_norm_clipped": record.gradient_norm_clipped,
                "skipped": record.skipped,
                "overflowed": record.overflowed,
            }
        )
        before = torch.zeros(2, device=loss.device) if self._average is None else self._average
        after = EMA_DECAY * before + (1 - EMA_DECAY) * torch.stack([loss, torch.ones_like(loss)])
        self._average = torch.where(torch.isfinite(loss), after, before)

    def _write(self, record: StepRecord, writer: Writer) -> None:
        average, loss_scale = self._average, record.loss_scale
        extra = {} if average is None else {"loss_ema": average[0] / average[1]}
        if loss_scale is not None:
            extra["loss_scale"] = loss_scale
        moments = self._moments.collect(extra)
        self._skipped_steps += round(moments["skipped"].mean * moments["skipped"].count)
        self._overflow_steps += round(moments["overflowed"].mean * moments["overflowed"].count)
        values = {
            "01_Training/Loss": moments["loss"].mean,
            "01_Training/Loss_EMA": moments["loss_ema"].mean,
            "01_Training/Learning_Rate": next(iter(record.learning_rates.values())),
            "01_Training/Gradient_Norm": moments["gradient_norm"].mean,
            "01_Training/Gradient_Norm_Clipped": moments["gradient_norm_clipped"].mean,
            "01_Training/Epoch": record.epoch + 1,
            "01_Training/Samples_Seen": record.samples_seen,
            "01_Training/Skipped_Steps": self._skipped_steps,
        }
        if loss_scale is not None:
            values["01_Training/Loss_Scale"] = moments["loss_scale"].mean
            values["01_Training/Overflow_Steps"] = self._overflow_steps
        write_scalars(writer, TAGS, values, record.step)

    def on_validation(self, record: ValidationRecord, view: TrainingView, writer: Writer) -> None:
        write_scalars(writer, TAGS, {"01_Training/Validation_Loss": record.loss}, record.step)
