"""08_Model_Architecture and what is reported for each layer, against numpy."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch

LAYERS = {
    "model": ("offset",),
    "entry": ("entry.weight", "entry.bias"),
    "body.0": ("body.0.weight", "body.0.bias"),
    "body.1": ("body.1.weight", "body.1.bias"),
    "exit": ("exit.weight",),
}


def _values(model: torch.nn.Module, names: tuple[str, ...], *, gradient: bool = False) -> numpy.ndarray:
    parameters = dict(model.named_parameters())
    chosen = [parameters[name].grad if gradient else parameters[name].detach() for name in names]
    return numpy.concatenate([tensor.numpy().astype(numpy.float64).ravel() for tensor in chosen])


def test_architecture_is_counted_once(session: Callable[..., Any], make: SimpleNamespace) -> None:
    view = make.view()
    view.model.entry.weight.requires_grad_(False)
    reader = session("08_Model_Architecture", view=view).finish()
    total = 2 + 16 + 20 + 8 + 8
    prefix = "08_Model_Architecture"
    assert reader.points(f"{prefix}/Total_Parameters") == {0: total}
    assert reader.last(f"{prefix}/Trainable_Parameters") == total - 12
    assert reader.last(f"{prefix}/Parameter_Efficiency") == pytest.approx((total - 12) / total)
    assert reader.last(f"{prefix}/Model_Size_MB") == pytest.approx(4 * total / 1e6)
    assert reader.last(f"{prefix}/Forward_GFLOPs") == pytest.approx(2.0)
    blocks = {tag.rpartition("/")[2]: reader.last(tag) for tag in reader.all_tags if "By_Block" in tag}
    assert blocks == {"own_parameters": 2, "entry": 16, "body": 28, "exit": 8}
    assert "| entry | Linear | 4×3, 4 | 16 | 29.6 % |" in reader.text(f"{prefix}/Summary")


def test_after_a_resume_it_is_written_at_the_first_new_step(session: Callable[..., Any], make: SimpleNamespace) -> None:
    reader = session("08_Model_Architecture", view=make.view(start_step=40, forward_flops=None)).finish()
    assert list(reader.points("08_Model_Architecture/Total_Parameters")) == [41]
    assert "08_Model_Architecture/Forward_GFLOPs" not in reader.all_tags


def test_parameter_statistics_and_update_ratio(session: Callable[..., Any], make: SimpleNamespace) -> None:
    running = session("09_Parameter_Stats")
    model = running.view.model
    with torch.no_grad():
        model.exit.weight.zero_()
    before = {layer: _values(model, names) for layer, names in LAYERS.items()}
    running.dispatcher.before_step(1, is_first=True, is_last=False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.01).add_(0.001)
    running.step(make.record(1, is_first=True))
    reader = running.finish()
    for layer, names in LAYERS.items():
        values = _values(model, names)
        prefix = f"09_Parameter_Stats/{layer}"
        assert reader.last(f"{prefix}/Mean") == pytest.approx(values.mean(), rel=1e-4, abs=1e-7)
        assert reader.last(f"{prefix}/Std") == pytest.approx(values.std(), rel=1e-4, abs=1e-6)
        assert reader.last(f"{prefix}/Norm") == pytest.approx(numpy.linalg.norm(values), rel=1e-5)
        assert reader.last(f"{prefix}/Non_Finite") == 0
        if layer != "exit":
            ratio = numpy.linalg.norm(values - before[layer]) / numpy.linalg.norm(before[layer])
            assert reader.last(f"{prefix}/Update_To_Weight_Ratio") == pytest.approx(ratio, rel=1e-3)
    assert "09_Parameter_Stats/exit/Update_To_Weight_Ratio" not in reader.all_tags  # 0 before: no ratio


def test_a_copy_from_another_step_is_not_used(session: Callable[..., Any], make: SimpleNamespace) -> None:
    running = session("09_Parameter_Stats")
    running.dispatcher.before_step(4, is_first=False, is_last=False)
    running.step(make.record(5, is_last=True))
    assert not [tag for tag in running.finish().all_tags if "Update" in tag]


def test_weight_histograms_once_a_step(session: Callable[..., Any], make: SimpleNamespace) -> None:
    running = session("10_Parameter_Histograms", histogram_bins=8)
    running.step(make.record(4))
    running.dispatcher.on_epoch(make.epoch(1, 4))
    running.step(make.record(5))
    running.dispatcher.on_epoch(make.epoch(2, 5))
    reader = running.finish()
    assert set(reader.all_tags) == {f"10_Parameter_Histograms/{layer}" for layer in LAYERS}
    for layer, names in LAYERS.items():
        events = reader.events.Histograms(f"10_Parameter_Histograms/{layer}")
        assert [event.step for event in events] == [4, 5]
        values = _values(running.view.model, names)
        counts, _ = numpy.histogram(values, bins=8)
        assert list(events[0].histogram_value.bucket) == counts.tolist()


def test_gradients_are_reported_as_before_clipping(session: Callable[..., Any], make: SimpleNamespace) -> None:
    running = session("11_Gradient_Stats", diagnostic_log_every_steps=4, histogram_bins=8)
    model = running.view.model
    make.gradients(model, 5)
    model.body[0].bias.grad.zero_()
    original = {layer: _values(model, names, gradient=True) for layer, names in LAYERS.items()}
    norm = float(numpy.linalg.norm(numpy.concatenate(list(original.values()))))
    for parameter in model.parameters():
        parameter.grad.mul_(1.0 / norm)
    for step, (before, after) in enumerate([(0.5, 0.5), (3.0, 1.0), (torch.nan, torch.nan), (norm, 1.0)], 1):
        norms = {"gradient_norm": torch.tensor(before), "gradient_norm_clipped": torch.tensor(after)}
        running.step(make.record(step, **norms))
    reader = running.finish()
    layer_norms = [numpy.linalg.norm(values) for values in original.values()]
    prefix = "11_Gradient_Stats"
    assert reader.points(f"{prefix}/Total_Gradient_Norm") == {4: pytest.approx(norm)}
    assert reader.last(f"{prefix}/Average_Gradient_Norm") == pytest.approx(numpy.mean(layer_norms), rel=1e-4)
    assert reader.last(f"{prefix}/Max_Gradient_Norm") == pytest.approx(numpy.max(layer_norms), rel=1e-4)
    assert reader.last(f"{prefix}/Clip_Percent") == pytest.approx(100 * 2 / 3)
    assert reader.last(f"{prefix}/Zero_Percent") == pytest.approx(100 * 4 / 54, rel=1e-5)
    assert reader.last(f"{prefix}/Non_Finite") == 0
    for layer, values in original.items():
        assert reader.last(f"{prefix}/{layer}/Norm") == pytest.approx(numpy.linalg.norm(values), rel=1e-4)
        assert reader.last(f"{prefix}/{layer}/Mean") == pytest.approx(values.mean(), rel=1e-3, abs=1e-6)
        assert reader.last(f"{prefix}/{layer}/Std") == pytest.approx(values.std(), rel=1e-4)
        histogram = reader.histogram(f"{prefix}/{layer}/Histogram")
        assert (histogram.min, histogram.max) == pytest.approx((values.min(), values.max()), rel=1e-4)
        assert list(histogram.bucket_limit) == pytest.approx(numpy.histogram(values, bins=8)[1][1:].tolist(), rel=1e-3)
        assert histogram.num == values.size
    assert reader.image_steps(f"{prefix}/Gradient_Flow") == [4]


def test_an_overflow_leaves_no_figure_of_its_gradients(session: Callable[..., Any], make: SimpleNamespace) -> None:
    running = session("11_Gradient_Stats", diagnostic_log_every_steps=2, histogram_bins=8)
    model = running.view.model
    for step in range(1, 5):
        make.gradients(model, step)
        overflow = {}
        if step == 4:
            model.body[0].weight.grad.fill_(torch.nan)  # what clipping by an infinite norm leaves
            overflow = {"gradient_norm": torch.tensor(torch.inf), "gradient_norm_clipped": torch.tensor(1.0)}
            overflow["overflowed"] = torch.tensor(True)
        running.step(make.record(step, **overflow))
    reader = running.finish()
    prefix = "11_Gradient_Stats"
    clip_percent = reader.points(f"{prefix}/Clip_Percent")
    assert clip_percent == {2: 100.0, 4: 0.0}  # norms 1.5 and 2.5, then 0.5, clipped at 1
    assert list(reader.points(f"{prefix}/Non_Finite").values()) == [0]
    for tag in {*reader.tags["scalars"]} - {f"{prefix}/Clip_Percent"}:
        assert list(reader.points(tag)) == [2], tag
    assert [event.step for event in reader.events.Histograms(f"{prefix}/body.0/Histogram")] == [2]
    assert reader.image_steps(f"{prefix}/Gradient_Flow") == [2]


def test_a_frozen_layer_has_no_gradient_tags(session: Callable[..., Any], make: SimpleNamespace) -> None:
    running = session("11_Gradient_Stats")
    make.gradients(running.view.model, 5)
    running.view.model.exit.weight.grad = None
    running.step(make.record(1, is_first=True))
    tags = running.finish().all_tags
    assert "11_Gradient_Stats/entry/Norm" in tags
    assert not [tag for tag in tags if "/exit/" in tag]


def test_layers_are_merged_to_the_budget_and_the_console_says_so_once(
    session: Callable[..., Any], make: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    running = session(
        "09_Parameter_Stats", "10_Parameter_Histograms", "11_Gradient_Stats", parameter_tracking_max_layers=4
    )
    make.gradients(running.view.model, 5)
    running.step(make.record(1, is_first=True))
    reader = running.finish()
    for category in ("09_Parameter_Stats", "11_Gradient_Stats"):
        layers = {tag.split("/")[1] for tag in reader.all_tags if tag.startswith(category) and tag.count("/") == 2}
        assert layers == {"model", "entry", "body", "exit"}
    assert reader.last("09_Parameter_Stats/body/Norm") == pytest.approx(
        numpy.linalg.norm(_values(running.view.model, LAYERS["body.0"] + LAYERS["body.1"])), rel=1e-5
    )
    said = capsys.readouterr().err
    assert said.count("PARAMETER_TRACKING_MAX_LAYERS") == 1
    assert "5 modules" in said
