"""What the logging system is told about how often and how much to log."""

from dataclasses import dataclass


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
