"""Who may start in a run folder, and what a resume takes from the checkpoint."""

import os
from pathlib import Path

import pytest

from checkpoints.checkpoint import Checkpoint, TrainingState
from checkpoints.run_folder import find_run, open_run_folder
from common.errors import UserError
from common.files import newest_first
from common.settings import config_as_json, load_settings
from config import PRESETS, Config
from training.resume import config_for_resume


def test_a_fresh_name_every_time_and_a_given_name_once(tmp_path: Path) -> None:
    with (
        open_run_folder(tmp_path, "auto", resume=False) as (first, _),
        open_run_folder(tmp_path, "auto", resume=False) as (second, _),
    ):
        assert first.path != second.path
    with open_run_folder(tmp_path, "mine", resume=False) as (named, checkpoint):
        assert named.path == tmp_path / "mine"
        assert checkpoint is None
    with open_run_folder(tmp_path, "mine", resume=False):  # still empty: nothing to lose
        named.write_json("config.json", {})
    with (
        pytest.raises(UserError, match=r"mine already holds a run. Add --resume"),
        open_run_folder(tmp_path, "mine", resume=False),
    ):
        pass


def test_a_folder_of_runs_stands_for_the_newest_one_with_a_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for age, name in ((30, "old"), (20, "trained"), (10, "just_started")):
        (tmp_path / "logs" / name / "checkpoints" / ("" if name == "just_started" else "step_00000002")).mkdir(
            parents=True
        )
        (tmp_path / "logs" / name / "config.json").write_text("{}")
        os.utime(tmp_path / "logs" / name / "config.json", (1_000_000 - age, 1_000_000 - age))
    assert find_run(tmp_path / "logs") == tmp_path / "logs" / "trained"
    assert capsys.readouterr() == ("", f"Run: {tmp_path / 'logs' / 'trained'}\n")
    assert find_run(tmp_path / "logs" / "just_started") == tmp_path / "logs" / "just_started"  # it was named
    assert capsys.readouterr().err == ""
    for path, message in ((tmp_path, "neither a run nor a folder of runs"), (tmp_path / "none", "no such folder")):
        with pytest.raises(UserError, match=f"--run {path}: .*{message}.*; train one with `python main.py"):
            find_run(path)


def test_resume_without_a_name_takes_the_run_used_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for age, name in ((30, "old"), (10, "new"), (20, "older")):
        with open_run_folder(tmp_path, name, resume=False) as (folder, _):
            folder.write_json("config.json", {})
        stamp = folder.path.stat().st_mtime - age
        os.utime(folder.path / "config.json", (stamp, stamp))
    assert newest_first(tmp_path, "*/config.json") == [tmp_path / name for name in ("new", "older", "old")]
    with open_run_folder(tmp_path, "auto", resume=True) as (folder, checkpoint):
        assert folder.path == tmp_path / "new"
        assert checkpoint is None
    assert capsys.readouterr().out == f"--resume: {tmp_path / 'new'} holds no checkpoint; starting at step 0\n"
    for name in ("old", "older"):
        (tmp_path / name / "checkpoints" / "step_00000001").mkdir(parents=True)
    with open_run_folder(tmp_path, "auto", resume=True):
        assert capsys.readouterr().out.endswith(
            "step 0; to go on with another run, add --experiment-name and one of: older, old\n"
        )


def test_a_log_dir_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("")
    with (
        pytest.raises(UserError, match=r"cannot make a run folder in LOG_DIR .*logs"),
        open_run_folder(tmp_path / "logs", "auto", resume=False),
    ):
        pass


def test_what_a_killed_process_left_unfinished_is_removed(tmp_path: Path) -> None:
    for name in ("checkpoints/.tmp-step_00000002-abc/model.safetensors", "samples/.tmp-a.mp4-1", ".tmp-config.json-2"):
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).write_text("half")
    (tmp_path / "run" / "samples" / "a.mp4").write_text("whole")
    with open_run_folder(tmp_path, "run", resume=True):
        pass
    left = {path.name for path in (tmp_path / "run").rglob("*")}
    assert left == {"run.lock", "checkpoints", "samples", "a.mp4"}


def checkpoint_with(config_file: dict[str, object] | None = None, **changes: object) -> Checkpoint:
    config = config_as_json(Config()) | changes
    state = TrainingState(
        step=5,
        samples_seen=20,
        skipped_steps=0,
        config=config,
        config_file=config_as_json(Config()) if config_file is None else config_file,
        symbols=("A",),
        schedule={"last_epoch": 5.0},
        validation_loss=None,
        best_validation_loss=None,
    )
    return Checkpoint(Path("c"), state)


def test_architecture_comes_from_the_checkpoint_and_the_rest_from_today() -> None:
    loaded = load_settings(Config, PRESETS, ["--learning-rate=0.5"], program="main.py")
    config, differences = config_for_resume(loaded, checkpoint_with(MODEL_CHANNELS=[32, 64], LEARNING_RATE=0.25))
    assert config.MODEL_CHANNELS == (32, 64)
    assert config.LEARNING_RATE == 0.5
    channels = list(Config().MODEL_CHANNELS)
    assert set(differences) == {
        "LEARNING_RATE: 0.25 in the checkpoint, 0.5 now; today's is used",
        f"MODEL_CHANNELS: [32, 64] in the checkpoint, {channels} now; the checkpoint's is kept",
    }


def test_an_architecture_asked_for_that_differs_is_an_error_with_both_values() -> None:
    loaded = load_settings(Config, PRESETS, ["--max-frames=8", "--image-size=64"], program="main.py")
    with pytest.raises(UserError) as caught:
        config_for_resume(loaded, checkpoint_with(MAX_FRAMES=12, IMAGE_SIZE=48))
    assert "MAX_FRAMES is 8 now (command line or preset) and 12 in the checkpoint" in str(caught.value)
    assert "IMAGE_SIZE is 64 now (command line or preset) and 48 in the checkpoint" in str(caught.value)


def test_an_architecture_edited_in_the_file_since_is_an_error_too() -> None:
    """The file said 20 frames when the run began, with 20; today it says another number."""
    loaded = load_settings(Config, PRESETS, [], program="main.py")
    then = config_as_json(Config()) | {"MAX_FRAMES": 20, "LEARNING_RATE": 0.25}
    with pytest.raises(UserError, match=r"MAX_FRAMES is 32 now \(config.py\) and 20 in the checkpoint"):
        config_for_resume(loaded, checkpoint_with(then, MAX_FRAMES=20, LEARNING_RATE=0.25))
    config, _ = config_for_resume(loaded, checkpoint_with(then | {"MAX_FRAMES": 32}, MAX_FRAMES=20))
    assert config.MAX_FRAMES == 20  # came from the command line then, and the file is as it was


def test_without_a_checkpoint_today_holds() -> None:
    loaded = load_settings(Config, PRESETS, ["--max-frames=8"], program="main.py")
    assert config_for_resume(loaded, None)[0].MAX_FRAMES == 8
