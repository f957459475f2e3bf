"""04_Learning_Rate: the rate now, the plan ahead, and the schedule's own state."""

import numpy

from logging_system.cadence import Due
from logging_system.category import DIAGNOSTICS, SCALARS, Category, Tag
from logging_system.pictures.charts import line_chart
from logging_system.records import StepRecord

CURVE_POINTS = 400
NO_PLAN = "the schedule follows the validation loss, so it has no plan, or nothing is planned yet"

TAGS = {
    "Current_LR": Tag("Learning rate this step used in the first parameter group, per step."),
    "Current_LR/{group}": Tag(
        "Learning rate this step used in one parameter group.", "the optimizer has a single parameter group"
    ),
    "Scheduler_State/{key}": Tag(
        "A number of the schedule's own state, such as last_epoch (its step count), best or num_bad_epochs.",
        absent_when="the schedule keeps no numbers",
    ),
    "LR_In_100_Steps": Tag("Planned rate 100 steps from now, or at the end of the plan if that is sooner.", NO_PLAN),
    "LR_In_1000_Steps": Tag("Planned rate 1000 steps from now, or at the end of the plan if that is sooner.", NO_PLAN),
    "LR_At_End": Tag("Planned rate of the last step.", "the schedule has no plan or the run has no last step"),
    "Schedule": Tag("The whole plan, rate by optimizer step; the marker shows where training is now.", NO_PLAN),
}


class LearningRate(Category):
    """Future rates are points at the present step: points at future steps would hide what comes after them."""

    name = "04_Learning_Rate"
    cadence = f"{SCALARS}; the picture {DIAGNOSTICS}"
    tags = TAGS

    def on_step(self, record: StepRecord, due: Due) -> None:
        if due.scalars:
            rates = record.learning_rates
            self.scalars({"Current_LR": next(iter(rates.values()))}, record.step)
            if len(rates) > 1:
                for group, rate in rates.items():
                    self.scalars({"Current_LR/{group}": rate}, record.step, group=group)
            self._write_plan(record.step)
            for key, value in self.view.scheduler_state().items():
                self.scalars({"Scheduler_State/{key}": value}, record.step, key=key)
        if due.diagnostics:
            self._draw_schedule(record)

    def _write_plan(self, step: int) -> None:
        end = self.view.total_steps()
        planned = {"LR_In_100_Steps": step + 100, "LR_In_1000_Steps": step + 1000}
        if end is not None:
            planned = {tag: min(future, end) for tag, future in planned.items()} | {"LR_At_End": end}
        rates = {tag: self.view.learning_rate_at(future) for tag, future in planned.items()}
        self.scalars({tag: rate for tag, rate in rates.items() if rate is not None}, step)

    def _draw_schedule(self, record: StepRecord) -> None:
        # Without a last step the picture shows as much of the future as of the past, and 1000 steps at least.
        end = self.view.total_steps() or record.step + max(record.step, 1000)
        steps = numpy.unique(numpy.linspace(1, max(end, 2), CURVE_POINTS).round().astype(int))
        rates = [self.view.learning_rate_at(int(step)) for step in steps]
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
        self.write(self.writer.image, "Schedule", picture, record.step)
