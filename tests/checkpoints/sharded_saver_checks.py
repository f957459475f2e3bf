"""What test_sharded_model.py lets processes check of savers: main(["name", "folder"])."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from checkpoints import saver as saver_module
from checkpoints import sharded_saver as sharded_saving
from checkpoints.checkpoint import (
    CheckpointTensors,
    Retention,
    RunState,
    TrainingState,
    list_checkpoints,
    read_checkpoint,
)
from checkpoints.saver import CheckpointSaver, FailedCheckpoint, gather_to_main
from checkpoints.sharded_saver import ShardedSaver
from checkpoints.tensor_files import shard_names
from compute.device import place_of_this_process
from distributed.models import own_part, shard
from distributed.processes import Processes, connected_processes
from logging_system.records import CheckpointRecord
from tests.checkpoints.sharded_checks import Net, mesh_of


def at(step: int) -> RunState:
    return RunState(step, 4, 0)


def sharded_saver(processes: Processes, model: nn.Module, checkpoints: Path) -> ShardedSaver:
    return ShardedSaver(
        checkpoints=checkpoints,
        describe=lambda of: TrainingState(
            **vars(of), config={}, config_file={}, symbols=("A",), schedule={}, world_size=processes.part.world_size
        ),
        tensors=lambda: {"model": model.state_dict(), "ema": {}, "optimizer": {}},
        retention=Retention(9),
        processes=processes,
        group=dist.new_group(backend="gloo"),
        saved_step=0,
    )


def saving_without_rows(processes: Processes, folder: Path) -> None:
    """Four processes share two tensors of one row: three have nothing of any."""
    torch.manual_seed(3)
    model, other = nn.Linear(2, 1), nn.Linear(2, 1)
    whole = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for each in (model, other):
        shard(each, mesh_of(processes))
    saver = sharded_saver(processes, model, folder)
    saver.save(at(1), wait=True)
    (saved,) = saver.collect()
    assert isinstance(saved, CheckpointRecord), saved
    checkpoint = read_checkpoint(saved.folder)
    checkpoint.stored("model").fill(other.state_dict())
    for one, another in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(own_part(one), own_part(another))
    assert all(torch.equal(tensor, whole[name]) for name, tensor in checkpoint.weights("model").items())


def hashing(processes: Processes, folder: Path) -> None:
    """Each process reads its own part back and no other; where one cannot, nothing is left on any."""
    hashed: list[str] = []
    forced: list[str] = []
    original, fsync = sharded_saving.sha256, sharded_saving.os.fsync

    def sha256(file: Path) -> str:
        hashed.append(file.name)
        return original(file)

    def noted(descriptor: int) -> None:
        forced.append(Path(f"/proc/self/fd/{descriptor}").resolve().name)
        fsync(descriptor)

    own = shard_names(2)[processes.part.rank]
    model = Net()
    shard(model, mesh_of(processes))
    saver = sharded_saver(processes, model, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharded_saving, "sha256", sha256)
        patch.setattr("checkpoints.checkpoint.sha256", sha256)
        patch.setattr(sharded_saving.os, "fsync", noted)
        saver.save(at(1), wait=True)
    (saved,) = saver.collect()
    assert isinstance(saved, CheckpointRecord), saved
    assert hashed == [own, "state.json"][: 2 - processes.part.rank]  # state.json is the main process's
    assert own in forced
    wanted = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in saved.folder.iterdir()
        if file.name != "manifest.json"
    }
    assert json.loads((saved.folder / "manifest.json").read_text())["sha256"] == wanted
    assert wanted.keys() == {*shard_names(2), "state.json"}

    def fails(file: Path) -> str:
        raise OSError(5, "Input/output error")

    with pytest.MonkeyPatch.context() as patch:
        if processes.part.rank == 1:
            patch.setattr(sharded_saving, "sha256", fails)
        saver.save(at(2), wait=True)
    (failed,) = saver.collect()
    assert isinstance(failed, FailedCheckpoint)
    assert "rank 1: " in str(failed.error)
    assert "Input/output error" in str(failed.error)
    processes.wait()
    assert list_checkpoints(folder) == [saved.folder]
    assert [each.name for each in folder.iterdir() if each.name.startswith(".tmp")] == []


def no_room(processes: Processes, folder: Path) -> None:
    """The save has failed on the main process, the others do not wait for it, and a later one works."""
    model = Net()
    shard(model, mesh_of(processes))
    gathered: list[int] = []

    def gather(tensors: CheckpointTensors) -> CheckpointTensors:
        gathered.append(1)
        return gather_to_main(tensors)

    saver = CheckpointSaver(
        checkpoints=folder,
        describe=lambda of: TrainingState(**vars(of), config={}, config_file={}, symbols=("A",), schedule={}),
        tensors=lambda: dict.fromkeys(("model", "ema", "optimizer"), model.state_dict()),
        retention=Retention(9),
        in_background=True,
        saved_step=0,
        processes=processes,
    )
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(saver_module, "gather_to_main", gather)
    monkeypatch.setattr(saver_module, "bytes_of", lambda tensors: 3 * 2**30)
    monkeypatch.setattr(saver_module, "free_memory", lambda: 2 * 2**30)
    saver.save(at(1), wait=False)
    assert gathered == []
    failed = saver.collect()
    if processes.is_main:
        assert [type(each) for each in failed] == [FailedCheckpoint]
        assert "takes 3.0 GiB" in str(failed[0].error)
        assert "2.0 GiB are free; set CHECKPOINT_LAYOUT to sharded" in str(failed[0].error)
    else:
        assert failed == []
    monkeypatch.setattr(saver_module, "free_memory", lambda: 3 * 2**30)
    saver.save(at(1), wait=True)
    monkeypatch.undo()
    assert gathered == [1]
    assert [type(each) for each in saver.collect()] == [CheckpointRecord] * processes.is_main
    saver.close()


CHECKS = {check.__name__: check for check in (saving_without_rows, hashing, no_room)}


def main(arguments: list[str]) -> int:
    """Run one of them with the other processes."""
    name, folder = arguments
    with connected_processes(place_of_this_process(), torch.device("cpu")) as processes:
        CHECKS[name](processes, Path(folder))
        processes.wait()
    return 0
