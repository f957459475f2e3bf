"""How many steps fit into MAX_MINUTES, so that a learning rate that falls until the last step gets there in time."""

import bisect
import time
from collections.abc import Iterator
from contextlib import contextmanager

from config import Config
from training.estimate import FORWARD_AND_BACKWARD, TrainingEstimate
from training.learning_rate import ENDING_SCHEDULES
from training.stopping import StoppingLimits

PLANNED_AFTER_STEPS = 100  # or after the warm-up, if it is shorter: until its end, no rate depends on the last step
MEASURED_STEPS = 10  # fewer say little of those to come: the first compiles, and loaders have batches ahead
USED_SHARE = 0.95  # of the time that is left; the rest is for checkpoints, diagnostics, videos and a busier machine
VALIDATION_PASSES = 5  # of a clip: with the right, another and no caption; of a trained one, with the first two


class StepPlanner:
    """Decides, once and early, how many steps fit into MAX_MINUTES.

    It decides before any rate depends on the last step. So a run with that number as MAX_STEPS is the same run. Nothing
    is planned where the steps of MAX_STEPS or NUM_EPOCHS seem to fit, nor for schedules that need no end.
    """

    def __init__(
        self,
        config: Config,
        limits: StoppingLimits,
        start_step: int,
        estimate: TrainingEstimate,
        sample_passes: int,
        clips_a_step: float,
    ) -> None:
        """Decide when to plan.

        Args:
            config: of the run.
            limits: of the run.
            start_step: the last step that earlier launches did.
            estimate: from before the first step, for what cannot be measured.
            sample_passes: forward passes of single clips in a round of samples.
            clips_a_step: of this process, on average.
        """
        self._config = config
        self._limits = limits
        self._estimate = estimate
        self._sample_passes = sample_passes
        self._clips_a_step = clips_a_step
        early = min(config.LR_WARMUP_STEPS, PLANNED_AFTER_STEPS)
        needs_plan = (
            config.LR_SCHEDULE in ENDING_SCHEDULES
            and limits.max_minutes is not None
            and limits.planned_steps is None
            # A launch that has got so far without a plan found that all steps fit.
            and (start_step < max(early, 1) or limits.total_steps is None)
        )
        self.after_step = max(early, start_step) if needs_plan else None
        """The step after which to plan; None for never."""
        self._from_step = start_step + (max(early, start_step) - start_step) // 2
        self._began = self._seconds = 0.0

    def needs_results(self, step: int) -> bool:
        """Return whether the device has to be done with `step` before `on_step` is called for it."""
        return self.after_step is not None and step in (self._from_step, self.after_step)

    def on_step(self, step: int) -> None:
        """Call after every step, before anything else is done after it."""
        if self.needs_results(step):
            self._began, self._seconds = time.perf_counter(), time.perf_counter() - self._began

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Leave the ``with`` block out of the time of the steps, because a plan counts it by itself."""
        begun = time.perf_counter()
        yield
        self._began += time.perf_counter() - begun

    def plan(self, seconds_left: float) -> int | None:
        """Return the last step that leaves time for the closing round, or None if MAX_MINUTES does not end the run.

        `seconds_left`: of MAX_MINUTES, now, after step `after_step`.
        """
        step, total, config = self.after_step, self._limits.total_steps, self._config
        assert step is not None
        measured = step - self._from_step
        step_seconds = self._seconds / measured if measured >= MEASURED_STEPS else self._estimate.step_seconds
        # Validation and samples are not compiled, and neither is what the estimate measured.
        eager = self._estimate.step_seconds if config.COMPILE_MODEL else step_seconds
        clip_pass = eager / (FORWARD_AND_BACKWARD * self._clips_a_step)
        rounds = (
            (config.VALIDATE_EVERY_STEPS, clip_pass * VALIDATION_PASSES * config.VALIDATION_CLIPS),
            (config.SAMPLE_EVERY_STEPS, clip_pass * self._sample_passes),
        )

        def seconds_until(last: int) -> float:
            between = sum(((last - 1) // every - max(0, step - 1) // every) * seconds for every, seconds in rounds)
            return (last - step) * step_seconds + between

        if total is not None and seconds_until(total) <= seconds_left:
            return None
        usable = USED_SHARE * seconds_left - sum(seconds for _, seconds in rounds)
        longest = step + 1 + max(0, int(usable / step_seconds))
        fitting = bisect.bisect_right(range(step + 1, longest + 1), usable, key=seconds_until)
        return step + max(1, fitting)
