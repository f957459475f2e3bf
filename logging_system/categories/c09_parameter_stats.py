"""09_Parameter_Stats: the weights of every layer, and how fast they move."""

import math

import torch
from torch import Tensor

from config import Config
from logging_system.cadence import Due
from logging_system.category import DIAGNOSTICS, Category, CategoryContext, Tag
from logging_system.records import StepRecord
from logging_system.statistics.tensors import merge_statistics, tensor_statistics

TAGS = {
    "{layer}/Mean": Tag("Mean of the layer's weights and biases together, finite ones only."),
    "{layer}/Std": Tag("Standard deviation of the layer's weights and biases together."),
    "{layer}/Norm": Tag(
        "Euclidean norm of the layer's weights and biases. Endless growth: more weight decay or a lower learning rate."
    ),
    "{layer}/Non_Finite": Tag("Number of NaN or infinite weights. Anything above 0 is a defect."),
    "{layer}/Update_To_Weight_Ratio": Tag(
        "Norm of this step's change divided by the norm before it. About 0.001 is healthy; 0.1 is a learning rate too "
        "high, 0.000001 a layer that hardly learns.",
        absent_when="the layer was all 0 before the step, or nobody knew before it that the run would end there",
    ),
}


class ParameterStats(Category):
    """Statistics of the weights after the step, and of the step itself through a copy taken before it."""

    name = "09_Parameter_Stats"
    cadence = DIAGNOSTICS
    tags = TAGS

    @staticmethod
    def is_enabled(config: Config) -> bool:
        return config.ENABLE_PARAMETER_TRACKING

    def __init__(self, context: CategoryContext) -> None:
        super().__init__(context)
        self._before: tuple[int, list[Tensor]] | None = None  # the step that follows, and the weights before it

    def before_step(self, step: int) -> None:
        self._before = (step, [parameter.clone() for parameter in self._parameters()])

    def on_step(self, record: StepRecord, due: Due) -> None:
        before, self._before = self._before, None
        if not due.diagnostics:
            return
        parameters = self._parameters()
        extra: list[Tensor] = []
        if before is not None and before[0] == record.step:
            weights = before[1]
            extra = list(torch._foreach_norm(weights))
            torch._foreach_sub_(weights, parameters)  # from here on the copies hold the changes
            extra += torch._foreach_norm(weights)
        statistics, norms = tensor_statistics(parameters, extra)
        start = 0
        for layer in self.layer_plan.layers:
            stop = start + len(layer.parameters)
            merged = merge_statistics(statistics[start:stop])
            values: dict[str, float] = {
                "{layer}/Mean": merged.mean,
                "{layer}/Std": merged.std,
                "{layer}/Norm": merged.norm,
                "{layer}/Non_Finite": merged.non_finite,
            }
            if norms:
                weight = math.hypot(*norms[start:stop])
                change = math.hypot(*norms[len(parameters) + start : len(parameters) + stop])
                if weight > 0:
                    values["{layer}/Update_To_Weight_Ratio"] = change / weight
            self.scalars(values, record.step, layer=layer.name)
            start = stop

    def _parameters(self) -> list[Tensor]:
        return [parameter.detach() for layer in self.layer_plan.layers for parameter in layer.parameters]
