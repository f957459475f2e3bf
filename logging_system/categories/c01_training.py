"""01_Training: is it learning at all?"""

import copy

import torch
from torch import Tensor

from logging_system.cadence import Due
from logging_system.category import VALIDATIONS, Category, CategoryContext, Tag
from logging_system.records import StepRecord, ValidationRecord
from logging_system.statistics.moments import DeviceMeans

EMA_DECAY = 0.99  # per optimizer step

TAGS = {
    "Loss": Tag(
        "Mean training loss (weighted, as minimised) over all optimizer steps since the last point of LOG_EVERY_STEPS; "
        "squared error, no unit. NaN means that no step since then had a finite loss."
    ),
    "Loss_EMA": Tag(
        "Exponential moving average of the loss of every step, 0.99 a step, corrected for its start (Kingma and Ba "
        "2015, section 3). It starts anew with every launch. The trend to look at when Loss is noisy."
    ),
    "Learning_Rate": Tag(
        "Learning rate that this step used (first parameter group), per step. See 04_Learning_Rate for the plan."
    ),
    "Gradient_Norm": Tag(
        "Euclidean norm of the whole gradient before clipping, mean over the steps since the last point. Slow growth "
        "or spikes announce instability."
    ),
    "Gradient_Norm_Clipped": Tag(
        "The same norm after clipping, mean over the steps since the last point. Far below Gradient_Norm: clipping "
        "decides the size of most updates."
    ),
    "Epoch": Tag("Number of the epoch this step belongs to, counted from 1."),
    "Samples_Seen": Tag("Clips used for training since step 0, repeats included."),
    "Skipped_Steps": Tag(
        "Steps of this launch whose update was left out because the loss or the gradient was not finite, counted "
        "since the run started or was last resumed. Should stay 0."
    ),
    "Loss_Scale": Tag(
        "What the loss was multiplied by in this step, so that float16 holds its gradients. Halves after an overflow, "
        "doubles after 2,000 steps without one. Below 1: the gradients themselves are too large.",
        absent_when="gradients are not float16",
    ),
    "Overflow_Steps": Tag(
        "Steps of this launch that changed nothing because the loss scale was too large, counted since the run started "
        "or was last resumed. A few at first, then one in 2,000 steps or so, are how the scale is found.",
        absent_when="gradients are not float16",
    ),
    "Validation_Loss": Tag(
        "Unweighted squared error on fixed validation clips, noise and timesteps, right captions: comparable from "
        "point to point. Rising while Loss falls means overfitting.",
        absent_when="validation is off or there are no validation clips",
    ),
}


class Training(Category):
    """Loss, learning rate and gradient norm, averaged over every step since the last point."""

    name = "01_Training"
    cadence = f"{VALIDATIONS}; before the first of these, the first step and about every ten seconds"
    tags = TAGS

    def __init__(self, context: CategoryContext) -> None:
        super().__init__(context)
        self._means = DeviceMeans()
        self._average: Tensor | None = None  # [2]: weighted sum of losses, sum of weights
        self._skipped_steps = 0
        self._overflow_steps = 0

    def on_step(self, record: StepRecord, due: Due) -> None:
        loss = record.loss.float()
        self._means.add_step(
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
        if due.scalars:
            self._write(record, self._average)
        elif record.is_early_point:  # from copies of the sums, so that no later point depends on the clock
            early = copy.copy(self)
            early._means = copy.deepcopy(self._means)
            early._write(record, self._average)

    def _write(self, record: StepRecord, average: Tensor) -> None:
        newest = {"loss_ema": average[0] / average[1]}
        if record.loss_scale is not None:
            newest["loss_scale"] = record.loss_scale
        self._means.add(newest)
        means = self._means.collect()
        self._skipped_steps += round(means["skipped"].mean * means["skipped"].count)
        self._overflow_steps += round(means["overflowed"].mean * means["overflowed"].count)
        values = {
            "Loss": means["loss"].mean,
            "Loss_EMA": means["loss_ema"].mean,
            "Learning_Rate": next(iter(record.learning_rates.values())),
            "Gradient_Norm": means["gradient_norm"].mean,
            "Gradient_Norm_Clipped": means["gradient_norm_clipped"].mean,
            "Epoch": record.epoch + 1,
            "Samples_Seen": record.samples_seen,
            "Skipped_Steps": self._skipped_steps,
        }
        if record.loss_scale is not None:
            values["Loss_Scale"] = means["loss_scale"].mean
            values["Overflow_Steps"] = self._overflow_steps
        self.scalars(values, record.step)

    def on_validation(self, record: ValidationRecord) -> None:
        self.scalars({"Validation_Loss": record.loss}, record.step)
