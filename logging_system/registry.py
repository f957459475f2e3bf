"""The table of categories: each one's switch, cadence and tags, and how it is built.

The dispatcher reads nothing else. What each tag means, and why it may be absent, stands in the category's own module.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from logging_system.cadence import LoggingSettings
from logging_system.categories import (
    c01_training,
    c02_loss_components,
    c03_epoch_summary,
    c04_learning_rate,
    c05_performance,
    c06_diffusion,
    c07_noise_analysis,
    c08_model_architecture,
    c09_parameter_stats,
    c10_parameter_histograms,
    c11_gradient_stats,
    c12_generated_samples,
    c13_noise_visualization,
    c14_system,
    c15_configuration,
)
from logging_system.category import Category
from logging_system.clock import LoggingClock
from logging_system.tags import Tag


@dataclass(frozen=True)
class CategoryContext:
    """What a category may be built from."""

    settings: LoggingSettings
    clock: LoggingClock
    run_folder: Path


@dataclass(frozen=True)
class CategorySpec:
    """One row of the table: the category's name, its switch, its cadence and every tag it may write.

    ``tags`` maps each tag, or pattern of tags, to its description (see :mod:`logging_system.tags`).
    """

    name: str  # the TensorBoard group, such as "01_Training"
    build: Callable[[CategoryContext], Category]
    is_enabled: Callable[[LoggingSettings], bool] = lambda settings: True
    makes_samples: bool = False  # True: its time at sampling steps is sampling, not ordinary logging
    cadence: str = ""  # for people: when its points appear
    tags: Mapping[str, Tag] = field(default_factory=dict)


SCALARS = "every LOG_EVERY_STEPS steps, and the last step"


VALIDATIONS = f"{SCALARS}; every validation"


DIAGNOSTICS = "every DIAGNOSTIC_LOG_EVERY_STEPS steps, the first and the last step of a launch"


SAMPLES = "every SAMPLE_EVERY_STEPS steps, and the last step"


EPOCHS = "every LOG_EVERY_EPOCHS epochs, and the part of one with which a run ends; the x axis is the epoch"


START = "the start of a launch"


def _gradient_stats(context: CategoryContext) -> c11_gradient_stats.GradientStats:
    settings = context.settings
    bins = settings.histogram_bins if settings.enable_gradient_histograms else None
    return c11_gradient_stats.GradientStats(settings.parameter_tracking_max_layers, bins)


CATEGORIES: tuple[CategorySpec, ...] = (
    CategorySpec(
        name="01_Training",
        build=lambda context: c01_training.Training(),
        cadence=VALIDATIONS,
        tags=c01_training.TAGS,
    ),
    CategorySpec(
        name="02_Loss_Components",
        build=lambda context: c02_loss_components.LossComponents(),
        cadence=VALIDATIONS,
        tags=c02_loss_components.TAGS,
    ),
    CategorySpec(
        name="03_Epoch_Summary",
        build=lambda context: c03_epoch_summary.EpochSummary(),
        cadence=EPOCHS,
        tags=c03_epoch_summary.TAGS,
    ),
    CategorySpec(
        name="04_Learning_Rate",
        build=lambda context: c04_learning_rate.LearningRate(),
        cadence=f"{SCALARS}; the picture {DIAGNOSTICS}",
        tags=c04_learning_rate.TAGS,
    ),
    CategorySpec(
        name="05_Performance",
        build=lambda context: c05_performance.Performance(context.clock),
        is_enabled=lambda settings: settings.enable_performance_profiling,
        cadence=VALIDATIONS,
        tags=c05_performance.TAGS,
    ),
    CategorySpec(
        name="06_Diffusion",
        build=lambda context: c06_diffusion.Diffusion(context.settings.histogram_bins),
        cadence=f"{SCALARS}; histogram and picture {DIAGNOSTICS}",
        tags=c06_diffusion.TAGS,
    ),
    CategorySpec(
        name="07_Noise_Analysis",
        build=lambda context: c07_noise_analysis.NoiseAnalysis(context.settings.histogram_bins),
        cadence=DIAGNOSTICS,
        tags=c07_noise_analysis.TAGS,
    ),
    CategorySpec(
        name="08_Model_Architecture",
        build=lambda context: c08_model_architecture.ModelArchitecture(context.settings.parameter_tracking_max_layers),
        cadence=START,
        tags=c08_model_architecture.TAGS,
    ),
    CategorySpec(
        name="09_Parameter_Stats",
        build=lambda context: c09_parameter_stats.ParameterStats(context.settings.parameter_tracking_max_layers),
        is_enabled=lambda settings: settings.enable_parameter_tracking,
        cadence=DIAGNOSTICS,
        tags=c09_parameter_stats.TAGS,
    ),
    CategorySpec(
        name="10_Parameter_Histograms",
        build=lambda context: c10_parameter_histograms.ParameterHistograms(
            context.settings.parameter_tracking_max_layers, context.settings.histogram_bins
        ),
        is_enabled=lambda settings: settings.enable_parameter_tracking,
        cadence=f"{DIAGNOSTICS}; the end of every LOG_EVERY_EPOCHS-th epoch",
        tags=c10_parameter_histograms.TAGS,
    ),
    CategorySpec(
        name="11_Gradient_Stats",
        build=_gradient_stats,
        cadence=DIAGNOSTICS,
        tags=c11_gradient_stats.TAGS,
    ),
    CategorySpec(
        name="12_Generated_Samples",
        build=lambda context: c12_generated_samples.GeneratedSamplesCategory(),
        is_enabled=lambda settings: settings.enable_video_logging,
        makes_samples=True,
        cadence=SAMPLES,
        tags=c12_generated_samples.TAGS,
    ),
    CategorySpec(
        name="13_Noise_Visualization",
        build=lambda context: c13_noise_visualization.NoiseVisualization(),
        is_enabled=lambda settings: settings.enable_noise_visualization,
        makes_samples=True,
        cadence=SAMPLES,
        tags=c13_noise_visualization.TAGS,
    ),
    CategorySpec(
        name="14_System",
        build=lambda context: c14_system.System(context.run_folder, context.settings.system_sample_seconds),
        cadence=f"{SCALARS}, when the sampler thread has new readings",
        tags=c14_system.TAGS,
    ),
    CategorySpec(
        name="15_Configuration",
        build=lambda context: c15_configuration.Configuration(),
        cadence=f"{START}; the run doctor {DIAGNOSTICS}, and the end of every launch",
        tags=c15_configuration.TAGS,
    ),
)
