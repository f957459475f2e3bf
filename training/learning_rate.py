"""The learning-rate plan: a pure function of the step, except for `plateau`, which follows the validation loss."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

LearningRateScheduleName = Literal["constant", "cosine", "plateau", "warm_restarts", "exponential", "polynomial"]


@dataclass(frozen=True)
class LearningRatePlan:
    """What the constants LEARNING_RATE and LR_* say.

    Attributes:
        total_steps: where cosine and polynomial reach their final rate; None only for plans that need no end.
        warmup_steps: linear warm-up; may be longer than the run.
        final_fraction: the share of the rate that decaying plans end at.
    """

    name: LearningRateScheduleName
    rate: float
    total_steps: int | None
    warmup_steps: int
    final_fraction: float
    restart_every_steps: int
    exponential_decay: float
    polynomial_power: float
    plateau_patience: int
    plateau_factor: float

    def rate_at(self, step: int) -> float:
        """Return the rate that optimizer step `step` (1 for the first) uses, before any plateau reduction."""
        warm = min(1.0, step / self.warmup_steps) if self.warmup_steps > 0 else 1.0
        return self.rate * warm * self._decay_at(step)

    def _decay_at(self, step: int) -> float:
        since_warmup = max(0, step - self.warmup_steps)
        match self.name:
            case "constant" | "plateau":
                return 1.0
            case "cosine":
                return self._between(0.5 * (1 + math.cos(math.pi * self._progress(since_warmup))))
            case "polynomial":
                return self._between((1 - self._progress(since_warmup)) ** self.polynomial_power)
            case "warm_restarts":
                phase = (since_warmup % self.restart_every_steps) / self.restart_every_steps
                return self._between(0.5 * (1 + math.cos(math.pi * phase)))
            case "exponential":
                return max(self.final_fraction, self.exponential_decay**since_warmup)

    def _progress(self, since_warmup: int) -> float:
        if self.total_steps is None:
            raise ValueError(f"LR_SCHEDULE {self.name!r} needs to know where the run ends: set MAX_STEPS or NUM_EPOCHS")
        return min(1.0, since_warmup / max(1, self.total_steps - self.warmup_steps))

    def _between(self, share: float) -> float:
        return self.final_fraction + (1 - self.final_fraction) * share


class LearningRateSchedule:
    """A plan, and the little state that `plateau` adds to it."""

    def __init__(self, plan: LearningRatePlan) -> None:
        self.plan = plan
        self._reduction = 1.0
        self._best = math.inf
        self._bad_validations = 0
        self._step = 0

    def rate_for(self, step: int) -> float:
        """Return the rate for optimizer step `step`, plateau reductions so far included, and remember the step."""
        self._step = step
        return self.plan.rate_at(step) * self._reduction

    def planned_rate(self, step: int) -> float | None:
        """Return the rate of a future step, or None where the plan depends on validation losses yet to come."""
        return None if self.plan.name == "plateau" else self.plan.rate_at(step)

    def on_validation(self, loss: float) -> None:
        """Let `plateau` see a validation loss: `plateau_patience` in a row without a new best reduce the rate."""
        if self.plan.name != "plateau":
            return
        if loss < self._best:
            self._best, self._bad_validations = loss, 0
            return
        self._bad_validations += 1
        if self._bad_validations > self.plan.plateau_patience:
            self._reduction = max(self._reduction * self.plan.plateau_factor, self.plan.final_fraction)
            self._bad_validations = 0

    def state(self) -> dict[str, float]:
        """Return what a checkpoint keeps and the dashboard shows."""
        state: dict[str, float] = {"last_epoch": float(self._step)}  # PyTorch schedulers call their step counter so
        if self.plan.name == "plateau":
            state |= {"num_bad_epochs": float(self._bad_validations), "reduction": self._reduction}
            if math.isfinite(self._best):
                state["best"] = self._best
        return state

    def load_state(self, state: Mapping[str, float]) -> None:
        """Restore what :meth:`state` returned."""
        self._step = int(state["last_epoch"])
        if self.plan.name == "plateau" and "reduction" in state:
            self._bad_validations = int(state["num_bad_epochs"])
            self._reduction = state["reduction"]
            self._best = state.get("best", math.inf)
