"""04_Learning_Rate: the rate now, the plan ahead, and the schedule's own state."""

import numpy

from logging_system.category import Category, Due
from logging_system.files.writer import Writer
from logging_system.pictures.charts import line_chart
from logging_system.records import StepRecord
from logging_system.tags import Tag, write_scalars
from logging_system.view import TrainingView

CURVE_POINTS = 400
NO_PLAN = "the schedule follows the validation loss, so it has no plan"

TAGS = {
    "04_Learning_Rate/Current_LR": Tag("Learning rate this step used in the first parameter group, per step."),
    "04_Learning_Rate/Current_LR/{group}": Tag(
        "Learning rate this step used in one parameter group.",
        absent_when="the optimizer has a single parameter group",
    ),
    "04_Learning_Rate/Scheduler_State/{key}": Tag(
        "A number of the schedule's own state, such as last_epoch (its step count), best or num_bad_epochs.",
        absent_when="the schedule keeps no numbers",
    ),
    "04_Learning_Rate/LR_In_100_Steps": Tag(
        "Planned rate 100 steps from now, or at the end of the plan if that is sooner.", absent_when=NO_PLAN
    ),
    "04_Learning_Rate/LR_In_1000_Steps": Tag(
        "Planned rate 1000 steps from now, or at the end of the plan if that is sooner.", absent_when=NO_PLAN
    ),
    "04_Learning_Rate/LR_At_End": Tag(
        "Planned rate of the last step.", absent_when="the schedule has no plan or the run has no last step"
    ),
    "04_Learning_Rate/Schedule": Tag(
        "The whole plan, rate by optimizer step; the marker shows where training is now.", absent_when=NO_PLAN
    ),
}


class LearningRate(Category):
    """Future rates are points at the present step: points at future steps would hide what comes after them."""

    name = "04_Learning_Rate"

    def on_step(self, record: StepRecord, due: Due, view: TrainingView, writer: Writer) -> None:
        if due.scalars:
            self._write_rates(record, writer)
            self._write_plan(record.step, view, writer)
            for key, value in view.scheduler_state().items():
                write_scalars(writer, TAGS, {"04_Learning_Rate/Scheduler_State/{key}": value}, record.step, key=key)
        if due.diagnostics:
            self._draw_schedule(record, view, writer)

    def _write_rates(self, record: StepRecord, writer: Writer) -> None:
        rates = record.learning_rates
        write_scalars(writer, TAGS, {"04_Learning_Rate/Current_LR": next(iter(rates.values()))}, record.step)
        if len(rates) > 1:
            for group, rate in rates.items():
                write_scalars(writer, TAGS, {"04_Learning_Rate/Current_LR/{group}": rate}, record.step, group=group)

    def _write_plan(self, step: int, view: TrainingView, writer: Writer) -> None:
        end = view.total_steps
        planned = {
            "04_Learning_Rate/LR_In_100_Steps": _within(step + 100, end),
            "04_Learning_Rate/LR_In_1000_Steps": _within(step + 1000, end),
        }
        if end is not None:
            planned["04_Learning_Rate/LR_At_End"] = end
        rates = {tag: view.learning_rate_at(future) for tag, future in planned.items()}
        write_scalars(writer, TAGS, {tag: rate for tag, rate in rates.items() if rate is not None}, step)

    def _draw_schedule(self, record: StepRecord, view: TrainingView, writer: Writer) -> None:
        # Without a last step the picture shows as much of the future as of the past, and 1000 steps at least.
        end = view.total_steps if view.total_steps is not None else record.step + max(record.step, 1000)
        steps = numpy.unique(numpy.linspace(1, max(end, 2), CURVE_POINTS).round().astype(int))
        rates = [view.learning_rate_at(int(step)) for step in steps]
        if any(rate is None for rate in rates):
            return
        picture = line_chart(
            steps.astype(float),
            numpy.array(rates, dtype=float),
            title="Learning-rate plan",
            x_label="optimizer step",
            y_label="learning rate",
            marker=(record.step, next(iter(record.learning_rates.values()))),
        )
        tag = "04_Learning_Rate/Schedule"
        writer.image(tag, picture, record.step, TAGS[tag].description)


def _within(step: int, end: int | None) -> int:
    return step if end is None else min(step, end)
