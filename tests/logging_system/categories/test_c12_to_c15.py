"""12_Generated_Samples, 13_Noise_Visualization, 14_System and 15_Configuration."""

import dataclasses
import io
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch
from PIL import Image

from logging_system.categories.c12_generated_samples import prompt_names
from logging_system.categories.c14_system import System
from logging_system.categories.c15_configuration import LAYOUT, RESULT_TAGS, hyperparameters
from logging_system.doctor.diagnosis import as_markdown, as_text, diagnose
from logging_system.files.scalar_history import read_history, tag_expression
from logging_system.statistics.system import _busy_and_total
from tests.dashboard_tags import TAG_TABLE
from tests.waiting import wait_until

ROOT = Path(__file__).parents[3]


def _frames(encoded: bytes) -> list[numpy.ndarray]:
    image = Image.open(io.BytesIO(encoded))
    frames = []
    for index in range(image.n_frames):
        image.seek(index)
        frames.append(numpy.asarray(image.convert("RGB")))
    return frames


def test_one_clip_a_prompt_grids_and_measures(session: Callable[..., Any], make: SimpleNamespace) -> None:
    running = session("12_Generated_Samples", sample_every_steps=3)
    for step in range(1, 6):
        running.step(make.record(step, is_last=step == 5))
    assert running.view.samples_made == 2
    reader = running.finish()
    prefix = "12_Generated_Samples"
    assert set(reader.tags["images"]) == {
        f"{prefix}/Prompt_1_CAB",
        f"{prefix}/Prompt_2_b_i_c_d",
        f"{prefix}/Grid",
        f"{prefix}/Raw_Weights",
        f"{prefix}/Real_And_Generated",
        f"{prefix}/Time_Lapse",
        f"{prefix}/Durations",
    }
    assert reader.image_steps(f"{prefix}/Grid") == [3, 5]
    assert reader.points(f"{prefix}/Text_Sensitivity") == {3: 0.25, 5: 0.25}
    assert reader.points(f"{prefix}/Sharpness_Ratio") == {3: 2.0, 5: 2.0}
    clip = _frames(reader.image(f"{prefix}/Prompt_1_CAB"))
    assert len(clip) == 4
    assert clip[0].shape == (128, 128, 3)
    assert 'Prompt "CAB (held out)"' in reader.description(f"{prefix}/Prompt_1_CAB")
    # A caption is somebody else's text: the dashboard shows it as it is, and follows no link in it.
    assert r'Prompt "ä/b &lt;i&gt;\[c\](d)?"' in reader.description(f"{prefix}/Prompt_2_b_i_c_d")
    # Two points, two prompts: the time-lapse is two tiles wide and two high, 96 pixels each.
    assert _frames(reader.image(f"{prefix}/Time_Lapse"))[0].shape == (2 * (96 + 20 + 4) + 4, 2 * (96 + 4) + 4, 3)
    files = sorted(path.name for path in (running.run_folder / "samples").iterdir())
    assert files == [
        f"step_0000000{step}_{name}.mp4" for step in (3, 5) for name in ("grid", "prompt_1_CAB", "prompt_2_b_i_c_d")
    ]


def test_raw_and_ema_clips_stand_under_their_own_tags(session: Callable[..., Any], make: SimpleNamespace) -> None:
    view = make.view()
    samples = dataclasses.replace(
        view.generate_samples(),
        generated=(numpy.full((4, 8, 8, 3), 250, numpy.uint8),) * 2,
        generated_raw=(numpy.full((4, 8, 8, 3), 5, numpy.uint8),) * 2,
        real=None,
    )
    view.generate_samples = lambda: samples
    running = session("12_Generated_Samples", view=view)
    running.step(make.record(1, is_last=True))
    reader = running.finish()
    inside = (4 + 20 + 64, 4 + 64)  # padding, caption, then the middle of the first tile
    assert _frames(reader.image("12_Generated_Samples/Grid"))[0][inside].tolist() == [250] * 3
    assert _frames(reader.image("12_Generated_Samples/Raw_Weights"))[0][inside].tolist() == [5] * 3
    assert "12_Generated_Samples/Real_And_Generated" not in reader.all_tags


def test_every_clip_keeps_its_own_length_and_a_grid_lasts_as_long_as_its_longest(
    session: Callable[..., Any], make: SimpleNamespace
) -> None:
    view = make.view()

    def flat(level: int, *lengths: int) -> tuple[numpy.ndarray, ...]:
        return tuple(numpy.full((frames, 8, 8, 3), level, numpy.uint8) for frames in lengths)

    samples = view.generate_samples()
    points = iter(
        [
            dataclasses.replace(
                samples, generated=flat(100, *lengths), generated_raw=flat(50, *lengths), real=flat(10, 8, 8)
            )
            for lengths in ((4, 8), (12, 4))
        ]
    )
    view.generate_samples = lambda: next(points)
    running = session("12_Generated_Samples", view=view, sample_every_steps=1)
    for step in (1, 2):
        running.step(make.record(step))
    reader = running.finish()
    frames = {name: _frames(reader.image(f"12_Generated_Samples/{name}")) for name in ("Grid", "Raw_Weights")}
    assert [len(each) for each in frames.values()] == [12, 12]
    # The second clip ends after four frames, and fades.
    middles = [int(frame[88, 4 + 132 + 64, 0]) for frame in frames["Grid"]]
    assert middles == [100] * 4 + [int(0.35 * 100 + 0.65 * 255)] * 8
    assert len(_frames(reader.image("12_Generated_Samples/Real_And_Generated"))) == 12
    assert len(_frames(reader.image("12_Generated_Samples/Time_Lapse"))) == 12  # the first prompt's two points
    assert len(_frames(reader.image("12_Generated_Samples/Prompt_1_CAB"))) == 12
    assert len(_frames(reader.image("12_Generated_Samples/Prompt_2_b_i_c_d"))) == 4


def test_prompt_names_are_safe_stable_and_distinct() -> None:
    assert prompt_names(["CAB", "C-A B", "CAB", "日本", "../x/" + "y" * 60]) == [
        "1_CAB",
        "2_C_A_B",
        "3_CAB",
        "4",
        "5_x_" + "y" * 38,
    ]


def test_noise_videos_move_and_are_large_enough(session: Callable[..., Any], make: SimpleNamespace) -> None:
    running = session("13_Noise_Visualization", sample_every_steps=2)
    running.step(make.record(2))
    assert running.view.visualisations_made == 1
    reader = running.finish()
    # Rows, columns and the height of a caption: five clips are folded into two rows of three.
    single, three, five = (1, 1, 20), (1, 3, 21), (2, 3, 21)
    layouts = {"Predicted_Noise": single, "Actual_Noise": single, "Original_Video": single}
    layouts |= {"Side_By_Side": five, "Denoising_Filmstrip": three}
    assert set(reader.tags["images"]) == {f"13_Noise_Visualization/{name}" for name in layouts}
    for name, (rows, columns, caption) in layouts.items():
        frames = _frames(reader.image(f"13_Noise_Visualization/{name}"))
        assert len(frames) == 4
        assert frames[0].shape == (rows * (128 + caption + 4) + 4, columns * (128 + 4) + 4, 3)
        assert (frames[0] != frames[1]).any()


def test_system_readings_always_have_a_point(session: Callable[..., Any], make: SimpleNamespace) -> None:
    running = session("14_System", log_every_steps=2)
    for step in range(1, 8):
        begun = _busy_and_total()[1]
        wait_until(lambda begun=begun: _busy_and_total()[1] > begun)  # it is counted in hundredths of a second
        running.step(make.record(step, is_last=step == 7))
    reader = running.finish()
    assert list(reader.points("14_System/RAM_Used_GB")) == [2, 7]  # nothing new between: the period is a minute
    assert 0.05 < reader.last("14_System/Process_RSS_GB") < 100
    assert reader.last("14_System/Disk_Free_GB") > 0
    assert 0 <= reader.last("14_System/CPU_Percent") <= 100
    assert not [tag for tag in reader.all_tags if "GPU" in tag or "MPS" in tag]


def test_system_writes_what_the_device_offers_and_stops_its_thread(
    session: Callable[..., Any], make: SimpleNamespace
) -> None:
    class Device:
        def read(self) -> dict[str, float]:
            return {"GPU_Memory_Allocated_GB": 1.5}

    running = session("01_Training")
    category = System(make.context(running.dispatcher._writer, SYSTEM_SAMPLE_SECONDS=0.02), Device())
    category.on_start()
    due = running.dispatcher.cadence.due(2, is_first=False, is_last=False)
    for step in (2, 4):
        wait_until(lambda: category._sampler._newest)
        category.on_step(make.record(step), due)
    category.close()
    assert not category._sampler._thread.is_alive()
    assert running.finish().points("14_System/GPU_Memory_Allocated_GB") == {2: 1.5, 4: 1.5}


def test_configuration_is_there_from_the_start(session: Callable[..., Any], make: SimpleNamespace) -> None:
    view = make.view(resume_differences=("SEED was 1 and is <2>.",), start_step=10)
    reader = session("15_Configuration", view=view).finish()
    assert "| NUM\\_TRAIN\\_TIMESTEPS | 100 |" in reader.text("15_Configuration/Config")
    assert "| NAME | a\\|b |" in reader.text("15_Configuration/Config")
    assert "python main.py --text \\*" in reader.text("15_Configuration/Environment")
    assert reader.text("15_Configuration/Resume_Differences") == "- SEED was 1 and is &lt;2&gt;."
    assert any(tag.startswith("_hparams_") for tag in reader.tags["tensors"] + list(reader.events.summary_metadata))


def test_a_plan_of_the_steps_gets_a_card_once_it_is_made(session: Callable[..., Any], make: SimpleNamespace) -> None:
    running = session("15_Configuration")
    running.step(make.record(1))
    running.view.planned = "room for 40 steps"
    for step in (2, 3):
        running.step(make.record(step))
    reader = running.finish()
    assert reader.text("15_Configuration/Step_Plan") == "room for 40 steps"
    assert [event.step for event in reader.events.Tensors("15_Configuration/Step_Plan")] == [2]


def _doctor_steps(reader: Any) -> list[int]:
    return [event.step for event in reader.events.Tensors("15_Configuration/Run_Doctor")]


def test_doctor_speaks_at_diagnostics_and_at_the_end(session: Callable[..., Any], make: SimpleNamespace) -> None:
    running = session("01_Training", "15_Configuration", diagnostic_log_every_steps=3)
    for step in range(1, 9):
        running.step(make.record(step, is_first=step == 1, is_last=step == 8))
    running.dispatcher.on_validation(make.validation(8))
    reader = running.finish()
    assert _doctor_steps(reader) == [1, 3, 6, 8]
    assert "01\\_Training/Loss\\_EMA is " in reader.text("15_Configuration/Run_Doctor")
    assert "so far 1 validation (VALIDATE\\_EVERY\\_STEPS)" in reader.text("15_Configuration/Run_Doctor")
    assert "run doctor" not in reader.description("15_Configuration/Run_Doctor")
    assert "plain language" in reader.description("15_Configuration/Run_Doctor")


@pytest.mark.parametrize(
    ("steps", "ending", "expected"),
    [
        ((1,), {"is_last": True}, [1]),
        ((1, 2), {"is_interrupted": True}, [1, 2]),
        ((1, 2, 3), {"is_interrupted": True}, [1, 3]),  # an interrupted step brings no diagnostics of its own
        ((1, 2, 3), {}, [1, 3]),  # the signal came after the diagnostics of step 3
    ],
)
def test_doctor_speaks_once_a_step_however_a_run_ends(
    steps: tuple[int, ...],
    ending: dict[str, bool],
    expected: list[int],
    session: Callable[..., Any],
    make: SimpleNamespace,
) -> None:
    running = session("01_Training", "15_Configuration", diagnostic_log_every_steps=3)
    for step in steps:
        changes = ending if step == steps[-1] else {}
        running.step(make.record(step, is_first=step == 1, **changes))
    assert _doctor_steps(running.finish()) == expected


def test_doctor_says_nothing_of_a_launch_without_steps(session: Callable[..., Any]) -> None:
    assert "15_Configuration/Run_Doctor" not in session("15_Configuration").finish().all_tags


def test_card_and_command_give_the_same_verdict(session: Callable[..., Any], make: SimpleNamespace) -> None:
    running = session(diagnostic_log_every_steps=3)
    for step in range(1, 8):
        loss = torch.tensor(math.nan if step == 7 else 1.0 / step)
        running.step(make.record(step, is_first=step == 1, is_last=step == 7, loss=loss))
        if step >= 4:
            running.dispatcher.on_validation(make.validation(step))
    running.dispatcher.on_epoch(make.epoch(1, 7, is_partial=True, is_last=True))
    card = running.finish().text("15_Configuration/Run_Doctor")
    (running.run_folder / "config.json").write_text(json.dumps(running.view.run.config))
    diagnosis = diagnose(read_history(running.run_folder / "metrics.jsonl").history, running.view.run.config)
    assert [finding.rule for finding in diagnosis.problems] == ["Captions not read", "Diverged"]
    assert card == as_markdown(diagnosis)
    command = [sys.executable, "-m", "logging_system.doctor", str(running.run_folder)]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert finished.stdout == f"Run: {running.run_folder}\n{as_text(diagnosis)}\n"


def test_hyperparameters_have_types_that_the_plugin_knows() -> None:
    written = hyperparameters({"A": True, "B": 3, "C": None, "D": [1, 2], "E": "x", "F": 0.5})
    assert written == {"A": True, "B": 3.0, "C": "None", "D": "[1, 2]", "E": "x", "F": 0.5}
    assert written["A"] is True


def test_layout_and_results_name_tags_that_exist() -> None:
    expressions = [tag_expression(tag) for tag in TAG_TABLE]
    named = [*RESULT_TAGS, *(tag for charts in LAYOUT.values() for tags in charts.values() for tag in tags)]
    assert [tag for tag in named if not any(expression.fullmatch(tag) for expression in expressions)] == []


@pytest.mark.parametrize("flags", [{}, {"enable_video_logging": False, "enable_noise_visualization": False}])
def test_nothing_is_sampled_when_nothing_shows_it(
    flags: dict[str, bool], session: Callable[..., Any], make: SimpleNamespace
) -> None:
    running = session(**flags)
    running.step(make.record(6))
    running.finish()
    expected = 0 if flags else 1
    assert (running.view.samples_made, running.view.visualisations_made) == (expected, expected)
