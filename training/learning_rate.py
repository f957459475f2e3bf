"""The learning rate: a pure function of the step, except for `plateau`, which follows the validation loss."""

import math
from collections.abc import Mapping

from config import Config
from training.stopping import StoppingLimits

ENDING_SCHEDULES = ("cosine", "polynomial")
"""Values of LR_SCHEDULE that fall until the last step."""


class LearningRateSchedule:
    """The schedule that LEARNING_RATE and the LR_* constants describe. Only LR_SCHEDULE "plateau" adds state.

    The warm-up is linear, and may be longer than the run.
    """

    def __init__(self, config: Config, limits: StoppingLimits) -> None:
        """`limits` say, by the end of the warm-up, where ENDING_SCHEDULES reach their final rate."""
        self._config = config
        self._limits = limits
        self._is_plateau = config.LR_SCHEDULE == "plateau"
        self._reduction = 1.0
        self._best = math.inf
        self._bad_validations = 0
        self._step = 0

    def rate_for(self, step: int) -> float:
        """Return the rate for optimizer step `step`, with the plateau reductions so far, and remember the step."""
        self._step = step
        return self.rate_at(step) * self._reduction

    def planned_rate(self, step: int) -> float | None:
        """Return the rate of a future step, or None if it depends on validation losses or a plan yet to come."""
        if self._config.LR_SCHEDULE in ENDING_SCHEDULES and self._limits.total_steps is None:
            return None
        return None if self._is_plateau else self.rate_at(step)

    def rate_at(self, step: int) -> float:
        """Return the rate that optimizer step `step` (1 for the first) uses, before any plateau reduction."""
        warm = min(1.0, step / self._config.LR_WARMUP_STEPS) if self._config.LR_WARMUP_STEPS > 0 else 1.0
        return self._config.LEARNING_RATE * warm * self._decay_at(step)

    def on_validation(self, loss: float) -> None:
        """Let `plateau` reduce the rate after more than LR_PLATEAU_PATIENCE validations in a row without a new best."""
        if not self._is_plateau:
            return
        if loss < self._best:
            self._best, self._bad_validations = loss, 0
            return
        self._bad_validations += 1
        if self._bad_validations > self._config.LR_PLATEAU_PATIENCE:
            self._reduction = max(self._reduction * self._config.LR_PLATEAU_FACTOR, self._config.LR_FINAL_FRACTION)
            self._bad_validations = 0

    def state(self) -> dict[str, float]:
        """Return what a checkpoint keeps and the dashboard shows."""
        state: dict[str, float] = {"last_epoch": float(self._step)}  # the name that PyTorch's schedulers use
        if self._limits.planned_steps is not None:
            state["planned_steps"] = float(self._limits.planned_steps)
        if self._is_plateau:
            state |= {"num_bad_epochs": float(self._bad_validations), "reduction": self._reduction}
            if math.isfinite(self._best):
                state["best"] = self._best
        return state

    def load_state(self, state: Mapping[str, float]) -> None:
        """Restore what :meth:`state` returned, except for the plan, which is in the limits."""
        self._step = int(state["last_epoch"])
        if self._is_plateau and "reduction" in state:
            self._bad_validations = int(state["num_bad_epochs"])
            self._reduction = state["reduction"]
            self._best = state.get("best", math.inf)

    def _decay_at(self, step: int) -> float:
        since_warmup = max(0, step - self._config.LR_WARMUP_STEPS)
        match self._config.LR_SCHEDULE:
            case "constant" | "plateau":
                return 1.0
            case "cosine":
                return self._between(0.5 * (1 + math.cos(math.pi * self._progress(since_warmup))))
            case "polynomial":
                return self._between((1 - self._progress(since_warmup)) ** self._config.LR_POLYNOMIAL_POWER)
            case "warm_restarts":
                phase = (since_warmup % self._config.LR_RESTART_EVERY_STEPS) / self._config.LR_RESTART_EVERY_STEPS
                return self._between(0.5 * (1 + math.cos(math.pi * phase)))
            case "exponential":
                return max(self._config.LR_FINAL_FRACTION, self._config.LR_EXPONENTIAL_DECAY**since_warmup)

    def _progress(self, since_warmup: int) -> float:
        if since_warmup == 0:
            return 0.0
        assert self._limits.total_steps is not None  # `StepPlanner` has planned it by now
        return min(1.0, since_warmup / max(1, self._limits.total_steps - self._config.LR_WARMUP_STEPS))

    def _between(self, share: float) -> float:
        return self._config.LR_FINAL_FRACTION + (1 - self._config.LR_FINAL_FRACTION) * share
