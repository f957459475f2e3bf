"""NaN and infinity in a video, in the loss and in a gradient: the step is skipped, counted and kept for replay."""

import functools
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load

from checkpoints.checkpoint import list_checkpoints
from tests.grids import mostly_slow
from tests.reliability.faults import poison, poison_weight
from tests.reliability.launch import launch, train
from tests.reliability.read_back import curve, largest_difference, newest, state_of

OPTIONS = ("--no-enable-video-logging", "--no-enable-noise-visualization", "--no-save-in-background")
BAD_STEP = 3


@pytest.mark.parametrize("value", mostly_slow([math.nan, math.inf]))
@pytest.mark.parametrize("place", mostly_slow(["loss", "video", "gradient"]))
def test_a_skipped_step_changes_nothing_is_counted_and_can_be_replayed(
    tmp_path: Path, place: str, value: float
) -> None:
    fault = functools.partial(poison, place, value, [BAD_STEP])
    bad = train(tmp_path, *OPTIONS, f"--max-steps={BAD_STEP}", faults=[fault])
    without = train(tmp_path / "without", *OPTIONS, f"--max-steps={BAD_STEP - 1}")
    assert largest_difference(newest(bad.run), newest(without.run)) == 0  # weights, average and optimizer
    assert state_of(newest(bad.run))["step"] == BAD_STEP
    assert state_of(newest(bad.run))["skipped_steps"] == 1
    assert curve(bad.run, "01_Training/Skipped_Steps") == {1: 0, 2: 0, BAD_STEP: 1}

    kept = bad.run / "skipped_steps" / f"step_{BAD_STEP:08d}"
    assert load((kept / "batch.safetensors").read_bytes())["clips"].dtype == torch.uint8
    assert f"python -m training.replay --run {bad.run} --step {BAD_STEP}" in bad.said
    replayed = launch(tmp_path / "replay", f"--run={bad.run}", program="training.replay")
    assert replayed.end() == 0, replayed.said
    # What was put in from outside is not in what was kept, and that is said.
    loss = curve(without.run, "01_Training/Loss")[1]
    assert 0.1 * loss < float(replayed.said.split("loss ")[1].split(",")[0]) < 10 * loss
    assert "All is finite here" in replayed.said
    assert "First layer" not in replayed.said


@pytest.mark.parametrize("layer", mostly_slow(["unet.stem", "text_encoder.position", "unet.timestep.hidden"]))
def test_a_replay_names_the_layer_in_which_it_begins(tmp_path: Path, layer: str) -> None:
    fault = functools.partial(poison_weight, f"{layer}.weight", [2])
    run = train(tmp_path, *OPTIONS, "--max-steps=2", faults=[fault]).run
    replayed = launch(tmp_path / "replay", f"--run={run}", "--step=2", program="training.replay")
    assert replayed.end() == 0, replayed.said
    assert f"Weights that are not finite: {layer}.weight\n" in replayed.said
    assert f"First layer with an output that is not finite: {layer}, although its input is finite" in replayed.said
    assert "It would be skipped again." in replayed.said


def test_training_goes_on_after_a_skipped_step(tmp_path: Path) -> None:
    fault = functools.partial(poison, "loss", math.nan, [2, 3, 5])
    run = train(tmp_path, *OPTIONS, "--max-steps=6", "--max-skipped-steps-in-a-row=3", faults=[fault]).run
    assert list(curve(run, "01_Training/Skipped_Steps").values()) == [0, 1, 2, 2, 3, 3]
    assert all(math.isfinite(float(value)) for step, value in curve(run, "01_Training/Loss").items() if step in (4, 6))


@pytest.mark.slow
def test_too_many_in_a_row_end_the_run_and_push_no_good_checkpoint_out(tmp_path: Path) -> None:
    fault = functools.partial(poison, "gradient", math.inf, range(5, 100))
    options = (*OPTIONS, "--save-every-steps=2", "--keep-checkpoints=2", "--max-skipped-steps-in-a-row=6")
    given_up = train(tmp_path, *options, faults=[fault], exit_code=1)
    assert "was not finite in the last 6 steps, up to step 10 (MAX_SKIPPED_STEPS_IN_A_ROW is 6)" in given_up.said
    assert "Traceback" not in given_up.said
    names = [folder.name for folder in list_checkpoints(given_up.run / "checkpoints")]
    assert names == ["step_00000004", "step_00000002"]  # from before the first bad step
    kept = sorted(path.name for path in (given_up.run / "skipped_steps").iterdir())
    assert kept == [f"step_{step:08d}" for step in (5, 6, 7)]  # the first three
    assert max(curve(given_up.run, "01_Training/Loss")) == 10  # the dashboard has the last step too

    cured = train(tmp_path, *options, "--resume", "--max-steps=12")
    assert "Going on from step 4: " in cured.said
    undisturbed = train(tmp_path / "undisturbed", *options, "--max-steps=12")
    assert largest_difference(newest(cured.run), newest(undisturbed.run)) == 0


def test_a_replay_of_what_was_not_kept_says_what_was(tmp_path: Path) -> None:
    fault = functools.partial(poison, "loss", math.nan, [2])
    run = train(tmp_path, *OPTIONS, "--max-steps=2", faults=[fault]).run
    for arguments, message in (
        ([f"--run={run}", "--step=1"], "kept only 2"),
        ([f"--run={tmp_path}"], "kept no skipped step"),
    ):
        replayed = launch(tmp_path / "replay", *arguments, program="training.replay")
        assert replayed.end() == 1
        assert message in replayed.said
