"""11_Gradient_Stats: does the gradient reach every layer, and how often is it clipped?"""

import math
from dataclasses import dataclass, replace

import numpy
import torch
from torch import Tensor

from logging_system.category import Category, Due
from logging_system.console import report
from logging_system.files.writer import Writer
from logging_system.pictures.charts import bar_chart
from logging_system.records import StepRecord
from logging_system.statistics.histogram import layer_histograms, scaled
from logging_system.statistics.layers import Layer, plan_layers
from logging_system.statistics.moments import StepMoments
from logging_system.statistics.tensors import TensorStatistics, merge_statistics, tensor_statistics
from logging_system.tags import Tag, write_scalars
from logging_system.view import TrainingView

NO_GRADIENT = "no parameter had a gradient"
OVERFLOW = "float16 gradients overflowed at every diagnostics"

TAGS = {
    "11_Gradient_Stats/Total_Gradient_Norm": Tag(
        "Euclidean norm of the whole gradient of this step before clipping.", OVERFLOW
    ),
    "11_Gradient_Stats/Average_Gradient_Norm": Tag(
        "Mean of the layers' gradient norms of this step, before clipping.", NO_GRADIENT
    ),
    "11_Gradient_Stats/Max_Gradient_Norm": Tag(
        "Largest of the layers' gradient norms of this step, before clipping. Close to Total_Gradient_Norm: one layer "
        "dominates.",
        NO_GRADIENT,
    ),
    "11_Gradient_Stats/Clip_Percent": Tag(
        "Share of steps since the last point whose gradient was clipped, in percent; steps with a non-finite gradient "
        "left out. Near 100 after warm-up: the learning rate or the data is rough.",
        absent_when="no step since the last point had a finite gradient",
    ),
    "11_Gradient_Stats/Non_Finite": Tag(
        "Number of NaN or infinite gradient values of this step. Above 0 the update was skipped. A step whose loss "
        "scale was too large (01_Training/Overflow_Steps) has no point.",
        NO_GRADIENT,
    ),
    "11_Gradient_Stats/Zero_Percent": Tag(
        "Share of gradient values of this step that are exactly 0, in percent. High: dead units or unused parameters.",
        NO_GRADIENT,
    ),
    "11_Gradient_Stats/{layer}/Norm": Tag(
        "Euclidean norm of the layer's gradient before clipping, finite values only.", "the layer has no gradient"
    ),
    "11_Gradient_Stats/{layer}/Mean": Tag("Mean of the layer's gradient before clipping.", "the layer has no gradient"),
    "11_Gradient_Stats/{layer}/Std": Tag(
        "Standard deviation of the layer's gradient before clipping.", "the layer has no gradient"
    ),
    "11_Gradient_Stats/{layer}/Non_Finite": Tag(
        "Number of NaN or infinite gradient values in the layer: where a defect starts.", "there are none"
    ),
    "11_Gradient_Stats/{layer}/Histogram": Tag(
        "Distribution of the layer's gradient before clipping, finite values only.",
        absent_when="ENABLE_GRADIENT_HISTOGRAMS is off, or the layer has no gradient",
    ),
    "11_Gradient_Stats/Gradient_Flow": Tag(
        "Gradient norm of every layer of this step, from the network's first to its last, before clipping, on a "
        "logarithmic scale. A slope over many powers of ten is a vanishing or exploding gradient.",
        NO_GRADIENT,
    ),
}


@dataclass(frozen=True)
class LayerGradient:
    """The gradient of one layer before clipping."""

    layer: Layer
    statistics: TensorStatistics


class GradientStats(Category):
    """`.grad` holds clipped gradients; figures are divided by the share that clipping left of them.

    A step whose float16 gradients overflowed has only figures of the steps before it.
    """

    name = "11_Gradient_Stats"

    def __init__(self, maximum_layers: int, histogram_bins: int | None) -> None:
        """`histogram_bins` None leaves the histograms out."""
        self._maximum_layers = maximum_layers
        self._histogram_bins = histogram_bins
        self._layers: tuple[Layer, ...] = ()
        self._clipping = StepMoments()

    def on_start(self, view: TrainingView, writer: Writer) -> None:
        plan = plan_layers(view.model, self._maximum_layers)
        self._layers = plan.layers
        explanation = plan.explanation(self._maximum_layers)
        if explanation is not None:
            report(explanation)

    def on_step(self, record: StepRecord, due: Due, view: TrainingView, writer: Writer) -> None:
        norm = record.gradient_norm
        clipped = (record.gradient_norm_clipped < norm).float()
        self._clipping.add({"clipped": torch.where(torch.isfinite(norm), clipped, math.nan)})
        if due.diagnostics:
            self._write(record, writer)

    def _write(self, record: StepRecord, writer: Writer) -> None:
        with_gradient = [layer for layer in self._layers if _gradients(layer)]
        gradients = [gradient for layer in with_gradient for gradient in _gradients(layer)]
        scalars = (record.gradient_norm, record.gradient_norm_clipped, record.overflowed)
        statistics, (norm, norm_clipped, overflowed) = tensor_statistics(gradients, scalars)
        self._write_clipping(record.step, writer)
        if overflowed:  # what is left of these gradients says something of the loss scale and nothing of the network
            return
        factor = unclipping_factor(norm, norm_clipped)
        layers, start = [], 0
        for layer in with_gradient:
            stop = start + len(_gradients(layer))
            layers.append(LayerGradient(layer, _times(merge_statistics(statistics[start:stop]), factor)))
            start = stop
        self._write_totals(record.step, norm, layers, writer)
        self._write_layers(record.step, layers, writer)
        if layers:
            self._draw(record.step, layers, writer)
        if self._histogram_bins is not None:
            self._write_histograms(record.step, with_gradient, factor, self._histogram_bins, writer)

    def _write_clipping(self, step: int, writer: Writer) -> None:
        clipping = self._clipping.collect()["clipped"]
        if clipping.count:
            write_scalars(writer, TAGS, {"11_Gradient_Stats/Clip_Percent": 100 * clipping.mean}, step)

    def _write_totals(self, step: int, norm: float, layers: list[LayerGradient], writer: Writer) -> None:
        values = {"11_Gradient_Stats/Total_Gradient_Norm": norm}
        if layers:
            layer_norms = [entry.statistics.norm for entry in layers]
            count = sum(entry.statistics.count + entry.statistics.non_finite for entry in layers)
            values["11_Gradient_Stats/Average_Gradient_Norm"] = float(numpy.mean(layer_norms))
            values["11_Gradient_Stats/Max_Gradient_Norm"] = float(numpy.max(layer_norms))  # NaN if any is NaN
            values["11_Gradient_Stats/Non_Finite"] = sum(entry.statistics.non_finite for entry in layers)
            values["11_Gradient_Stats/Zero_Percent"] = 100 * sum(entry.statistics.zeros for entry in layers) / count
        write_scalars(writer, TAGS, values, step)

    def _write_layers(self, step: int, layers: list[LayerGradient], writer: Writer) -> None:
        for entry in layers:
            values: dict[str, float] = {
                "11_Gradient_Stats/{layer}/Norm": entry.statistics.norm,
                "11_Gradient_Stats/{layer}/Mean": entry.statistics.mean,
                "11_Gradient_Stats/{layer}/Std": entry.statistics.std,
            }
            if entry.statistics.non_finite:
                values["11_Gradient_Stats/{layer}/Non_Finite"] = entry.statistics.non_finite
            write_scalars(writer, TAGS, values, step, layer=entry.layer.name)

    def _write_histograms(self, step: int, layers: list[Layer], factor: float, bins: int, writer: Writer) -> None:
        tag = "11_Gradient_Stats/{layer}/Histogram"
        histograms = layer_histograms([_gradients(layer) for layer in layers], bins)
        for layer, histogram in zip(layers, histograms, strict=True):
            writer.histogram(tag.format(layer=layer.name), scaled(histogram, factor), step, TAGS[tag].description)

    def _draw(self, step: int, layers: list[LayerGradient], writer: Writer) -> None:
        picture = bar_chart(
            [entry.layer.name for entry in layers],
            numpy.array([entry.statistics.norm for entry in layers]),
            title=f"Gradient norm by depth, step {step}",
            y_label="norm before clipping (logarithmic)",
        )
        tag = "11_Gradient_Stats/Gradient_Flow"
        writer.image(tag, picture, step, TAGS[tag].description)


def unclipping_factor(norm: float, norm_clipped: float) -> float:
    """Return what clipped gradients are multiplied by to undo clipping; 1 where that cannot be known."""
    if math.isfinite(norm) and math.isfinite(norm_clipped) and norm_clipped > 0:
        return norm / norm_clipped
    return 1.0


def _gradients(layer: Layer) -> list[Tensor]:
    return [parameter.grad for parameter in layer.parameters if parameter.grad is not None]


def _times(statistics: TensorStatistics, factor: float) -> TensorStatistics:
    return replace(
        statistics,
        mean=statistics.mean * factor,
        std=statistics.std * factor,
        norm=statistics.norm * factor,
    )
