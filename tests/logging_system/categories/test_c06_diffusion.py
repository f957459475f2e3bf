"""06_Diffusion: clips of pure noise are left out where noise errors mean nothing."""

import dataclasses
import io
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch
from PIL import Image

LEAVING_OUT = {
    "Noise_Prediction_MSE": "noise_mse",
    "Noise_Prediction_MAE": "noise_mae",
    "Signal_to_Noise_Ratio": "snr_decibel",
}
OVER_ALL = {"Beta": "beta", "Alphas_Cumprod": "alphas_cumprod", "X0_MSE": "x0_mse"}


def test_means_with_and_without_terminal_clips(session: Callable[..., Any], make: SimpleNamespace) -> None:
    running = session("06_Diffusion", log_every_steps=2)
    records = [make.record(step) for step in (1, 2)]
    for record in records:
        running.step(record)
    reader = running.finish()
    is_terminal = numpy.concatenate([record.samples.is_terminal.numpy() for record in records])
    assert 0 < is_terminal.sum() < is_terminal.size
    for tag, name in {**LEAVING_OUT, **OVER_ALL}.items():
        values = numpy.concatenate([getattr(record.samples, name).numpy() for record in records])
        wanted = values[~is_terminal] if tag in LEAVING_OUT else values
        assert reader.last(f"06_Diffusion/{tag}") == pytest.approx(wanted.mean(), rel=1e-4), tag


def test_only_terminal_clips_leave_no_noise_error(session: Callable[..., Any], make: SimpleNamespace) -> None:
    running = session("06_Diffusion", log_every_steps=1)
    record = make.record(1)
    samples = dataclasses.replace(
        record.samples, is_terminal=torch.ones(6, dtype=torch.bool), snr_decibel=torch.full((6,), -torch.inf)
    )
    running.step(dataclasses.replace(record, samples=samples))
    tags = running.finish().all_tags
    assert "06_Diffusion/X0_MSE" in tags
    assert not tags & {f"06_Diffusion/{tag}" for tag in LEAVING_OUT}


def test_timestep_distribution_counts_since_its_last_point(session: Callable[..., Any], make: SimpleNamespace) -> None:
    running = session("06_Diffusion", log_every_steps=1, diagnostic_log_every_steps=2, histogram_bins=10)
    records = [make.record(step) for step in range(1, 5)]
    for record in records:
        running.step(record)
    histogram = running.finish().histogram("06_Diffusion/Timestep_Distribution")
    drawn = torch.cat([record.samples.timestep for record in records[2:]]).numpy()
    counts, edges = numpy.histogram(drawn, bins=10, range=(0, 100))
    assert list(histogram.bucket) == counts.tolist()
    assert list(histogram.bucket_limit) == pytest.approx(edges[1:].tolist())
    assert histogram.num == 12
    assert histogram.sum == pytest.approx(float(drawn.sum()))


def test_heat_map_shows_where_the_loss_is(session: Callable[..., Any], make: SimpleNamespace) -> None:
    running = session("06_Diffusion", log_every_steps=1, diagnostic_log_every_steps=2)
    for step, loss in ((1, 1.0), (2, 0.01)):
        record = make.record(step)
        samples = dataclasses.replace(
            record.samples, timestep=torch.full((80,), 2), unweighted_mse=torch.full((80,), loss)
        )
        running.step(dataclasses.replace(record, samples=samples))
    encoded = running.finish().image("06_Diffusion/Loss_By_Timestep_Over_Time")
    picture = numpy.asarray(Image.open(io.BytesIO(encoded))).astype(int)
    left, top, right, bottom = 92, 76, 572, 360
    low_row = bottom - 7  # the lowest of twenty bins is 14 pixels high
    assert picture[low_row, left + 50].tolist() == [253, 231, 37]  # first step, high loss: bright
    assert picture[low_row, right - 50].tolist() == [68, 1, 84]  # second step, low loss: dark
    assert picture[top + 20, left + 50].tolist() == [150, 150, 150]  # no clip there: grey
