"""03_Epoch_Summary, 04_Learning_Rate and 05_Performance."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch
from PIL import Image

from logging_system.categories import c05_performance
from logging_system.categories.c03_epoch_summary import EpochSummary
from logging_system.files.writer import Writer
from logging_system.pictures.charts import ACCENT
from tests.held_clock import HeldClock


def test_epoch_average_covers_all_steps_and_the_axis_is_the_epoch(
    session: Callable[..., Any], make: SimpleNamespace
) -> None:
    running = session("03_Epoch_Summary", log_every_epochs=2, log_every_steps=100)
    for step in range(1, 7):
        running.step(make.record(step, skipped=torch.tensor(step in (2, 5))))
        if step == 4:
            running.dispatcher.on_validation(make.validation(4))
        if step % 2 == 0:
            running.dispatcher.on_epoch(make.epoch(step // 2, step, is_last=step == 6))
    reader = running.finish()
    loss = reader.points("03_Epoch_Summary/Average_Loss")
    assert loss == {2: pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4), 3: pytest.approx((1 / 5 + 1 / 6) / 2)}
    assert reader.points("03_Epoch_Summary/Average_Gradient_Norm")[3] == pytest.approx((2.5 + 0.5) / 2)
    assert reader.points("03_Epoch_Summary/Skipped_Steps") == {2: 1, 3: 1}
    assert reader.points("03_Epoch_Summary/Best_Validation_Loss") == {2: 0.25, 3: 0.25}
    assert reader.points("03_Epoch_Summary/Validation_Loss")[2] == pytest.approx(0.3)
    assert reader.points("03_Epoch_Summary/Epoch_Time_Seconds")[2] == 12.5
    assert reader.points("03_Epoch_Summary/Optimizer_Steps") == {2: 4, 3: 6}
    assert reader.points("03_Epoch_Summary/Samples") == {2: 24, 3: 36}
    assert reader.points("03_Epoch_Summary/Frames") == {2: 192, 3: 288}
    assert reader.points("03_Epoch_Summary/Learning_Rate")[3] == pytest.approx(2e-4)


def test_without_validation_the_epoch_has_no_validation_loss(
    session: Callable[..., Any], make: SimpleNamespace
) -> None:
    running = session("03_Epoch_Summary")
    running.step(make.record(1))
    running.dispatcher.on_epoch(make.epoch(1, 1))
    assert not [tag for tag in running.finish().all_tags if "Validation" in tag]


def test_resumed_launch_goes_on_with_the_validations_before_it(
    tmp_path: Path, make: SimpleNamespace, accumulate: Callable[..., Any]
) -> None:
    earlier = [("01_Training/Validation_Loss", 10, 0.4), ("01_Training/Validation_Loss", 20, 0.5)]
    lines = [json.dumps({"step": step, "tag": tag, "value": value}) + "\n" for tag, step, value in earlier]
    (tmp_path / "metrics.jsonl").write_text("".join(lines))
    writer = Writer(tmp_path, first_new_step=21)
    category = EpochSummary(make.context(writer))
    category.on_start()
    category.on_epoch(make.epoch(3, 24))
    category.on_validation(make.validation(25))  # 0.3, and 0.25 the best so far
    category.on_epoch(make.epoch(4, 32))
    writer.close()
    scalars = accumulate(tmp_path).Scalars
    latest = {point.step: point.value for point in scalars("03_Epoch_Summary/Validation_Loss")}
    best = {point.step: point.value for point in scalars("03_Epoch_Summary/Best_Validation_Loss")}
    assert latest == {3: pytest.approx(0.5), 4: pytest.approx(0.3)}
    assert best == {3: pytest.approx(0.4), 4: pytest.approx(0.25)}


def test_planned_rates_at_the_present_step(session: Callable[..., Any], make: SimpleNamespace) -> None:
    running = session("04_Learning_Rate")
    running.step(make.record(1500, is_last=True, learning_rates={"weights": 6e-4, "norms": 3e-4}))
    reader = running.finish()
    plan = running.view.learning_rate_at
    assert reader.points("04_Learning_Rate/Current_LR") == {1500: pytest.approx(6e-4)}
    assert reader.points("04_Learning_Rate/Current_LR/norms") == {1500: pytest.approx(3e-4)}
    assert reader.points("04_Learning_Rate/LR_In_100_Steps") == {1500: pytest.approx(plan(1600))}
    assert reader.points("04_Learning_Rate/LR_In_1000_Steps") == {1500: pytest.approx(plan(2000))}
    assert reader.points("04_Learning_Rate/LR_At_End") == {1500: pytest.approx(plan(2000))}
    assert reader.points("04_Learning_Rate/Scheduler_State/last_epoch") == {1500: 7}


def test_marker_of_the_plan_stands_at_the_present_step(session: Callable[..., Any], make: SimpleNamespace) -> None:
    columns = []
    running = session("04_Learning_Rate", diagnostic_log_every_steps=500)
    for step in (500, 1500):
        running.step(make.record(step))
        running.dispatcher.flush()
    reader = running.finish()
    assert reader.image_steps("04_Learning_Rate/Schedule") == [500, 1500]
    for event in reader.events.Images("04_Learning_Rate/Schedule"):
        picture = numpy.asarray(Image.open(io.BytesIO(event.encoded_image_string)))
        is_marker = (picture == numpy.array(ACCENT)).all(axis=-1)
        columns.append(numpy.median(is_marker.nonzero()[1]))
    # The axis runs over 2000 steps and 584 pixels.
    assert columns[1] - columns[0] == pytest.approx(1000 / 1999 * 584, abs=2)


def test_a_schedule_without_a_plan_has_no_planned_tags(session: Callable[..., Any], make: SimpleNamespace) -> None:
    view = make.view()
    view.last_step, view.state, view.learning_rate_at = None, {"best": 0.5}, lambda step: None
    running = session("04_Learning_Rate", view=view)
    running.step(make.record(4))
    tags = running.finish().all_tags
    assert tags == {"04_Learning_Rate/Current_LR", "04_Learning_Rate/Scheduler_State/best"}


def test_rates_of_an_interval(session: Callable[..., Any], make: SimpleNamespace) -> None:
    running = session("05_Performance", log_every_steps=2)
    running.step(make.record(1, step_seconds=10.0))
    running.step(make.record(2, step_seconds=10.0))
    running.step(make.record(3, step_seconds=0.25, data_seconds=0.05, frames_in_step=10))
    running.step(make.record(4, step_seconds=0.75, data_seconds=0.15, frames_in_step=26))
    running.dispatcher.on_validation(make.validation(4))
    reader = running.finish()
    assert reader.points("05_Performance/Samples_Per_Second") == {2: pytest.approx(0.6), 4: pytest.approx(12)}
    assert reader.last("05_Performance/Steps_Per_Second") == pytest.approx(2)
    assert reader.last("05_Performance/Frames_Per_Second") == pytest.approx(36)
    assert reader.last("05_Performance/Step_Time_Seconds") == pytest.approx(0.5)
    assert reader.last("05_Performance/Data_Wait_Percent") == pytest.approx(20)
    assert reader.last("05_Performance/Model_TFLOPs") == pytest.approx(3 * 2e9 * (36 / 32) / 1e12)  # of MAX_FRAMES
    assert reader.last("05_Performance/MFU_Percent") == pytest.approx(100 * 3 * 2e9 * (36 / 32) / 1e13)
    assert reader.points("05_Performance/Validation_Seconds") == {4: 1.5}
    assert "05_Performance/Sampling_Seconds" not in reader.all_tags


def test_how_far_the_processes_are_apart(session: Callable[..., Any], make: SimpleNamespace) -> None:
    running = session("05_Performance", log_every_steps=2)
    running.step(make.record(1, step_seconds=0.25, rank_seconds=()))
    running.step(make.record(2, step_seconds=0.75, rank_seconds=(0.1, 0.4, 0.2)))
    running.step(make.record(3, step_seconds=0.5, rank_seconds=()))
    running.step(make.record(4, step_seconds=0.5, rank_seconds=()))
    reader = running.finish()
    assert reader.points("05_Performance/Rank_Seconds_Fastest") == {2: pytest.approx(0.1)}
    assert reader.points("05_Performance/Rank_Seconds_Slowest") == {2: pytest.approx(0.4)}
    assert reader.points("05_Performance/Rank_Spread_Percent") == {2: pytest.approx(100 * (0.4 - 0.2) / 0.5)}
    assert reader.points("05_Performance/Slowest_Rank") == {2: 1.0}


def test_what_a_checkpoint_cost(session: Callable[..., Any], make: SimpleNamespace) -> None:
    running = session("05_Performance")
    running.dispatcher.on_checkpoint(make.checkpoint(400))
    reader = running.finish()
    assert reader.points("05_Performance/Checkpoint_Stall_Seconds") == {400: 0.25}
    assert reader.points("05_Performance/Checkpoint_Write_Seconds") == {400: 1.5}
    assert reader.points("05_Performance/Checkpoint_Megabytes") == {400: 12.5}


def test_unknown_flops_and_end_are_absent(session: Callable[..., Any], make: SimpleNamespace) -> None:
    view = make.view(forward_flops=None)
    view.last_step = None
    running = session("05_Performance", view=view)
    running.step(make.record(2))
    tags = running.finish().all_tags
    assert not tags & {"05_Performance/Model_TFLOPs", "05_Performance/MFU_Percent", "05_Performance/ETA_Seconds"}


def test_overhead_and_sampling_come_from_the_clock(session: Callable[..., Any], make: SimpleNamespace) -> None:
    running = session("05_Performance", log_every_steps=1)
    clock = running.dispatcher.clock
    clock.logging_seconds = 1.0
    running.step(make.record(1, step_seconds=9.0))
    clock.logging_seconds, clock.sampling_seconds = 2.0, 4.0
    running.step(make.record(2, step_seconds=9.0))
    clock.sampling_seconds = 7.0
    running.step(make.record(3, is_last=True))
    clock.sampling_seconds = 9.0  # the last step's own samples
    reader = running.finish()
    overhead = reader.points("05_Performance/Logging_Overhead_Percent")
    assert overhead[1] == pytest.approx(100 * 1 / 10, rel=1e-3)
    assert overhead[2] == pytest.approx(100 * 2 / 20, rel=1e-3)
    assert reader.points("05_Performance/Sampling_Seconds") == {2: 4.0, 3: 5.0}


def test_time_left_follows_the_pace_of_the_launch(
    session: Callable[..., Any], make: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = HeldClock()
    monkeypatch.setattr(c05_performance, "time", clock)
    running = session("05_Performance", log_every_steps=1)
    clock.now += 0.25
    running.step(make.record(1000))
    assert running.finish().last("05_Performance/ETA_Seconds") == 0.25 * 1000
