"""What categories may look at (implements logging_system.view.TrainingView)."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

from torch import nn

from logging_system.records import GeneratedSamples, NoiseVisualisation, RunInformation
from training.learning_rate import LearningRateSchedule
from training.showcase import Showcase


@dataclass(frozen=True)
class TrainerView:
    """Read-only access to the trainer's parts."""

    run: RunInformation
    model: nn.Module
    ema_model: nn.Module
    schedule: LearningRateSchedule
    showcase: Showcase
    total_steps: int | None
    interruptible: Callable[[], AbstractContextManager[None]]  # in which a signal gives up what takes long

    def learning_rate_at(self, step: int) -> float | None:
        return self.schedule.planned_rate(step)

    def scheduler_state(self) -> Mapping[str, float]:
        return self.schedule.state()

    def generate_samples(self) -> GeneratedSamples:
        with self.interruptible():
            return self.showcase.generate(self.model, self.ema_model)

    def visualise_noise(self) -> NoiseVisualisation:
        with self.interruptible():
            return self.showcase.visualise_noise(self.ema_model)
