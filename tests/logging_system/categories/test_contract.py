"""What holds for all fifteen categories."""

import dataclasses
import itertools
import random
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch

from logging_system.categories import CATEGORIES
from logging_system.files.scalar_history import tag_expression
from logging_system.statistics import system
from tests.dashboard_tags import TAG_TABLE, tags_of

STEPS = 7
# When points appear, by the longest beginning of the tag.
CADENCES = {
    "01_Training/": "scalars",
    "01_Training/Validation_Loss": "validations",
    "02_Loss_Components/": "scalars",
    "02_Loss_Components/Validation/": "validations",
    "03_Epoch_Summary/": "epochs",
    "03_Epoch_Summary/Validation_Loss": "epochs_after_validation",
    "03_Epoch_Summary/Best_Validation_Loss": "epochs_after_validation",
    "04_Learning_Rate/": "scalars",
    "04_Learning_Rate/Schedule": "diagnostics",
    "04_Learning_Rate/Scheduler_State/": "scalars",
    "05_Performance/": "scalars",
    "05_Performance/Validation_Seconds": "validations",
    "05_Performance/Checkpoint_": "validations",
    "05_Performance/Sampling_Seconds": "scalars_after_samples",
    "06_Diffusion/": "scalars",
    "06_Diffusion/Timestep_Distribution": "diagnostics",
    "06_Diffusion/Loss_By_Timestep_Over_Time": "diagnostics",
    "07_Noise_Analysis/": "diagnostics",
    "08_Model_Architecture/": "start",
    "09_Parameter_Stats/": "diagnostics",
    "10_Parameter_Histograms/": "diagnostics_and_epoch_ends",
    "11_Gradient_Stats/": "diagnostics",
    "12_Generated_Samples/": "samples",
    "13_Noise_Visualization/": "samples",
    "14_System/": "readings",
    "15_Configuration/": "start",
    "15_Configuration/Run_Doctor": "diagnostics",
}
EVERY = {"log_every_steps": 4, "diagnostic_log_every_steps": 5, "sample_every_steps": 6, "log_every_epochs": 2}
STEPS_PER_EPOCH = 3
# The points of two launches with these settings, validated every 5 steps, and read by 14 at most once a minute.
LAUNCHES = {
    (1, 13): {
        "scalars": [4, 8, 12, 13],
        "diagnostics": [1, 5, 10, 13],
        "samples": [6, 12, 13],
        "validations": [5, 10, 13],
        "epochs": [2, 4, 5],  # the fifth is cut short by the end of the run
        "epochs_after_validation": [2, 4, 5],
        "diagnostics_and_epoch_ends": [1, 5, 6, 10, 12, 13],
        "scalars_after_samples": [8, 13],
        "readings": [4, 13],
        "start": [0],
    },
    (21, 27): {  # resumed after step 20
        "scalars": [24, 27],
        "diagnostics": [21, 25, 27],
        "samples": [24, 27],
        "validations": [25, 27],
        "epochs": [8, 9],
        "epochs_after_validation": [9],  # nothing was validated before: the first time is step 25, after epoch 8
        "diagnostics_and_epoch_ends": [21, 24, 25, 27],
        "scalars_after_samples": [27],
        "readings": [24, 27],
        "start": [21],
    },
}
NOT_IN_EVERY_INTERVAL = re.compile("(02_Loss_Components/Timestep|07_Noise_Analysis/Noise_Correlation)_Bin_[1-8]")
FLAGS = {
    "05_Performance": "enable_performance_profiling",
    "09_Parameter_Stats": "enable_parameter_tracking",
    "10_Parameter_Histograms": "enable_parameter_tracking",
    "12_Generated_Samples": "enable_video_logging",
    "13_Noise_Visualization": "enable_noise_visualization",
}


@pytest.fixture(autouse=True)
def cpu_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let CPU time pass between any two readings: the computer counts it in hundredths of a second."""
    seconds = itertools.count()
    monkeypatch.setattr(system, "_busy_and_total", lambda: (0.0, float(next(seconds))))


def drive(session: Any, make: SimpleNamespace, steps: int = STEPS) -> Any:
    for step in range(1, steps + 1):
        is_first, is_last = step == 1, step == steps
        session.dispatcher.before_step(step, is_first=is_first, is_last=is_last)
        make.gradients(session.view.model, step)
        with torch.no_grad():
            for parameter in session.view.model.parameters():
                parameter -= 0.01 * parameter.grad
        session.step(make.record(step, is_first=is_first, is_last=is_last))
        if step == steps:
            session.dispatcher.on_validation(make.validation(step))
            session.dispatcher.on_checkpoint(make.checkpoint(step))
    session.dispatcher.on_epoch(make.epoch(1, steps, is_partial=True, is_last=True))
    return session.finish()


def cadence_of(tag: str) -> str:
    return CADENCES[max((beginning for beginning in CADENCES if tag.startswith(beginning)), key=len)]


def launch(running: Any, make: SimpleNamespace, first: int, last: int) -> None:
    """Do what the training loop does, in its order."""
    dispatcher, view = running.dispatcher, running.view
    for step in range(first, last + 1):
        is_first, is_last = step == first, step == last
        dispatcher.before_step(step, is_first=is_first, is_last=is_last)
        make.gradients(view.model, step)
        running.step(make.record(step, is_first=is_first, is_last=is_last))
        if step % 5 == 0 or is_last:
            dispatcher.on_validation(make.validation(step))
            dispatcher.on_checkpoint(make.checkpoint(step))
        is_partial = step % STEPS_PER_EPOCH != 0
        if not is_partial or is_last:
            epoch = make.epoch(-(-step // STEPS_PER_EPOCH), step, is_partial=is_partial, is_last=is_last)
            dispatcher.on_epoch(epoch)


@pytest.mark.parametrize("name", [spec.name for spec in CATEGORIES])
@pytest.mark.parametrize("span", LAUNCHES, ids=["new", "resumed"])
def test_points_fall_on_the_cadence_and_nowhere_else(
    span: tuple[int, int],
    name: str,
    session: Callable[..., Any],
    make: SimpleNamespace,
    read_events: Callable[..., Any],
) -> None:
    first, last = span
    needed = ("13_Noise_Visualization",) if name == "05_Performance" else ()  # it reports how long samples took
    running = session(name, *needed, view=make.view(start_step=first - 1), **EVERY)
    launch(running, make, first, last)
    running.finish()
    steps: dict[str, list[int]] = {}
    for event in read_events(running.run_folder):
        for value in event.summary.value:
            if value.tag.startswith(f"{name}/"):
                steps.setdefault(value.tag, []).append(event.step)
    table = tags_of(name)
    unwritten = [tag for tag in table if not any(tag_expression(tag).fullmatch(written) for written in steps)]
    assert [tag for tag in unwritten if not table[tag].absent_when] == []
    for tag, found in steps.items():
        expected = LAUNCHES[span][cadence_of(tag)]
        if NOT_IN_EVERY_INTERVAL.fullmatch(tag):
            assert set(found) <= set(expected), tag
            assert len(set(found)) == len(found), tag
        else:
            assert sorted(found) == expected, tag


def test_names_and_order_are_the_fifteen() -> None:
    assert [spec.name[:3] for spec in CATEGORIES] == [f"{number:02d}_" for number in range(1, 16)]


def test_every_tag_has_its_category_as_prefix_and_a_description() -> None:
    assert len(TAG_TABLE) == sum(len(category.tags) for category in CATEGORIES)
    for tag, meaning in TAG_TABLE.items():
        assert tag.split("/")[0] in {category.name for category in CATEGORIES}
        assert len(meaning.description) > 20, tag


def test_run_writes_what_the_table_says_and_nothing_else(session: Callable[..., Any], make: SimpleNamespace) -> None:
    view = make.view(resume_differences=("SEED was 1 and is 2.",))
    reader = drive(session(view=view), make)
    expressions = {tag: tag_expression(tag) for tag in TAG_TABLE}
    unknown = {tag for tag in reader.all_tags if not any(e.fullmatch(tag) for e in expressions.values())}
    assert unknown == set()
    missing = {
        tag
        for tag, expression in expressions.items()
        if not TAG_TABLE[tag].absent_when and not any(expression.fullmatch(written) for written in reader.all_tags)
    }
    assert missing == set()
    absent = {tag for tag, e in expressions.items() if not any(e.fullmatch(written) for written in reader.all_tags)}
    assert absent == {
        "01_Training/Loss_Scale",
        "01_Training/Overflow_Steps",
        "04_Learning_Rate/Current_LR/{group}",
        "05_Performance/Dropped_Videos",
        "05_Performance/Logging_Failures",
        "11_Gradient_Stats/{layer}/Non_Finite",
        "12_Generated_Samples/Frozen_Frame_Percent",
        "12_Generated_Samples/Held_Frame_Distance",
        "12_Generated_Samples/Hold_Ratio",
        "12_Generated_Samples/Letter_Error_Rate",
        "12_Generated_Samples/Motion_Map_Agreement",
        "12_Generated_Samples/Motion_Map_Agreement_Others",
        "12_Generated_Samples/Moving_Frame_Distance",
        "12_Generated_Samples/Moving_Frame_Distance_Real",
        "12_Generated_Samples/Moving_Sharpness_Ratio",
        "12_Generated_Samples/Nearest_Training_Distance",
        "12_Generated_Samples/Nearest_Training_Distance_Real",
        "12_Generated_Samples/Other/{measure}",
        "12_Generated_Samples/Real_Ceiling",
        "12_Generated_Samples/Retrieval_Real_Ceiling",
        "12_Generated_Samples/Retrieval_Shuffled_Floor",
        "12_Generated_Samples/Retrieval_Top1",
        "12_Generated_Samples/Shuffled_Floor",
        "15_Configuration/Step_Plan",
        *(tag for tag in absent if tag.startswith(("14_System/GPU_", "14_System/MPS_", "14_System/Loader_"))),
    }


def test_one_step_fills_all_fifteen(session: Callable[..., Any], make: SimpleNamespace) -> None:
    reader = drive(session(log_every_steps=50, diagnostic_log_every_steps=50, sample_every_steps=50), make, steps=1)
    assert {tag.split("/")[0] for tag in reader.all_tags} == {spec.name for spec in CATEGORIES}


def test_every_written_tag_carries_its_description(session: Callable[..., Any], make: SimpleNamespace) -> None:
    reader = drive(session(), make)
    for tag in reader.tags["scalars"] + reader.tags["images"] + reader.tags["histograms"]:
        assert len(reader.description(tag)) > 20, tag


@pytest.mark.parametrize("name", FLAGS)
def test_flag_off_writes_nothing_of_the_category(name: str, session: Callable[..., Any], make: SimpleNamespace) -> None:
    running = session(**{FLAGS[name]: False})
    reader = drive(running, make)
    assert [tag for tag in reader.all_tags if tag.startswith(name)] == []
    assert [tag for tag in reader.all_tags if tag.startswith("01_Training")] != []
    if name == "12_Generated_Samples":
        assert (running.view.samples_made, running.view.visualisations_made) == (0, 2)
    if name == "13_Noise_Visualization":
        assert (running.view.samples_made, running.view.visualisations_made) == (2, 0)


def test_gradient_histograms_have_their_own_flag(session: Callable[..., Any], make: SimpleNamespace) -> None:
    reader = drive(session(enable_gradient_histograms=False), make)
    of_gradients = [tag for tag in reader.all_tags if tag.startswith("11_Gradient_Stats")]
    assert "11_Gradient_Stats/entry/Norm" in of_gradients
    assert [tag for tag in of_gradients if "Histogram" in tag] == []


def test_no_gradients_no_validation_no_samples_is_no_failure(
    session: Callable[..., Any], make: SimpleNamespace
) -> None:
    running = session()
    running.step(make.record(1, is_first=True, is_last=True))
    reader = running.finish()
    assert "11_Gradient_Stats/Total_Gradient_Norm" in reader.all_tags
    assert "11_Gradient_Stats/Average_Gradient_Norm" not in reader.all_tags
    assert "01_Training/Validation_Loss" not in reader.all_tags


def test_global_random_state_is_untouched(session: Callable[..., Any], make: SimpleNamespace) -> None:
    running = session()
    before = torch.get_rng_state(), numpy.random.get_state()[1].tolist(), random.getstate()
    drive(running, make)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert numpy.random.get_state()[1].tolist() == before[1]
    assert random.getstate() == before[2]


def test_weights_and_gradients_are_untouched(session: Callable[..., Any], make: SimpleNamespace) -> None:
    logged, silent = make.network(), make.network()
    running = session(view=make.view(model=logged))
    drive(running, make)
    for step in range(1, STEPS + 1):
        make.gradients(silent, step)
        with torch.no_grad():
            for parameter in silent.parameters():
                parameter -= 0.01 * parameter.grad
    for one, other in zip(logged.parameters(), silent.parameters(), strict=True):
        assert torch.equal(one, other)
        assert torch.equal(one.grad, other.grad)


def test_nan_everywhere_is_counted_and_harmless(session: Callable[..., Any], make: SimpleNamespace) -> None:
    running = session()
    record = make.record(1, is_first=True, is_last=True)
    broken = {
        field.name: torch.full_like(value, torch.nan)
        for field in dataclasses.fields(record.samples)
        if (value := getattr(record.samples, field.name)).is_floating_point()
    }
    tensors = {
        field.name: torch.full_like(value, torch.nan)
        for field in dataclasses.fields(record.tensors)
        if (value := getattr(record.tensors, field.name)).is_floating_point()
    }
    nan = torch.tensor(torch.nan)
    with torch.no_grad():
        for parameter in running.view.model.parameters():
            parameter.fill_(torch.nan)
            parameter.grad = torch.full_like(parameter, torch.nan)
    running.step(
        dataclasses.replace(
            record,
            loss=nan,
            gradient_norm=nan,
            gradient_norm_clipped=nan,
            skipped=torch.tensor(True),
            samples=dataclasses.replace(record.samples, **broken),
            tensors=dataclasses.replace(record.tensors, **tensors),
        )
    )
    reader = running.finish()
    values = sum(parameter.numel() for parameter in running.view.model.parameters())
    signal_clips = int((~record.tensors.is_terminal).sum())
    assert reader.last("11_Gradient_Stats/Non_Finite") == values
    assert reader.last("11_Gradient_Stats/entry/Non_Finite") == 16
    assert reader.last("09_Parameter_Stats/entry/Non_Finite") == 16
    assert reader.last("07_Noise_Analysis/Predicted_Non_Finite") == signal_clips * 3 * 3 * 6 * 6
    assert reader.last("01_Training/Skipped_Steps") == 1
    assert torch.isnan(torch.tensor(reader.last("01_Training/Loss")))
    assert "07_Noise_Analysis/Noise_Correlation" not in reader.all_tags
