"""The protocol buffers that TensorBoard reads, one function a kind.

Scalars, histograms and images use the older fields of ``Summary.Value`` (``simple_value``, ``histo``, ``image``):
every reader understands them, ``EventAccumulator.Scalars`` among them. TensorBoard's fast loader keeps the description
of such a value only if its metadata also names the data class, as here.
"""

import re
import time
from collections.abc import Collection, Iterable, Mapping, Sequence

from tensorboard.compat.proto.summary_pb2 import (
    DATA_CLASS_BLOB_SEQUENCE,
    DATA_CLASS_SCALAR,
    DATA_CLASS_TENSOR,
    HistogramProto,
    Summary,
    SummaryMetadata,
)
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar.metadata import CONFIG_SUMMARY_TAG
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
from tensorboard.plugins.text.plugin_data_pb2 import TextPluginData

from logging_system.statistics.tensors import Histogram

RGB = 3  # Summary.Image's code for three colour channels
_DATA_CLASSES = {
    "scalars": DATA_CLASS_SCALAR,
    "histograms": DATA_CLASS_TENSOR,
    "text": DATA_CLASS_TENSOR,
    "custom_scalars": DATA_CLASS_TENSOR,
    "images": DATA_CLASS_BLOB_SEQUENCE,
}


def _metadata(plugin: str, description: str | None, content: bytes = b"") -> SummaryMetadata | None:
    if description is None:
        return None
    plugin_data = SummaryMetadata.PluginData(plugin_name=plugin, content=content)
    return SummaryMetadata(plugin_data=plugin_data, summary_description=description, data_class=_DATA_CLASSES[plugin])


def scalar_value(tag: str, value: float, description: str | None) -> Summary.Value:
    """Return a scalar. Every function here leaves the metadata out when ``description`` is None."""
    return Summary.Value(tag=tag, simple_value=value, metadata=_metadata("scalars", description))


def histogram_value(tag: str, histogram: Histogram, description: str | None) -> Summary.Value:
    """Return a histogram with the bins as they are."""
    raw = HistogramProto(
        min=histogram.minimum,
        max=histogram.maximum,
        num=histogram.count,
        sum=histogram.sum,
        sum_squares=histogram.sum_of_squares,
        bucket_limit=histogram.bucket_limits,
        bucket=histogram.bucket_counts,
    )
    return Summary.Value(tag=tag, histo=raw, metadata=_metadata("histograms", description))


def image_value(tag: str, encoded: bytes, width: int, height: int, description: str | None) -> Summary.Value:
    """Return an image from an encoded PNG or GIF."""
    image = Summary.Image(height=height, width=width, colorspace=RGB, encoded_image_string=encoded)
    return Summary.Value(tag=tag, image=image, metadata=_metadata("images", description))


def text_value(tag: str, markdown: str, description: str | None) -> Summary.Value:
    """Return a Markdown text."""
    content = TextPluginData(version=0).SerializeToString()
    return Summary.Value(
        tag=tag, tensor=_string_tensor(markdown.encode()), metadata=_metadata("text", description, content)
    )


def hparams_start_values(
    hparams: Mapping[str, bool | float | str], metrics: Sequence[str], session: str, prominent: Collection[str]
) -> list[Summary.Value]:
    """Return the two summaries that show a run in the HParams tab from its start: experiment and session start.

    The tab shows a few columns and sorts those first that are marked as differing: the ``prominent`` ones here.
    """
    start = plugin_data_pb2.SessionStartInfo(group_name=session, start_time_secs=time.time())
    infos = []
    for name, value in hparams.items():
        kind = _set_hparam(start.hparams[name], value)
        infos.append(api_pb2.HParamInfo(name=name, type=kind, differs=name in prominent))
    metric_infos = [api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag), display_name=tag) for tag in metrics]
    experiment = api_pb2.Experiment(hparam_infos=infos, metric_infos=metric_infos)
    return [
        _hparams_value(metadata.EXPERIMENT_TAG, plugin_data_pb2.HParamsPluginData(experiment=experiment)),
        _hparams_value(metadata.SESSION_START_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_start_info=start)),
    ]


def hparams_end_value() -> Summary.Value:
    """Return the summary that says that the run has come to its end. Without it the tab shows its state as unknown."""
    end = plugin_data_pb2.SessionEndInfo(status=api_pb2.STATUS_SUCCESS, end_time_secs=time.time())
    return _hparams_value(metadata.SESSION_END_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_end_info=end))


def _hparams_value(tag: str, content: plugin_data_pb2.HParamsPluginData) -> Summary.Value:
    return Summary.Value(tag=tag, metadata=metadata.create_summary_metadata(content), tensor=metadata.NULL_TENSOR)


def _set_hparam(target: object, value: bool | float | str) -> int:
    # bool comes first because Python counts it among the integers.
    if isinstance(value, bool):
        target.bool_value = value  # type: ignore[attr-defined]
        return int(api_pb2.DATA_TYPE_BOOL)
    if isinstance(value, int | float):
        target.number_value = value  # type: ignore[attr-defined]
        return int(api_pb2.DATA_TYPE_FLOAT64)
    target.string_value = value  # type: ignore[attr-defined]
    return int(api_pb2.DATA_TYPE_STRING)


def layout_value(layout: Mapping[str, Mapping[str, Sequence[str]]]) -> Summary.Value:
    """Return the Custom Scalars layout: section title -> chart title -> tags. ``*`` at a tag's end means any ending."""
    categories = []
    for section, charts in layout.items():
        built = [
            layout_pb2.Chart(title=title, multiline=layout_pb2.MultilineChartContent(tag=map(_tag_expression, tags)))
            for title, tags in charts.items()
        ]
        categories.append(layout_pb2.Category(title=section, chart=built))
    content = layout_pb2.Layout(category=categories).SerializeToString()
    return Summary.Value(
        tag=CONFIG_SUMMARY_TAG, tensor=_string_tensor(content), metadata=_metadata("custom_scalars", "")
    )


def _tag_expression(tag: str) -> str:
    return f"^{re.escape(tag[:-1])}.*$" if tag.endswith("*") else f"^{re.escape(tag)}$"


def _string_tensor(content: bytes) -> TensorProto:
    return TensorProto(dtype="DT_STRING", string_val=[content], tensor_shape=TensorShapeProto())


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table. Cells may hold any text; what Markdown or HTML would read as markup is escaped."""
    lines = [_row(header), _row(["---"] * len(header)), *(_row([escape(cell) for cell in row]) for row in rows)]
    return "\n".join(lines)


def escape(text: str) -> str:
    """Return `text` so that Markdown shows it as it is, on one line."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for character in "\\`*_|[]":
        text = text.replace(character, "\\" + character)
    return " ".join(text.split())


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
