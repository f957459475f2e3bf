"""Values of the categories that no other test computes anew: pictures by their colours, histograms by numpy."""

import dataclasses
import io
import shutil
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy
import psutil
import pytest
import torch
from PIL import Image

from logging_system.pictures.charts import bar_chart, comparison_chart

RED, GREEN, BLUE, VIOLET, OLIVE = (230, 20, 20), (20, 200, 20), (20, 20, 230), (160, 20, 220), (120, 130, 10)
ORANGE, TEAL, PINK = (250, 140, 20), (20, 150, 150), (250, 120, 180)


def clip(colour: tuple[int, int, int]) -> numpy.ndarray:
    """[4, 8, 8, 3] of one colour."""
    return numpy.broadcast_to(numpy.array(colour, numpy.uint8), (4, 8, 8, 3))


def centres(encoded: bytes, *colours: tuple[int, int, int]) -> list[tuple[float, float]]:
    """Return (x, y) of the middle of each colour's area in the first frame, which must hold it."""
    picture = numpy.asarray(Image.open(io.BytesIO(encoded)).convert("RGB")).astype(int)
    found = []
    for colour in colours:
        rows, columns = (abs(picture - numpy.array(colour)).max(axis=-1) <= 8).nonzero()
        assert rows.size >= 8 * 8, f"{colour} is not in the picture"
        found.append((float(columns.mean()), float(rows.mean())))
    return found


def test_every_figure_of_a_validation(session: Callable[..., Any], make: SimpleNamespace) -> None:
    running = session("01_Training", "02_Loss_Components", "05_Performance")
    running.dispatcher.on_validation(make.validation(40))
    reader = running.finish()
    expected = {
        "01_Training/Validation_Loss": 0.3,
        "05_Performance/Validation_Seconds": 1.5,
        "02_Loss_Components/Validation/Loss": 0.3,
        "02_Loss_Components/Validation/Loss_Shuffled": 0.375,
        "02_Loss_Components/Validation/Loss_Null": 0.35,
        "02_Loss_Components/Validation/Text_Gap_Shuffled": 0.075,
        "02_Loss_Components/Validation/Text_Gap_Shuffled_Lower_Bound": 0.05,
        "02_Loss_Components/Validation/Text_Gap_Shuffled_Upper_Bound": 0.1,
        "02_Loss_Components/Validation/Text_Gap_Null": 0.05,
        "02_Loss_Components/Validation/Trained_Loss": 0.2,
        "02_Loss_Components/Validation/Trained_Text_Gap_Shuffled": 0.06,
        "02_Loss_Components/Validation/Predict_Zero_Baseline": 1.0,
        "02_Loss_Components/Validation/Duration_Error_Percent": 12.5,
    }
    for number in range(1, 9):
        expected[f"02_Loss_Components/Validation/Timestep_Bin_{number}"] = number / 10
        expected[f"02_Loss_Components/Validation/Text_Gap_Shuffled_Bin_{number}"] = number / 100
    assert {tag: reader.points(tag) for tag in reader.all_tags} == {
        tag: {40: pytest.approx(value)} for tag, value in expected.items()
    }


def test_one_caption_for_all_clips_leaves_no_shuffled_loss(session: Callable[..., Any], make: SimpleNamespace) -> None:
    running = session("02_Loss_Components")
    record = dataclasses.replace(
        make.validation(40),
        loss_shuffled=None,
        gap_shuffled_interval=None,
        gap_shuffled_by_bin=(),
        trained_loss_shuffled=None,
    )
    running.dispatcher.on_validation(record)
    assert not [tag for tag in running.finish().all_tags if "Shuffled" in tag]


def test_noise_histograms_count_every_value(session: Callable[..., Any], make: SimpleNamespace) -> None:
    running = session("07_Noise_Analysis", histogram_bins=16)
    record = make.record(1, is_first=True)
    running.step(record)
    reader = running.finish()
    noise = {
        "Actual_Noise": record.tensors.actual_noise,
        "Predicted_Noise": record.tensors.predicted_noise[~record.tensors.is_terminal],
    }
    for name, tensor in noise.items():
        values = tensor.numpy().astype(numpy.float64).ravel()
        histogram = reader.histogram(f"07_Noise_Analysis/{name}")
        limits = numpy.array(histogram.bucket_limit)
        below = [(values <= limit + 1e-6).sum() for limit in limits]
        assert numpy.cumsum(histogram.bucket) == pytest.approx(below, abs=1)  # a value on a border may fall either way
        assert (histogram.num, histogram.sum) == (values.size, pytest.approx(values.sum(), rel=1e-3))
        assert (histogram.min, histogram.max) == pytest.approx((values.min(), values.max()))
        assert limits[-1] == pytest.approx(values.max())


def test_gradient_flow_shows_each_layer_norm_in_the_order_of_the_network(
    session: Callable[..., Any], make: SimpleNamespace
) -> None:
    running = session("11_Gradient_Stats")
    make.gradients(running.view.model, 5)
    layers = {"model": "offset", "entry": "entry.", "body.0": "body.0.", "body.1": "body.1.", "exit": "exit."}
    gradients = {name: parameter.grad.clone() for name, parameter in running.view.model.named_parameters()}
    norms = [
        torch.cat([g.flatten() for name, g in gradients.items() if name.startswith(prefix)]).double().norm().item()
        for prefix in layers.values()
    ]
    whole = torch.tensor(norms).norm()
    running.step(make.record(1, is_first=True, gradient_norm=whole, gradient_norm_clipped=whole))
    encoded = running.finish().image("11_Gradient_Stats/Gradient_Flow")
    expected = bar_chart(
        list(layers),
        numpy.array(norms),
        title="Gradient norm by depth, step 1",
        y_label="norm before clipping (logarithmic)",
    )
    assert numpy.array_equal(numpy.asarray(Image.open(io.BytesIO(encoded))), expected)


def test_generated_real_and_earlier_clips_stand_where_they_should(
    session: Callable[..., Any], make: SimpleNamespace
) -> None:
    view = make.view()
    points = iter([(RED, GREEN), (BLUE, VIOLET)])  # two sampling points of two prompts
    base = view.generate_samples()

    def generate() -> Any:
        generated = tuple(map(clip, next(points)))
        raw, real = (clip(OLIVE),), (clip(ORANGE), clip(TEAL))
        measures = {"Nearest_Training_Distance": 0.5, "Nearest_Training_Distance_Real": 0.75, "New_Measure": 3.0}
        return dataclasses.replace(
            base, generated=generated, generated_raw=raw, real=real, measures={**base.measures, **measures}
        )

    view.generate_samples = generate
    running = session("12_Generated_Samples", view=view, sample_every_steps=2)
    running.step(make.record(2))
    running.step(make.record(4))
    reader = running.finish()
    prefix = "12_Generated_Samples"
    centres(reader.image(f"{prefix}/Prompt_1_CAB"), BLUE)
    centres(reader.image(f"{prefix}/Prompt_2_b_i_c_d"), VIOLET)
    centres(reader.image(f"{prefix}/Raw_Weights"), OLIVE)
    (first, _), (second, _) = centres(reader.image(f"{prefix}/Grid"), BLUE, VIOLET)
    assert first < second
    (real, real_row), (generated, row) = centres(reader.image(f"{prefix}/Real_And_Generated"), ORANGE, BLUE)
    assert (real < generated, real_row) == (True, pytest.approx(row, abs=2))
    centres(reader.image(f"{prefix}/Real_And_Generated"), TEAL, VIOLET)
    old, new, old_second, new_second = centres(reader.image(f"{prefix}/Time_Lapse"), RED, BLUE, GREEN, VIOLET)
    assert old[0] < new[0]
    assert old[1] < old_second[1]  # a row each prompt
    assert old_second[0] < new_second[0]
    expected = {
        "Text_Sensitivity": 0.25,
        "Motion_Energy_Ratio": 0.5,
        "Sharpness_Ratio": 2.0,
        "Nearest_Training_Distance": 0.5,
        "Nearest_Training_Distance_Real": 0.75,
        "Other/New_Measure": 3.0,
    }
    scalars = {tag.removeprefix(f"{prefix}/"): reader.points(tag) for tag in reader.tags["scalars"]}
    assert scalars == {name: {2: value, 4: value} for name, value in expected.items()}
    real_seconds, expected_seconds = numpy.array([(0.5, 0.4), (1.0, 1.5)]).T
    chart = comparison_chart(
        *(real_seconds, expected_seconds),
        title="Durations of validation clips",
        x_label="real, s",
        y_label="expected, s",
    )
    assert numpy.array_equal(numpy.asarray(Image.open(io.BytesIO(reader.image(f"{prefix}/Durations")))), chart)


def test_noise_pictures_show_what_they_are_named_after(session: Callable[..., Any], make: SimpleNamespace) -> None:
    view = make.view()
    colours = {"original": RED, "noisy": GREEN, "actual_noise": BLUE, "predicted_noise": VIOLET, "denoised": OLIVE}
    stages = (ORANGE, TEAL, PINK)
    seen = dataclasses.replace(
        view.visualise_noise(),
        filmstrip=numpy.stack([clip(colour) for colour in stages]),
        **{name: clip(colour) for name, colour in colours.items()},
    )
    view.visualise_noise = lambda: seen
    running = session("13_Noise_Visualization", view=view)
    running.step(make.record(1, is_last=True))
    reader = running.finish()
    prefix = "13_Noise_Visualization"
    for name, colour in (("Original_Video", RED), ("Actual_Noise", BLUE), ("Predicted_Noise", VIOLET)):
        centres(reader.image(f"{prefix}/{name}"), colour)
    for name, order in (("Side_By_Side", tuple(colours.values())), ("Denoising_Filmstrip", stages)):
        places = [(round(y / 20), x) for x, y in centres(reader.image(f"{prefix}/{name}"), *order)]
        assert places == sorted(places), name  # read like a text: from the left, then the next row


def test_readings_are_those_of_this_computer(session: Callable[..., Any], make: SimpleNamespace) -> None:
    running = session("14_System")
    running.step(make.record(1, is_last=True))
    reader = running.finish()
    expected = {
        "RAM_Used_GB": psutil.virtual_memory().used / 1e9,
        "Process_RSS_GB": psutil.Process().memory_info().rss / 1e9,
        "Disk_Free_GB": shutil.disk_usage(running.run_folder).free / 1e9,
    }
    for name, value in expected.items():
        assert reader.last(f"14_System/{name}") == pytest.approx(value, rel=0.5), name  # others use it too
