"""Who may start in a run folder, and what a resume takes from the checkpoint."""

import os
from pathlib import Path

import pytest

from common.errors import UserError
from common.settings import config_as_json, load_settings
from config import PRESETS, Config
from training.checkpoint import Checkpoint, TrainingState
from training.resume import config_for_resume
from training.run_folder import newest_run, open_run_folder


def test_a_fresh_name_every_time_and_a_given_name_once(tmp_path: Path) -> None:
    first, _ = open_run_folder(tmp_path, "auto", resume=False)
    second, _ = open_run_folder(tmp_path, "auto", resume=False)
    assert first.path != second.path
    named, checkpoint = open_run_folder(tmp_path, "mine", resume=False)
    assert named.path == tmp_path / "mine"
    assert checkpoint is None
    open_run_folder(tmp_path, "mine", resume=False)  # still empty: nothing to lose
    named.write_json("config.json", {})
    with pytest.raises(UserError, match=r"mine already holds a run. Add --resume"):
        open_run_folder(tmp_path, "mine", resume=False)


def test_resume_without_a_name_takes_the_run_used_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for age, name in ((30, "old"), (10, "new"), (20, "older")):
        folder, _ = open_run_folder(tmp_path, name, resume=False)
        folder.write_json("config.json", {})
        stamp = folder.path.stat().st_mtime - age
        os.utime(folder.path / "config.json", (stamp, stamp))
    assert newest_run(tmp_path) == tmp_path / "new"
    folder, checkpoint = open_run_folder(tmp_path, "auto", resume=True)
    assert folder.path == tmp_path / "new"
    assert checkpoint is None
    assert "holds no checkpoint; starting at step 0. Runs in" in capsys.readouterr().out


def test_a_log_dir_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("")
    with pytest.raises(UserError, match=r"cannot make a run folder in LOG_DIR .*logs"):
        open_run_folder(tmp_path / "logs", "auto", resume=False)


def checkpoint_with(**changes: object) -> Checkpoint:
    config = config_as_json(Config()) | changes
    return Checkpoint(Path("c"), TrainingState(5, 20, 0, config, ("A",), {"last_epoch": 5.0}, None))


def test_architecture_comes_from_the_checkpoint_and_the_rest_from_today() -> None:
    loaded = load_settings(Config, PRESETS, ["--learning-rate=0.5"], program="main.py")
    resumed = config_for_resume(loaded, checkpoint_with(MODEL_CHANNELS=[32, 64], LEARNING_RATE=0.25))
    assert resumed.config.MODEL_CHANNELS == (32, 64)
    assert resumed.config.LEARNING_RATE == 0.5
    channels = list(Config().MODEL_CHANNELS)
    assert set(resumed.differences) == {
        "LEARNING_RATE: 0.25 in the checkpoint, 0.5 now; today's is used",
        f"MODEL_CHANNELS: [32, 64] in the checkpoint, {channels} now; the checkpoint's is kept",
    }


def test_an_architecture_asked_for_that_differs_is_an_error_with_both_values() -> None:
    loaded = load_settings(Config, PRESETS, ["--num-frames=8", "--image-size=64"], program="main.py")
    with pytest.raises(UserError) as caught:
        config_for_resume(loaded, checkpoint_with(NUM_FRAMES=12, IMAGE_SIZE=48))
    assert "NUM_FRAMES is 8 now and 12 in the checkpoint" in str(caught.value)
    assert "IMAGE_SIZE is 64 now and 48 in the checkpoint" in str(caught.value)


def test_without_a_checkpoint_today_holds() -> None:
    loaded = load_settings(Config, PRESETS, ["--num-frames=8"], program="main.py")
    assert config_for_resume(loaded, None).config.NUM_FRAMES == 8
