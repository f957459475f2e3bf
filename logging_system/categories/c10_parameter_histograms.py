"""10_Parameter_Histograms: the distribution of every layer's weights."""

from config import Config
from logging_system.cadence import Due
from logging_system.category import DIAGNOSTICS, Category, CategoryContext, Tag
from logging_system.records import EpochRecord, StepRecord
from logging_system.statistics.tensors import layer_histograms

TAGS = {
    "{layer}": Tag(
        "Distribution of the layer's weights and biases together, finite ones only. Widening slowly is normal; a "
        "single spike is a dead layer, long tails announce instability."
    )
}


class ParameterHistograms(Category):
    """At diagnostics and at the end of epochs; once when both fall on one step."""

    name = "10_Parameter_Histograms"
    cadence = f"{DIAGNOSTICS}; the end of every LOG_EVERY_EPOCHS-th epoch"
    tags = TAGS

    @staticmethod
    def is_enabled(config: Config) -> bool:
        return config.ENABLE_PARAMETER_TRACKING

    def __init__(self, context: CategoryContext) -> None:
        super().__init__(context)
        self._last_step: int | None = None

    def on_step(self, record: StepRecord, due: Due) -> None:
        if due.diagnostics:
            self._write(record.step)

    def on_epoch(self, record: EpochRecord) -> None:
        self._write(record.step)

    def _write(self, step: int) -> None:
        if step == self._last_step:
            return
        self._last_step = step
        layers = self.layer_plan.layers
        histograms = layer_histograms([layer.parameters for layer in layers], self.config.HISTOGRAM_BINS)
        for layer, histogram in zip(layers, histograms, strict=True):
            self.write(self.writer.histogram, "{layer}", histogram, step, layer=layer.name)
