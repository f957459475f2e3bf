"""11_Gradient_Stats: does the gradient reach every layer, and how often is it clipped?"""

import math
from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy
import torch
from torch import Tensor

from logging_system.cadence import Due
from logging_system.category import DIAGNOSTICS, Category, CategoryContext, Tag
from logging_system.files.writer import report_on_console
from logging_system.pictures.charts import bar_chart
from logging_system.records import StepRecord
from logging_system.statistics.layers import Layer
from logging_system.statistics.moments import DeviceMeans
from logging_system.statistics.tensors import (
    TensorStatistics,
    layer_histograms,
    merge_statistics,
    scaled,
    tensor_statistics,
)

NO_GRADIENT = "no parameter had a gradient"
OVERFLOW = "float16 gradients overflowed at every diagnostics"

TAGS = {
    "Total_Gradient_Norm": Tag("Euclidean norm of the whole gradient of this step before clipping.", OVERFLOW),
    "Average_Gradient_Norm": Tag("Mean of the layers' gradient norms of this step, before clipping.", NO_GRADIENT),
    "Max_Gradient_Norm": Tag(
        "Largest of the layers' gradient norms of this step, before clipping. Close to Total_Gradient_Norm: one layer "
        "dominates.",
        NO_GRADIENT,
    ),
    "Clip_Percent": Tag(
        "Share of steps since the last point whose gradient was clipped, in percent; steps with a non-finite gradient "
        "left out. Near 100 after warm-up: the learning rate or the data is rough.",
        absent_when="no step since the last point had a finite gradient",
    ),
    "Non_Finite": Tag(
        "Number of NaN or infinite gradient values of this step. Above 0 the update was skipped. A step whose loss "
        "scale was too large (01_Training/Overflow_Steps) has no point.",
        NO_GRADIENT,
    ),
    "Zero_Percent": Tag(
        "Share of gradient values of this step that are exactly 0, in percent. High: dead units or unused parameters.",
        NO_GRADIENT,
    ),
    "{layer}/Norm": Tag(
        "Euclidean norm of the layer's gradient before clipping, finite values only.", "the layer has no gradient"
    ),
    "{layer}/Mean": Tag("Mean of the layer's gradient before clipping.", "the layer has no gradient"),
    "{layer}/Std": Tag("Standard deviation of the layer's gradient before clipping.", "the layer has no gradient"),
    "{layer}/Non_Finite": Tag(
        "Number of NaN or infinite gradient values in the layer: where a defect starts.", "there are none"
    ),
    "{layer}/Histogram": Tag(
        "Distribution of the layer's gradient before clipping, finite values only.",
        absent_when="ENABLE_GRADIENT_HISTOGRAMS is off, or the layer has no gradient",
    ),
    "Gradient_Flow": Tag(
        "Gradient norm of every layer of this step, from the network's first to its last, before clipping, on a "
        "logarithmic scale. A slope over many powers of ten is a vanishing or exploding gradient.",
        NO_GRADIENT,
    ),
}


class GradientStats(Category):
    """`.grad` holds clipped gradients; figures are divided by the share that clipping left of them.

    A step whose float16 gradients overflowed has only figures of the steps before it.
    """

    name = "11_Gradient_Stats"
    cadence = DIAGNOSTICS
    tags = TAGS

    def __init__(self, context: CategoryContext) -> None:
        super().__init__(context)
        self._clipping = DeviceMeans()

    def on_start(self) -> None:
        explanation = self.layer_plan.explanation(self.config.PARAMETER_TRACKING_MAX_LAYERS)
        if explanation is not None:
            report_on_console(explanation)

    def on_step(self, record: StepRecord, due: Due) -> None:
        norm = record.gradient_norm
        clipped = (record.gradient_norm_clipped < norm).float()
        self._clipping.add_step({"clipped": torch.where(torch.isfinite(norm), clipped, math.nan)})
        if due.diagnostics:
            self._write(record)

    def _write(self, record: StepRecord) -> None:
        with_gradient = [layer for layer in self.layer_plan.layers if _gradients(layer)]
        gradients = [gradient for layer in with_gradient for gradient in _gradients(layer)]
        scalars = (record.gradient_norm, record.gradient_norm_clipped, record.overflowed)
        statistics, (norm, norm_clipped, overflowed) = tensor_statistics(gradients, scalars)
        clipping = self._clipping.collect()["clipped"]
        if clipping.count:
            self.scalars({"Clip_Percent": 100 * clipping.mean}, record.step)
        if overflowed:  # what is left of these gradients says something of the loss scale and nothing of the network
            return
        # What clipped gradients are multiplied by to undo clipping; 1 where that cannot be known.
        is_known = math.isfinite(norm) and math.isfinite(norm_clipped) and norm_clipped > 0
        factor = norm / norm_clipped if is_known else 1.0
        layers: dict[str, TensorStatistics] = {}  # by name, before clipping
        start = 0
        for layer in with_gradient:
            stop = start + len(_gradients(layer))
            merged = merge_statistics(statistics[start:stop])
            mean, std, norm_of_layer = merged.mean * factor, merged.std * factor, merged.norm * factor
            layers[layer.name] = replace(merged, mean=mean, std=std, norm=norm_of_layer)
            start = stop
        self._write_totals(record.step, norm, layers.values())
        for name, layer_statistics in layers.items():
            values = {
                "{layer}/Norm": layer_statistics.norm,
                "{layer}/Mean": layer_statistics.mean,
                "{layer}/Std": layer_statistics.std,
            }
            if layer_statistics.non_finite:
                values["{layer}/Non_Finite"] = layer_statistics.non_finite
            self.scalars(values, record.step, layer=name)
        if layers:
            self._draw(record.step, layers)
        if self.config.ENABLE_GRADIENT_HISTOGRAMS:
            self._write_histograms(record.step, with_gradient, factor)

    def _write_totals(self, step: int, norm: float, layers: Collection[TensorStatistics]) -> None:
        values = {"Total_Gradient_Norm": norm}
        if layers:
            layer_norms = [layer.norm for layer in layers]
            values["Average_Gradient_Norm"] = float(numpy.mean(layer_norms))
            values["Max_Gradient_Norm"] = float(numpy.max(layer_norms))  # NaN if any is NaN
            values["Non_Finite"] = sum(layer.non_finite for layer in layers)
            count = sum(layer.count + layer.non_finite for layer in layers)
            values["Zero_Percent"] = 100 * sum(layer.zeros for layer in layers) / count
        self.scalars(values, step)

    def _write_histograms(self, step: int, layers: list[Layer], factor: float) -> None:
        histograms = layer_histograms([_gradients(layer) for layer in layers], self.config.HISTOGRAM_BINS)
        for layer, histogram in zip(layers, histograms, strict=True):
            self.write(self.writer.histogram, "{layer}/Histogram", scaled(histogram, factor), step, layer=layer.name)

    def _draw(self, step: int, layers: Mapping[str, TensorStatistics]) -> None:
        picture = bar_chart(
            list(layers),
            numpy.array([layer.norm for layer in layers.values()]),
            title=f"Gradient norm by depth, step {step}",
            y_label="norm before clipping (logarithmic)",
        )
        self.write(self.writer.image, "Gradient_Flow", picture, step)


def _gradients(layer: Layer) -> list[Tensor]:
    return [parameter.grad for parameter in layer.parameters if parameter.grad is not None]
