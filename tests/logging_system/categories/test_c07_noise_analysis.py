"""07_Noise_Analysis against numpy."""

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch


def _written(session: Callable[..., Any], make: SimpleNamespace, **changes: torch.Tensor) -> tuple[Any, Any]:
    running = session("07_Noise_Analysis", histogram_bins=8)
    record = make.record(1, is_first=True)
    record = dataclasses.replace(record, tensors=dataclasses.replace(record.tensors, **changes))
    running.step(record)
    return record, running.finish()


def test_statistics_of_noise_and_video(session: Callable[..., Any], make: SimpleNamespace) -> None:
    record, reader = _written(session, make)
    tensors = record.tensors
    has_signal = ~tensors.is_terminal.numpy()
    assert 0 < has_signal.sum() < has_signal.size
    groups = {
        "Predicted": tensors.predicted_noise.numpy()[has_signal],
        "Actual": tensors.actual_noise.numpy(),
        "Video": tensors.video.numpy(),
    }
    for group, values in groups.items():
        expected = {
            "Mean": values.mean(),
            "Std": values.std(),
            "Min": values.min(),
            "Max": values.max(),
            "Abs_Mean": numpy.abs(values).mean(),
        }
        for name, value in expected.items():
            tag = f"07_Noise_Analysis/{group}_{name}"
            assert reader.points(tag) == {1: pytest.approx(value, rel=1e-3, abs=1e-6)}, tag
    assert reader.last("07_Noise_Analysis/Predicted_Non_Finite") == 0
    timestep = record.samples.timestep.numpy()
    assert reader.last("07_Noise_Analysis/Timestep_Mean") == pytest.approx(timestep.mean())
    assert reader.last("07_Noise_Analysis/Timestep_Std") == pytest.approx(timestep.std(), rel=1e-5)
    histogram = reader.histogram("07_Noise_Analysis/Predicted_Noise")
    assert histogram.num == groups["Predicted"].size
    assert histogram.max == pytest.approx(groups["Predicted"].max())


def test_correlation_overall_and_by_bin(session: Callable[..., Any], make: SimpleNamespace) -> None:
    timestep = torch.tensor([99, 3, 5, 80])
    record, reader = _written(session, make, timestep=timestep, is_terminal=timestep == 99)
    predicted = record.tensors.predicted_noise.numpy().astype(numpy.float64)
    actual = record.tensors.actual_noise.numpy().astype(numpy.float64)

    def pearson(clips: list[int]) -> float:
        return float(numpy.corrcoef(predicted[clips].ravel(), actual[clips].ravel())[0, 1])

    written = {tag: reader.last(tag) for tag in reader.all_tags if "Noise_Correlation" in tag}
    assert written == {
        "07_Noise_Analysis/Noise_Correlation": pytest.approx(pearson([1, 2, 3]), rel=1e-4),
        "07_Noise_Analysis/Noise_Correlation_Bin_1": pytest.approx(pearson([1, 2]), rel=1e-4),
        "07_Noise_Analysis/Noise_Correlation_Bin_7": pytest.approx(pearson([3]), rel=1e-4),
    }
    assert abs(pearson([1, 2, 3]) - pearson([0, 1, 2, 3])) > 1e-4  # the terminal clip would have been noticed


def test_correlation_of_clips_with_different_means(session: Callable[..., Any], make: SimpleNamespace) -> None:
    shift = torch.tensor([0.0, 2.0, -3.0, 5.0])[:, None, None, None, None]
    base = make.record(1).tensors
    no_terminal = torch.zeros(4, dtype=torch.bool)
    record, reader = _written(session, make, predicted_noise=base.predicted_noise + shift, is_terminal=no_terminal)
    expected = numpy.corrcoef(record.tensors.predicted_noise.numpy().ravel(), base.actual_noise.numpy().ravel())[0, 1]
    assert reader.last("07_Noise_Analysis/Noise_Correlation") == pytest.approx(expected, rel=1e-3)


def test_all_terminal_leaves_out_what_was_predicted(session: Callable[..., Any], make: SimpleNamespace) -> None:
    _, reader = _written(session, make, is_terminal=torch.ones(4, dtype=torch.bool))
    assert not [tag for tag in reader.all_tags if "Predicted" in tag or "Correlation" in tag]
    assert "07_Noise_Analysis/Actual_Std" in reader.all_tags


def test_video_quality(session: Callable[..., Any], make: SimpleNamespace) -> None:
    video = torch.zeros(4, 3, 3, 6, 6)
    video[:, :, :, :, 3:] = 0.5  # one edge; the first two frames are alike
    video[:, :, 2] += 0.25
    video[0, :, 1] += 0.25  # and in one clip the last two
    _, reader = _written(session, make, video=video)
    contrast = numpy.std(numpy.array([0.0, 0.5]))
    assert reader.last("07_Noise_Analysis/Video_Contrast") == pytest.approx(contrast, rel=1e-4)
    assert reader.last("07_Noise_Analysis/Video_Sharpness") == pytest.approx((0.5 / 5) / 2, rel=1e-4)
    assert reader.last("07_Noise_Analysis/Video_Motion_Energy") == pytest.approx(0.125, rel=1e-4)
    assert reader.last("07_Noise_Analysis/Video_Frozen_Frame_Percent") == pytest.approx(50)


def test_single_frames_have_no_motion(session: Callable[..., Any], make: SimpleNamespace) -> None:
    _, reader = _written(session, make, video=torch.rand(4, 3, 1, 6, 6, generator=torch.Generator().manual_seed(1)))
    assert "07_Noise_Analysis/Video_Contrast" in reader.all_tags
    assert "07_Noise_Analysis/Video_Motion_Energy" not in reader.all_tags
