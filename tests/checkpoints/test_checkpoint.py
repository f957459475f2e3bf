"""Checkpoints are whole or absent, and a damaged one is never loaded."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from torch import nn

from checkpoints import checkpoint, tensor_files
from checkpoints.checkpoint import (
    Retention,
    TrainingState,
    find_checkpoint,
    list_checkpoints,
    load_newest,
    read_checkpoint,
    save_checkpoint,
    set_aside_newer,
)
from common import files
from common.errors import UserError

FILES = ("model.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json", "manifest.json")


def state(step: int, validation_loss: float | None = None) -> TrainingState:
    return TrainingState(
        step=step,
        samples_seen=4 * step,
        skipped_steps=1,
        config={"SEED": 3},
        config_file={"SEED": 4},
        symbols=("A", "CH"),
        schedule={"last_epoch": float(step)},
        validation_loss=validation_loss,
        best_validation_loss=0.25,
        validation_is_due=True,
        world_size=2,
    )


def save(folder: Path, step: int, keep: int = 5, *, loss: float | None = None, **retention: object) -> Path:
    model, ema = nn.Conv2d(2, 3, 1).to(memory_format=torch.channels_last), nn.Conv2d(2, 3, 1)
    nn.init.constant_(model.weight, step)
    nn.init.constant_(ema.weight, -step)
    tensors = {
        "model": model.state_dict(),
        "ema": ema.state_dict(),
        "optimizer": {"step.weight": torch.tensor(float(step))},
    }
    return save_checkpoint(folder, state(step, loss), tensors, Retention(keep, **retention))


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
    with pytest.raises(UserError, match=r"the only checkpoint in .* is damaged"):
        load_newest(tmp_path)


def test_a_newer_format_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as newer:
        newer.setattr(checkpoint, "FORMAT_VERSION", 99)
        folder = save(tmp_path, 1)
    with pytest.raises(UserError, match="format version 99, this program reads 2"):
        read_checkpoint(folder)
    with pytest.raises(UserError, match="format version 99"):  # whole, so an older one must not be taken in its place
        load_newest(tmp_path)


@pytest.mark.parametrize("call", ["fsync", "replace", "save_file"])
def test_a_full_disk_leaves_the_old_checkpoint_and_no_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    save(tmp_path, 1)

    def no_space(*arguments: object) -> None:
        # safetensors has an exception of its own, which is no OSError
        raise (SafetensorError if call == "save_file" else OSError)("No space left on device")

    monkeypatch.setattr(tensor_files if call == "save_file" else files.os, call, no_space)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, 2)
    monkeypatch.undo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["LATEST", "step_00000001"]
    loaded = load_newest(tmp_path)
    assert loaded is not None
    assert loaded.state.step == 1


def test_leftovers_of_a_killed_save_are_not_loaded(tmp_path: Path) -> None:
    done = save(tmp_path, 1)
    shutil.copytree(done, tmp_path / ".tmp-step_00000002-abc")
    assert [folder.name for folder in list_checkpoints(tmp_path)] == ["step_00000001"]


def test_the_best_and_those_of_multiples_are_kept_beside_the_newest(tmp_path: Path) -> None:
    losses = {1: None, 2: 0.5, 3: 0.1, 4: 0.3, 5: float("nan"), 6: 0.2, 7: None, 8: 0.4}
    for step, loss in losses.items():
        save(tmp_path, step, keep=2, loss=loss, keep_best_checkpoint=True, keep_checkpoint_every_steps=4)
    assert [int(folder.name[5:]) for folder in list_checkpoints(tmp_path)] == [8, 7, 4, 3]
    best, newest, fourth = (find_checkpoint(tmp_path, which) for which in ("best", "newest", "4"))
    assert best is not None
    assert newest is not None
    assert fourth is not None
    assert (best.state.step, newest.state.step, fourth.state.step) == (3, 8, 4)
    with pytest.raises(UserError, match=r"no checkpoint '5' .* newest, best or one of: 3, 4, 7, 8"):
        find_checkpoint(tmp_path, "5")


def test_there_is_no_best_one_without_a_validation(tmp_path: Path) -> None:
    save(tmp_path, 1, keep_best_checkpoint=True)
    with pytest.raises(UserError, match="validated at its step and is whole; take the newest"):
        find_checkpoint(tmp_path, "best")


def test_a_pointer_that_cannot_be_written_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "LATEST").mkdir()  # nothing can be renamed to that
    save(tmp_path, 1)
    assert "LATEST cannot be written" in capsys.readouterr().err
    assert load_newest(tmp_path) is not None


def test_a_file_that_is_removed_after_the_check_is_an_error_that_names_it(tmp_path: Path) -> None:
    save(tmp_path, 1)
    loaded = load_newest(tmp_path)
    assert loaded is not None
    shutil.rmtree(loaded.folder)  # as a training that goes on does
    with pytest.raises(UserError, match=r"ema.safetensors cannot be read"):
        loaded.weights("ema")


def test_what_a_resume_passes_by_is_set_aside_and_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for step in (650, 975):
        save(tmp_path, step)
    (tmp_path / "step_00000975" / "ema.safetensors").unlink()
    set_aside_newer(tmp_path, 650)
    assert "step_00000975 is set aside as" in capsys.readouterr().err
    for step in (700, 975):
        save(tmp_path, step, keep=1)
    assert [folder.name for folder in list_checkpoints(tmp_path)] == ["step_00000975"]
    (aside,) = tmp_path.glob("damaged_step_00000975_*")
    assert (aside / "model.safetensors").exists()


def test_a_step_that_was_saved_late_counts_for_its_multiple(tmp_path: Path) -> None:
    for step in (2, 5, 6, 8, 10, 11):
        save(tmp_path, step, keep=1, keep_checkpoint_every_steps=4)  # 4 was skipped
    assert [int(folder.name[5:]) for folder in list_checkpoints(tmp_path)] == [11, 8, 5]


def test_the_best_one_that_is_whole_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for step, loss in ((1, 0.3), (2, 0.1), (3, 0.2)):
        save(tmp_path, step, loss=loss)
    (tmp_path / "step_00000002" / "ema.safetensors").write_bytes(b"torn")
    best = find_checkpoint(tmp_path, "best")
    assert best is not None
    assert best.state.step == 3
    assert "step_00000002 is damaged" in capsys.readouterr().err
