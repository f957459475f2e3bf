"""02_Loss_Components against numpy."""

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch

MEANS = {
    "Weighted_Loss": "weighted_loss",
    "Unweighted_MSE": "unweighted_mse",
    "Temporal_Difference_Error": "temporal_difference_mse",
    "Predict_Zero_Baseline": "predict_zero_mse",
}


def test_means_captions_and_bins(session: Callable[..., Any], make: SimpleNamespace) -> None:
    running = session("02_Loss_Components", log_every_steps=3)
    records = [make.record(step) for step in (1, 2, 3)]
    for record in records:
        running.step(record)
    reader = running.finish()

    def column(name: str) -> numpy.ndarray:
        return numpy.concatenate([getattr(record.samples, name).numpy() for record in records])

    for tag, name in MEANS.items():
        assert reader.points(f"02_Loss_Components/{tag}") == {3: pytest.approx(column(name).mean(), rel=1e-5)}
    error, has_caption, timestep = column("unweighted_mse"), column("is_captioned"), column("timestep")
    assert reader.last("02_Loss_Components/Captioned") == pytest.approx(error[has_caption].mean(), rel=1e-5)
    assert reader.last("02_Loss_Components/Uncaptioned") == pytest.approx(error[~has_caption].mean(), rel=1e-5)
    share = column("duration_error")[has_caption]
    assert reader.last("02_Loss_Components/Duration_Error_Percent") == pytest.approx(100 * share.mean(), rel=1e-5)
    for number in range(1, 9):
        inside = (timestep >= (number - 1) * 12.5) & (timestep < number * 12.5)
        tag = f"02_Loss_Components/Timestep_Bin_{number}"
        if inside.any():
            assert reader.last(tag) == pytest.approx(error[inside].mean(), rel=1e-5)
        else:
            assert tag not in reader.all_tags


def test_what_no_clip_fell_into_is_absent(session: Callable[..., Any], make: SimpleNamespace) -> None:
    running = session("02_Loss_Components", log_every_steps=1)
    record = make.record(1)
    samples = dataclasses.replace(
        record.samples,
        is_captioned=torch.ones(6, dtype=torch.bool),
        timestep=torch.tensor([12, 12, 13, 99, 99, 99]),  # the border between bins 1 and 2 lies at 12.5
        unweighted_mse=torch.tensor([1.0, 3.0, 5.0, 7.0, torch.nan, 9.0]),
    )
    running.step(dataclasses.replace(record, samples=samples))
    reader = running.finish()
    bins = {tag: reader.last(tag) for tag in reader.all_tags if "Timestep_Bin" in tag}
    assert bins == {
        "02_Loss_Components/Timestep_Bin_1": 2.0,
        "02_Loss_Components/Timestep_Bin_2": 5.0,
        "02_Loss_Components/Timestep_Bin_8": 8.0,
    }
    assert "02_Loss_Components/Uncaptioned" not in reader.all_tags
    assert reader.last("02_Loss_Components/Captioned") == 5.0


def test_durations_of_clips_without_their_caption_say_nothing(
    session: Callable[..., Any], make: SimpleNamespace
) -> None:
    running = session("02_Loss_Components", log_every_steps=1)
    record = make.record(1)
    captioned = torch.tensor([True, True, False, False, False, False])
    error = torch.tensor([0.25, 0.0, torch.inf, 9.0, 9.0, 9.0])
    for step, is_captioned in ((1, captioned), (2, torch.zeros(6, dtype=torch.bool))):
        samples = dataclasses.replace(record.samples, is_captioned=is_captioned, duration_error=error)
        running.step(dataclasses.replace(record, step=step, samples=samples))
    assert running.finish().points("02_Loss_Components/Duration_Error_Percent") == {1: pytest.approx(12.5)}


def test_long_intervals_lose_no_step(session: Callable[..., Any], make: SimpleNamespace) -> None:
    running = session("02_Loss_Components", log_every_steps=150)
    record = make.record(1)
    for step in range(1, 151):
        samples = dataclasses.replace(record.samples, unweighted_mse=torch.full((6,), float(step)))
        running.step(dataclasses.replace(record, step=step, samples=samples))
    assert running.finish().points("02_Loss_Components/Unweighted_MSE") == {150: pytest.approx(75.5)}


def test_validation_gaps(session: Callable[..., Any], make: SimpleNamespace) -> None:
    running = session("02_Loss_Components")
    running.dispatcher.on_validation(make.validation(40))
    reader = running.finish()
    prefix = "02_Loss_Components/Validation"
    assert reader.points(f"{prefix}/Text_Gap_Shuffled") == {40: pytest.approx(0.075)}
    assert reader.points(f"{prefix}/Text_Gap_Null") == {40: pytest.approx(0.05)}
    assert reader.last(f"{prefix}/Timestep_Bin_3") == pytest.approx(0.3)
    assert reader.last(f"{prefix}/Text_Gap_Shuffled_Bin_8") == pytest.approx(0.08)
    assert reader.last(f"{prefix}/Loss_Null") == pytest.approx(0.35)
    assert reader.last(f"{prefix}/Predict_Zero_Baseline") == 1.0
