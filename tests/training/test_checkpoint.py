"""Checkpoints are whole or absent, and a damaged one is never loaded."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from torch import nn

from common.errors import UserError
from training import checkpoint as module
from training.checkpoint import TrainingState, list_checkpoints, load_newest, read_checkpoint, save_checkpoint

FILES = ("model.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json", "manifest.json")


def state(step: int) -> TrainingState:
    return TrainingState(step, 4 * step, 1, {"SEED": 3}, ("A", "CH"), {"last_epoch": float(step)}, 0.25)


def save(folder: Path, step: int, keep: int = 5) -> Path:
    model, ema = nn.Conv2d(2, 3, 1).to(memory_format=torch.channels_last), nn.Conv2d(2, 3, 1)
    nn.init.constant_(model.weight, step)
    nn.init.constant_(ema.weight, -step)
    return save_checkpoint(folder, state(step), model, ema, {"step.weight": torch.tensor(float(step))}, keep)


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    folder = save(tmp_path, 7)
    assert folder.name == "step_00000007"
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert (tmp_path / "LATEST").read_text() == "step_00000007\n"
    loaded = load_newest(tmp_path)
    assert loaded is not None
    assert loaded.state == state(7)
    assert torch.equal(loaded.weights("model")["weight"], torch.full((3, 2, 1, 1), 7.0))
    assert torch.equal(loaded.weights("ema")["weight"], torch.full((3, 2, 1, 1), -7.0))
    assert loaded.weights("optimizer")["step.weight"] == 7


def test_only_the_newest_are_kept_by_number_not_by_name(tmp_path: Path) -> None:
    for step in (5, 99_999_999, 100_000_000):
        save(tmp_path, step, keep=2)
    assert [folder.name for folder in list_checkpoints(tmp_path)] == ["step_100000000", "step_99999999"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, damage: str
) -> None:
    save(tmp_path, 1)
    file = save(tmp_path, 2) / name
    content = bytearray(file.read_bytes())
    if damage == "delete":
        file.unlink()
    elif damage == "truncate":
        file.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    loaded = load_newest(tmp_path)
    assert loaded is not None
    assert loaded.state.step == 1
    warning = capsys.readouterr().err
    assert "step_00000002 is damaged" in warning
    assert name in warning or name == "manifest.json"  # a flipped digit of a hash blames the file it belongs to


def test_all_damaged_is_an_error_and_nothing_is_a_fresh_start(tmp_path: Path) -> None:
    assert load_newest(tmp_path / "none") is None
    assert load_newest(tmp_path) is None
    (save(tmp_path, 1) / "ema.safetensors").unlink()
    with pytest.raises(UserError, match=r"all 1 checkpoints .* are damaged"):
        load_newest(tmp_path)


def test_a_newer_format_is_refused_by_name(tmp_path: Path) -> None:
    manifest = save(tmp_path, 1) / "manifest.json"
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(content | {"format_version": 99}))
    with pytest.raises(UserError, match="format version 99, this program reads 1"):
        read_checkpoint(manifest.parent)


@pytest.mark.parametrize("call", ["fsync", "replace", "save_file"])
def test_a_full_disk_leaves_the_old_checkpoint_and_no_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    save(tmp_path, 1)

    def no_space(*arguments: object) -> None:
        # safetensors has an exception of its own, which is no OSError
        raise (SafetensorError if call == "save_file" else OSError)("No space left on device")

    monkeypatch.setattr(module if call == "save_file" else module.os, call, no_space)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, 2)
    monkeypatch.undo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["LATEST", "step_00000001"]
    loaded = load_newest(tmp_path)
    assert loaded is not None
    assert loaded.state.step == 1


def test_leftovers_of_a_killed_save_are_not_loaded_and_are_removed_by_the_next(tmp_path: Path) -> None:
    done = save(tmp_path, 1)
    shutil.copytree(done, tmp_path / ".tmp-step_00000002-abc")
    assert [folder.name for folder in list_checkpoints(tmp_path)] == ["step_00000001"]
    save(tmp_path, 3)
    assert not (tmp_path / ".tmp-step_00000002-abc").exists()


def test_the_checkpoint_just_written_survives_damaged_ones_with_higher_numbers(tmp_path: Path) -> None:
    for step in (650, 975):
        save(tmp_path, step)
    (tmp_path / "step_00000975" / "ema.safetensors").unlink()
    save(tmp_path, 700, keep=1)
    assert [folder.name for folder in list_checkpoints(tmp_path)] == ["step_00000700"]
