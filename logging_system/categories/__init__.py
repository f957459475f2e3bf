"""The fifteen categories, in the order in which they are told of a step."""

from logging_system.categories.c01_training import Training
from logging_system.categories.c02_loss_components import LossComponents
from logging_system.categories.c03_epoch_summary import EpochSummary
from logging_system.categories.c04_learning_rate import LearningRate
from logging_system.categories.c05_performance import Performance
from logging_system.categories.c06_diffusion import Diffusion
from logging_system.categories.c07_noise_analysis import NoiseAnalysis
from logging_system.categories.c08_model_architecture import ModelArchitecture
from logging_system.categories.c09_parameter_stats import ParameterStats
from logging_system.categories.c10_parameter_histograms import ParameterHistograms
from logging_system.categories.c11_gradient_stats import GradientStats
from logging_system.categories.c12_generated_samples import GeneratedSamplesCategory
from logging_system.categories.c13_noise_visualization import NoiseVisualization
from logging_system.categories.c14_system import System
from logging_system.categories.c15_configuration import Configuration
from logging_system.category import Category

CATEGORIES: tuple[type[Category], ...] = (
    Training,
    LossComponents,
    EpochSummary,
    LearningRate,
    Performance,
    Diffusion,
    NoiseAnalysis,
    ModelArchitecture,
    ParameterStats,
    ParameterHistograms,
    GradientStats,
    GeneratedSamplesCategory,
    NoiseVisualization,
    System,
    Configuration,
)
