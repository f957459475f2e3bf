"""Checkpoints in parts: damage is found in each file, and they become whole. Written here by one process."""

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_saver import save as save_parts

from checkpoints.checkpoint import (
    Checkpoint,
    TrainingState,
    list_checkpoints,
    load_newest,
    load_weights,
    new_checkpoint,
    read_checkpoint,
)
from checkpoints.consolidate import consolidate, main
from checkpoints.run_folder import lock_run
from checkpoints.tensor_files import shard_names
from common.errors import UserError
from common.settings import config_as_json, load_settings
from config import PRESETS, Config
from data.order import Part
from distributed.processes import Processes
from training.build import _changed_step

SHARD = shard_names(1)[0]
FILES = (SHARD, "state.json", "manifest.json")


def state(step: int, world_size: int = 1, **config: object) -> TrainingState:
    return TrainingState(
        step, 4 * step, 0, config=config, config_file={}, symbols=("A",), schedule={"x": 1.0}, world_size=world_size
    )


def save(checkpoints: Path, step: int, world_size: int = 1) -> Path:
    model, average = nn.Linear(2, 3), nn.Linear(2, 3)
    for each, value in ((model, step), (average, -step)):
        nn.init.constant_(each.weight, value)
    tensors = {f"model.{key}": tensor for key, tensor in model.state_dict().items()}
    tensors |= {f"ema.{key}": tensor for key, tensor in average.state_dict().items()}
    tensors["optimizer.step.weight"] = torch.tensor(float(step))
    with new_checkpoint(checkpoints, state(step, world_size)) as folder:
        save_parts(tensors, storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True), no_dist=True)
    return checkpoints / f"step_{step:08d}"


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    folder = save(tmp_path, 3)
    assert sorted(file.name for file in folder.iterdir()) == sorted(FILES)
    loaded = load_newest(tmp_path)
    assert loaded is not None
    assert loaded.state == state(3)
    assert loaded.is_sharded
    assert torch.equal(loaded.weights("ema")["weight"], torch.full((3, 2), -3.0))
    assert loaded.weights("optimizer") == {"step.weight": torch.tensor(3.0)}
    model = nn.Linear(2, 3)
    load_weights(model, loaded, "model")
    assert torch.equal(model.weight, torch.full((3, 2), 3.0))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_a_damaged_part_is_named_and_the_checkpoint_before_is_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, damage: str
) -> None:
    save(tmp_path, 1)
    file = save(tmp_path, 2) / name
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    elif damage == "truncate":
        file.write_bytes(content[: len(content) // 2])
    else:
        file.unlink()
    loaded = load_newest(tmp_path)
    assert loaded is not None
    assert loaded.state.step == 1
    said = capsys.readouterr().err
    assert "step_00000002 is damaged" in said
    assert name in said or name == "manifest.json"


def test_a_process_whose_part_is_missing_is_missed(tmp_path: Path) -> None:
    folder = save(tmp_path, 1, world_size=2)
    with pytest.raises(UserError, match=f"manifest.json does not list {shard_names(2)[1]}"):
        read_checkpoint(folder)


def test_parts_become_whole_files_in_place(tmp_path: Path) -> None:
    checkpoints = tmp_path / "checkpoints"
    save(checkpoints, 1)
    save(checkpoints, 2)
    before = read_checkpoint(checkpoints / "step_00000001")
    weights = {name: before.weights(name) for name in ("model", "ema", "optimizer")}
    assert main(["--run", str(tmp_path), "--checkpoint", "1"]) == 0
    after = read_checkpoint(before.folder)
    assert not after.is_sharded
    assert after.state == before.state
    for name, tensors in weights.items():
        found = after.weights(name)
        assert found.keys() == tensors.keys()
        assert all(torch.equal(found[key], tensors[key]) for key in tensors)
    assert read_checkpoint(checkpoints / "step_00000002").is_sharded
    assert [folder.name for folder in list_checkpoints(checkpoints)] == ["step_00000002", "step_00000001"]


def test_what_cannot_be_consolidated_is_as_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--run", str(tmp_path / "nowhere")]) == 1
    assert "there is no such folder" in capsys.readouterr().err
    with pytest.raises(UserError, match="neither a run nor a folder of runs"):
        consolidate(tmp_path, "newest")
    folder = save(tmp_path / "checkpoints", 1)
    with lock_run(tmp_path), pytest.raises(UserError, match="is in use by"):
        consolidate(tmp_path, "newest")
    assert read_checkpoint(folder).is_sharded


def test_parts_that_have_gone_are_named(tmp_path: Path) -> None:
    loaded = read_checkpoint(save(tmp_path, 1))
    stored = loaded.stored("model")
    shutil.rmtree(loaded.folder)
    with pytest.raises(UserError, match=f"{loaded.folder} is not to be seen.* LOG_DIR must be on one that all"):
        stored.read()


def test_a_step_of_another_number_of_frames_is_said() -> None:
    config = load_settings(Config, PRESETS, [], program="x").config
    then = config_as_json(config)
    checkpoint = Checkpoint(Path(), state(1, world_size=4, **{**then, "GRADIENT_ACCUMULATION_STEPS": 2}))
    assert _changed_step(config, checkpoint, Processes(Part(0, 2))) == ["a step takes up to 128 frames, and took 512"]
    assert _changed_step(config, checkpoint, Processes(Part(0, 8))) == []
