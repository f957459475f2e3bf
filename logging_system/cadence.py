"""The one place that decides when something is due."""

from dataclasses import dataclass

from logging_system.category import Due


@dataclass(frozen=True)
class LoggingSettings:
    """The logging constants of a run, under lower-case names. Every number is at least 1."""

    log_every_steps: int  # ordinary scalars
    log_every_epochs: int  # epoch summaries
    diagnostic_log_every_steps: int  # per-layer statistics, histograms, noise analysis
    tensorboard_flush_every_steps: int  # how often what was logged reaches the files
    sample_every_steps: int  # generated videos and noise visualisation
    enable_gradient_histograms: bool
    enable_parameter_tracking: bool
    enable_video_logging: bool
    enable_noise_visualization: bool
    enable_performance_profiling: bool
    system_sample_seconds: float  # period of the system sampler thread, above 0
    parameter_tracking_max_layers: int
    histogram_bins: int  # at most 64


@dataclass(frozen=True)
class Cadence:
    """How often each kind of logging happens, in optimizer steps or epochs; every number is at least 1.

    The last step brings everything and the first step of a process brings the diagnostics, so that a run of a single
    step already fills the whole dashboard, however long the cadences are.

    Raises:
        ValueError: a number is below 1.
    """

    scalars_every: int
    diagnostics_every: int
    samples_every: int
    flush_every: int
    epochs_every: int

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"Cadence.{name} is {value}; it must be at least 1")

    def due(self, step: int, *, is_first: bool, is_last: bool) -> Due:
        """Say what optimizer step ``step`` (1 for the first of a run) brings."""
        return Due(
            scalars=is_last or step % self.scalars_every == 0,
            diagnostics=is_first or is_last or step % self.diagnostics_every == 0,
        )

    def samples_due(self, step: int, *, is_last: bool) -> bool:
        """Say whether videos are made after ``step``."""
        return is_last or step % self.samples_every == 0

    def flush_due(self, step: int, *, is_first: bool, is_last: bool) -> bool:
        """Say whether the files are flushed after ``step``. The first step is, so that the dashboard is soon alive."""
        return is_first or is_last or step % self.flush_every == 0

    def epoch_due(self, epoch: int, *, is_last: bool) -> bool:
        """Say whether the end of ``epoch`` (1 for the first) brings a summary."""
        return is_last or epoch % self.epochs_every == 0


def cadence_of(settings: LoggingSettings) -> Cadence:
    """Return the cadence that the logging constants ask for."""
    return Cadence(
        scalars_every=settings.log_every_steps,
        diagnostics_every=settings.diagnostic_log_every_steps,
        samples_every=settings.sample_every_steps,
        flush_every=settings.tensorboard_flush_every_steps,
        epochs_every=settings.log_every_epochs,
    )
