"""01_Training against numpy."""

import dataclasses
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch


def test_means_cover_every_step_since_the_last_point(session: Callable[..., Any], make: SimpleNamespace) -> None:
    running = session("01_Training", log_every_steps=3)
    for step in range(1, 8):
        running.step(make.record(step, is_last=step == 7))
    reader = running.finish()
    loss = reader.points("01_Training/Loss")
    assert loss == {
        3: pytest.approx((1 + 1 / 2 + 1 / 3) / 3),
        6: pytest.approx((1 / 4 + 1 / 5 + 1 / 6) / 3),
        7: pytest.approx(1 / 7),
    }
    norms = {step: 0.5 + step % 3 for step in range(1, 8)}
    assert reader.points("01_Training/Gradient_Norm")[6] == pytest.approx((norms[4] + norms[5] + norms[6]) / 3)
    assert reader.points("01_Training/Gradient_Norm_Clipped")[6] == pytest.approx((1 + 1 + 0.5) / 3)
    assert reader.points("01_Training/Samples_Seen") == {3: 18, 6: 36, 7: 42}
    assert reader.points("01_Training/Epoch") == {3: 2, 6: 2, 7: 2}
    assert reader.points("01_Training/Learning_Rate")[3] == pytest.approx(1e-3)


def test_an_early_point_has_the_mean_so_far_and_changes_no_later_point(
    session: Callable[..., Any], make: SimpleNamespace
) -> None:
    running = session("01_Training", log_every_steps=4)
    losses = [0.7, 0.1, 0.4, 0.3, 0.2]
    for step, loss in enumerate(losses, 1):
        changes = {"loss": torch.tensor(loss), "skipped": torch.tensor(step < 3), "is_first": step == 1}
        running.step(make.record(step, is_early_point=step in (1, 3), is_last=step == 5, **changes))
    reader = running.finish()
    assert reader.points("01_Training/Loss") == {
        1: pytest.approx(0.7),
        3: pytest.approx(1.2 / 3),
        4: pytest.approx(1.5 / 4),
        5: pytest.approx(0.2),
    }
    assert reader.points("01_Training/Skipped_Steps") == {1: 1, 3: 2, 4: 2, 5: 2}
    assert reader.points("01_Training/Samples_Seen") == {1: 6, 3: 18, 4: 24, 5: 30}


def test_moving_average_is_corrected_and_ignores_non_finite_losses(
    session: Callable[..., Any], make: SimpleNamespace
) -> None:
    running = session("01_Training", log_every_steps=2)
    losses = [2.0, math.nan, 1.0, 0.5]
    for step, loss in enumerate(losses, 1):
        is_broken = torch.tensor(math.isnan(loss))
        running.step(make.record(step, loss=torch.tensor(loss), skipped=is_broken))
    reader = running.finish()
    average = weight = 0.0
    for loss in (2.0, 1.0, 0.5):
        average, weight = 0.99 * average + 0.01 * loss, 0.99 * weight + 0.01
    assert reader.points("01_Training/Loss_EMA") == {2: pytest.approx(2.0), 4: pytest.approx(average / weight)}
    assert reader.points("01_Training/Loss") == {2: pytest.approx(2.0), 4: pytest.approx(0.75)}
    assert reader.points("01_Training/Skipped_Steps") == {2: 1, 4: 1}


def test_skipped_steps_accumulate_and_validation_is_written(session: Callable[..., Any], make: SimpleNamespace) -> None:
    running = session("01_Training", log_every_steps=2)
    for step in range(1, 7):
        running.step(dataclasses.replace(make.record(step), skipped=torch.tensor(step != 4)))
    running.dispatcher.on_validation(make.validation(6))
    reader = running.finish()
    assert reader.points("01_Training/Skipped_Steps") == {2: 2, 4: 3, 6: 5}
    assert reader.points("01_Training/Validation_Loss") == {6: pytest.approx(0.3)}


def test_overflows_accumulate_beside_the_scale_of_the_step(session: Callable[..., Any], make: SimpleNamespace) -> None:
    running = session("01_Training", log_every_steps=2)
    scales = [8.0, 4.0, 2.0, 2.0, 2.0, 1.0]  # halved after steps 1, 2 and 5
    for step, scale in enumerate(scales, 1):
        overflowed = step in (1, 2, 5)
        norms = {"gradient_norm": torch.tensor(math.inf)} if overflowed else {}
        scaling = {"overflowed": torch.tensor(overflowed), "loss_scale": torch.tensor(scale)}
        running.step(make.record(step, **norms, **scaling))
    reader = running.finish()
    assert reader.points("01_Training/Loss_Scale") == {2: 4.0, 4: 2.0, 6: 1.0}
    assert reader.points("01_Training/Overflow_Steps") == {2: 2, 4: 2, 6: 3}
    assert reader.points("01_Training/Skipped_Steps") == {2: 0, 4: 0, 6: 0}
    assert reader.points("01_Training/Gradient_Norm")[6] == pytest.approx(0.5)  # of step 6 alone


def test_without_a_scale_nothing_is_said_of_it(session: Callable[..., Any], make: SimpleNamespace) -> None:
    running = session("01_Training", log_every_steps=1)
    running.step(make.record(1))
    assert not {"01_Training/Loss_Scale", "01_Training/Overflow_Steps"} & running.finish().all_tags
