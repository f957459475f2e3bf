import json
import math
import threading

import numpy
import pytest
from PIL import Image
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

from logging_system.files.writer import Writer
from logging_system.statistics.tensors import Histogram


@pytest.fixture
def messages():
    return []


@pytest.fixture
def writer(tmp_path, disk, messages):
    created = Writer(tmp_path, report=messages.append, open_file=disk.open)
    yield created
    created.close()


def test_scalars_have_their_values_steps_and_descriptions(writer, tmp_path, accumulate):
    for step in (1, 2, 5):
        writer.scalar("01_Training/Loss", 1 / step, step, "Mean loss. Unit: none.")
    writer.close()
    run = accumulate(tmp_path)
    assert [(point.step, point.value) for point in run.Scalars("01_Training/Loss")] == [
        (step, float(numpy.float32(1 / step))) for step in (1, 2, 5)
    ]
    assert run.SummaryMetadata("01_Training/Loss").summary_description == "Mean loss. Unit: none."


def test_description_is_stored_with_the_first_point_alone(writer, tmp_path, read_events):
    for step in (1, 2):
        writer.scalar("a/b", 0.0, step, "text")
    writer.close()
    values = [event.summary.value[0] for event in read_events(tmp_path) if event.HasField("summary")]
    assert [value.metadata.summary_description for value in values] == ["text", ""]


def test_metrics_file_is_the_twin_of_the_event_file(writer, tmp_path, accumulate, read_metrics):
    written = [("a/x", step, step / 3) for step in range(1, 8)] + [("b/y", 1, 16777217.0), ("b/y", 2, -1e-20)]
    for tag, step, value in written:
        writer.scalar(tag, value, step)
    writer.close()
    run = accumulate(tmp_path)
    assert read_metrics(tmp_path) == written  # float64, exact
    in_events = {(tag, point.step): point.value for tag in run.Tags()["scalars"] for point in run.Scalars(tag)}
    assert in_events == {(tag, step): float(numpy.float32(value)) for tag, step, value in written}


def test_values_that_are_not_finite_are_shown_as_they_are(writer, tmp_path, accumulate, read_metrics):
    for step, value in enumerate([math.nan, math.inf, -math.inf]):
        writer.scalar("a/x", value, step)
    writer.close()
    values = [point.value for point in accumulate(tmp_path).Scalars("a/x")]
    assert math.isnan(values[0])
    assert values[1:] == [math.inf, -math.inf]
    assert [value for _, _, value in read_metrics(tmp_path)] == ["NaN", "Infinity", "-Infinity"]


def test_nothing_reaches_the_files_before_a_flush_and_everything_after(writer, tmp_path, accumulate, read_metrics):
    writer.scalar("a/x", 1.0, 1)
    assert not list(tmp_path.glob("*tfevents*")) + list(tmp_path.glob("*.jsonl"))
    writer.flush()
    assert len(accumulate(tmp_path).Scalars("a/x")) == 1
    assert len(read_metrics(tmp_path)) == 1
    writer.scalar("a/x", 2.0, 2)
    assert len(accumulate(tmp_path).Scalars("a/x")) == 1
    writer.flush()
    assert len(accumulate(tmp_path).Scalars("a/x")) == 2


def test_histograms_keep_their_bins(writer, tmp_path, accumulate):
    histogram = Histogram(-1.0, 3.0, 6.0, 4.0, 20.0, [0.0, 1.0, 3.0], [1.0, 2.0, 3.0])
    writer.histogram("10/h", histogram, 4, "Weights.")
    writer.close()
    run = accumulate(tmp_path)
    (event,) = run.Histograms("10/h")
    value = event.histogram_value
    assert event.step == 4
    assert (value.min, value.max, value.num, value.sum, value.sum_squares) == (-1.0, 3.0, 6.0, 4.0, 20.0)
    assert (list(value.bucket_limit), list(value.bucket)) == ([0.0, 1.0, 3.0], [1.0, 2.0, 3.0])
    assert run.SummaryMetadata("10/h").summary_description == "Weights."


def test_text_is_stored_under_its_tag(writer, tmp_path, accumulate):
    writer.text("15_Configuration/Config", "| a |\n|---|\n| ä |", 3, "The configuration.")
    writer.close()
    run = accumulate(tmp_path)
    (event,) = run.Tensors("15_Configuration/Config")
    assert event.step == 3
    assert event.tensor_proto.string_val[0].decode() == "| a |\n|---|\n| ä |"
    assert run.SummaryMetadata("15_Configuration/Config").plugin_data.plugin_name == "text"


def test_images_are_exact(writer, tmp_path, accumulate):
    image = numpy.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=numpy.uint8)
    writer.image("06/i", image, 2)
    writer.close()
    (event,) = accumulate(tmp_path).Images("06/i")
    assert (event.step, event.width, event.height) == (2, 7, 5)
    with Image.open(__import__("io").BytesIO(event.encoded_image_string)) as decoded:
        assert numpy.array_equal(numpy.asarray(decoded), image)


def test_wrong_arguments_are_the_callers_mistake(writer):
    with pytest.raises(ValueError, match="uint8 \\[H, W, 3\\]"):
        writer.image("a/i", numpy.zeros((4, 4, 3)), 1)
    with pytest.raises(ValueError, match="uint8 \\[T, H, W, 3\\]"):
        writer.video("a/v", numpy.zeros((4, 4, 3), numpy.uint8), 1, 8.0)
    with pytest.raises(ValueError, match="plain name"):
        writer.video("a/v", numpy.zeros((1, 4, 4, 3), numpy.uint8), 1, 8.0, file_name="../out")


def test_hparams_are_three_summaries_of_this_very_run(writer, tmp_path, read_events):
    writer.hparams_start({"LR": 0.5, "STEPS": 3, "FLAG": True, "NAME": "x"}, ["01_Training/Loss"])
    writer.hparams_end()
    writer.close()
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    values = {value.tag: value for event in read_events(tmp_path) for value in event.summary.value}
    assert set(values) == {metadata.EXPERIMENT_TAG, metadata.SESSION_START_INFO_TAG, metadata.SESSION_END_INFO_TAG}
    content = values[metadata.SESSION_START_INFO_TAG].metadata.plugin_data.content
    hparams = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    assert {name: getattr(value, value.WhichOneof("kind")) for name, value in hparams.items()} == {
        "LR": 0.5,
        "STEPS": 3.0,
        "FLAG": True,
        "NAME": "x",
    }
    assert hparams["FLAG"].WhichOneof("kind") == "bool_value"
    end = plugin_data_pb2.HParamsPluginData.FromString(
        values[metadata.SESSION_END_INFO_TAG].metadata.plugin_data.content
    )
    assert end.session_end_info.status == api_pb2.STATUS_SUCCESS


def test_custom_scalars_layout_matches_exactly_the_tags_it_names(writer, tmp_path, accumulate):
    from tensorboard.plugins.custom_scalar import layout_pb2

    writer.custom_scalars_layout({"Loss": {"Both": ["01/A.B", "02/*"]}})
    writer.close()
    (event,) = accumulate(tmp_path).Tensors("custom_scalars__config__")
    (section,) = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0]).category
    assert (section.title, section.chart[0].title) == ("Loss", "Both")
    assert list(section.chart[0].multiline.tag) == ["^01/A\\.B$", "^02/.*$"]


def test_several_threads_may_write(writer, tmp_path, accumulate):
    def write(name):
        for step in range(200):
            writer.scalar(name, step, step)

    threads = [threading.Thread(target=write, args=(f"a/{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    run = accumulate(tmp_path)
    for number in range(4):
        assert [point.value for point in run.Scalars(f"a/{number}")] == list(range(200))


def test_full_disk_is_counted_reported_once_and_made_good(writer, tmp_path, disk, messages, accumulate, read_metrics):
    writer.scalar("a/x", 0.0, 0)
    writer.flush()
    disk.is_full, disk.bytes_left = True, 10  # the next record is torn
    for step in (1, 2, 3):
        writer.scalar("a/x", step, step)
        writer.flush()
    assert writer.failures == {"event_file": 3, "metrics_file": 3}
    assert len(messages) == 2
    assert all("No space left" in message and "Training goes on" in message for message in messages)
    disk.is_full = False
    writer.flush()
    assert [point.value for point in accumulate(tmp_path).Scalars("a/x")] == [0, 1, 2, 3]
    assert [value for _, _, value in read_metrics(tmp_path)] == [0, 1, 2, 3]


def test_folder_that_cannot_be_made_raises_nothing(tmp_path, messages):
    (tmp_path / "run").write_text("a file, not a folder")
    writer = Writer(tmp_path / "run", report=messages.append)
    writer.scalar("a/x", 1.0, 1)
    writer.close()
    assert writer.failures["event_file"] > 0
    assert messages


def test_metrics_are_continued_and_event_files_sort_in_the_order_of_launches(tmp_path, accumulate, read_metrics):
    (tmp_path / "events.out.tfevents.9999999990.host.1").write_bytes(b"")  # a clock that ran ahead
    for step in (1, 2):
        writer = Writer(tmp_path, first_new_step=step if step > 1 else 0)
        writer.scalar("a/x", step, step)
        writer.close()
    names = sorted(path.name for path in tmp_path.glob("*tfevents*"))
    assert [name.split(".")[3] for name in names] == ["9999999990", "9999999991", "9999999992"]
    assert [point.value for point in accumulate(tmp_path).Scalars("a/x")] == [1, 2]
    assert [step for _, step, _ in read_metrics(tmp_path)] == [1, 2]


def test_every_line_is_flushed_as_one_json_object(writer, tmp_path):
    writer.scalar("a/ü", 0.25, 7)
    writer.flush()
    assert (tmp_path / "metrics.jsonl").read_text() == json.dumps({"step": 7, "tag": "a/ü", "value": 0.25}) + "\n"
