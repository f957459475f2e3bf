"""10_Parameter_Histograms: the distribution of every layer's weights."""

from logging_system.category import Category, Due
from logging_system.files.writer import Writer
from logging_system.records import EpochRecord, StepRecord
from logging_system.statistics.histogram import layer_histograms
from logging_system.statistics.layers import Layer, plan_layers
from logging_system.tags import Tag
from logging_system.view import TrainingView

TAGS = {
    "10_Parameter_Histograms/{layer}": Tag(
        "Distribution of the layer's weights and biases together, finite ones only. Widening slowly is normal; a "
        "single spike is a dead layer, long tails announce instability."
    ),
}


class ParameterHistograms(Category):
    """At diagnostics and at the end of epochs; once when both fall on one step."""

    name = "10_Parameter_Histograms"

    def __init__(self, maximum_layers: int, bins: int) -> None:
        self._maximum_layers = maximum_layers
        self._bins = bins
        self._layers: tuple[Layer, ...] = ()
        self._last_step: int | None = None

    def on_start(self, view: TrainingView, writer: Writer) -> None:
        self._layers = plan_layers(view.model, self._maximum_layers).layers

    def on_step(self, record: StepRecord, due: Due, view: TrainingView, writer: Writer) -> None:
        if due.diagnostics:
            self._write(record.step, writer)

    def on_epoch(self, record: EpochRecord, view: TrainingView, writer: Writer) -> None:
        self._write(record.step, writer)

    def _write(self, step: int, writer: Writer) -> None:
        if step == self._last_step:
            return
        self._last_step = step
        tag = "10_Parameter_Histograms/{layer}"
        weights = [[parameter.detach() for parameter in layer.parameters] for layer in self._layers]
        for layer, histogram in zip(self._layers, layer_histograms(weights, self._bins), strict=True):
            writer.histogram(tag.format(layer=layer.name), histogram, step, TAGS[tag].description)
