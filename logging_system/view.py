"""Read-only access to the trainer, for categories. The trainer implements this protocol; nobody here changes it."""

from collections.abc import Mapping
from typing import Protocol

from torch import nn

from logging_system.records import GeneratedSamples, NoiseVisualisation, RunInformation


class TrainingView(Protocol):
    """What a category may look at while it handles a record."""

    @property
    def run(self) -> RunInformation: ...

    @property
    def model(self) -> nn.Module:
        """The network being trained; `.grad` of its parameters holds the clipped gradients of the last step."""
        ...

    @property
    def ema_model(self) -> nn.Module: ...

    @property
    def total_steps(self) -> int | None:
        """Where the learning-rate plan ends; None when only MAX_MINUTES ends the run."""
        ...

    def learning_rate_at(self, step: int) -> float | None:
        """The planned rate of an optimizer step; None for schedules that follow the validation loss."""
        ...

    def scheduler_state(self) -> Mapping[str, float]:
        """The schedule's own numbers, such as last_epoch, best, num_bad_epochs."""
        ...

    def generate_samples(self) -> GeneratedSamples:
        """Sample the fixed prompts. Expensive; from a private random stream, so training is not disturbed.

        Raises:
            Interrupted: a signal asks for the end; what was begun is given up.
        """
        ...

    def visualise_noise(self) -> NoiseVisualisation:
        """Noise and denoise one fixed validation clip. Expensive; from a private random stream.

        Raises:
            Interrupted: a signal asks for the end.
        """
        ...
