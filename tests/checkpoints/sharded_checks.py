"""What test_sharded_model.py lets three processes check, each in a process of its own: main(["name", "folder"])."""

import copy
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from checkpoints.checkpoint import (
    Retention,
    RunState,
    TrainingState,
    list_checkpoints,
    read_checkpoint,
    save_checkpoint,
)
from checkpoints.saver import FailedCheckpoint
from checkpoints.sharded_saver import ShardedSaver
from checkpoints.tensor_files import ShardedTensors, WholeTensors, write_shards
from compute.device import place_of_this_process
from config import Config
from distributed import gathering as sharded_gathering
from distributed.gathering import GatheredCopies, GatheredCopy, gather_tensors
from distributed.models import ShardedModel, gathered_bytes, own_part, shard
from distributed.processes import Processes, connected_processes
from logging_system.records import CheckpointRecord
from training.optimizer import (
    ExponentialMovingAverage,
    build_adamw,
    load_optimizer_parts,
    optimizer_tensors,
    step_unless,
    total_norm,
)

SHAPES = {"even": (6, 4), "uneven": (7, 2, 3), "fewer rows than processes": (2, 5), "vector": (4,)}


class Net(nn.Module):
    """Two listed layers and one that is not; 5 rows are divided unevenly, 2 rows leave a process without any."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.layers = nn.ModuleList([nn.Linear(3, 5), nn.Linear(5, 3)])
        self.last = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return self.last(x)


def mesh_of(processes: Processes) -> DeviceMesh:
    return init_device_mesh("cpu", (processes.part.world_size,))


def whole_tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def divided(tensors: Mapping[str, Tensor], mesh: DeviceMesh) -> dict[str, Tensor]:
    return {name: distribute_tensor(tensor, mesh, [Shard(0)]) for name, tensor in tensors.items()}


def loss_of(model: Callable[[Tensor], Tensor], seed: int) -> Tensor:
    return model(torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))).square().mean()


def gathering(processes: Processes, folder: Path) -> None:
    """The main process gets the very tensors, in several messages and in one; the others get none."""
    wanted = whole_tensors()
    mixed = {**divided(wanted, mesh_of(processes)), "of all": torch.tensor(3.0)}
    for bucket_bytes in (1, 60, 2**24):
        sharded_gathering.BUCKET_BYTES = bucket_bytes
        found = dict(gather_tensors(mixed))
        if processes.is_main:
            assert found.keys() == mixed.keys()
            assert found.pop("of all") == 3.0
            assert all(torch.equal(found[name], wanted[name]) for name in wanted)
        else:
            assert found == {}


def reading(processes: Processes, folder: Path) -> None:
    """Parts and whole files fill divided tensors and whole ones with what was written."""
    mesh, wanted = mesh_of(processes), whole_tensors()
    parts = divided(wanted, mesh)
    group = dist.new_group(backend="gloo")
    state = TrainingState(1, 4, 0, config={}, config_file={}, symbols=("A",), schedule={})
    if processes.is_main:
        save_checkpoint(folder, state, dict.fromkeys(("model", "ema", "optimizer"), wanted), Retention(1))
        (folder / "parts").mkdir()
    processes.wait()
    write_shards(folder / "parts", {"model": parts, "ema": {}, "optimizer": {"step.even": torch.tensor(2.0)}}, group)
    for stored in (
        WholeTensors(folder / "step_00000001" / "model.safetensors"),
        ShardedTensors(folder / "parts", "model"),
    ):
        assert stored.shapes() == SHAPES
        assert all(torch.equal(tensor, wanted[name]) for name, tensor in stored.read().items())
        empty = divided({name: torch.zeros(shape) for name, shape in SHAPES.items()}, mesh)
        stored.fill(empty)
        assert all(torch.equal(own_part(empty[name]), own_part(parts[name])) for name in SHAPES)
        alone = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
        stored.fill(alone)
        assert all(torch.equal(alone[name], wanted[name]) for name in SHAPES)
    assert ShardedTensors(folder / "parts", "optimizer").read() == {"step.even": torch.tensor(2.0)}


def training(processes: Processes, folder: Path) -> None:
    """Two micro-batches of each of three processes move weights, moments and average as six of one do."""
    model = Net()
    plain, average = copy.deepcopy(model), copy.deepcopy(model)
    for network in (model, average):
        shard(network, mesh_of(processes))
    shared = ShardedModel(model)
    ema, plain_ema = ExponentialMovingAverage(model, 0.5, average), ExponentialMovingAverage(plain, 0.5)
    optimizers = [build_adamw(Config(LEARNING_RATE=0.1, WEIGHT_DECAY=0.3), each)
                  for each in (model, plain)]  # fmt: skip
    names = [name for name, _ in plain.named_parameters()]
    assert [name for name, _ in model.named_parameters()] == names
    world_size, rank = processes.part.world_size, processes.part.rank
    for step in range(3):
        seeds = [[100 * step + 10 * micro + each for each in range(world_size)] for micro in range(2)]
        with shared.no_sync():
            (loss_of(model, seeds[0][rank]) / 2).backward()
        assert all(parameter.grad is None for parameter in model.parameters())  # nothing was sent yet
        (loss_of(model, seeds[1][rank]) / 2).backward()
        for seed in (seed for micro in seeds for seed in micro):
            (loss_of(plain, seed) / len(seeds) / world_size).backward()
        norms = [total_norm(list(each.parameters())) for each in (model, plain)]
        torch.testing.assert_close(*norms)
        is_skipped = torch.tensor(step == 1)
        for network, norm, optimizer in zip((model, plain), norms, optimizers, strict=True):
            nn.utils.clip_grads_with_norm_(network.parameters(), 0.1, norm)
            step_unless(optimizer, is_skipped)
            optimizer.zero_grad()
        ema.update(step, is_skipped)
        plain_ema.update(step, is_skipped)
    states = [optimizer_tensors(optimizer, each) for optimizer, each in zip(optimizers, (model, plain), strict=True)]
    for found, wanted in (
        (model.state_dict(), plain.state_dict()),
        (ema.model.state_dict(), plain_ema.model.state_dict()),
        (states[0], states[1]),
    ):
        assert found.keys() == wanted.keys()
        whole = dict(gather_tensors(found))
        for name in whole:
            torch.testing.assert_close(whole[name], wanted[name])


def forbid_copy(parameter: nn.Parameter, memo: object) -> nn.Parameter:
    raise AssertionError("weights are copied")


def memory(processes: Processes, folder: Path) -> None:
    """A process holds a third of the weights, before and after passes; copies hold some while they are looked at."""
    model = Net()
    whole = {name: each.detach().clone() for name, each in model.named_parameters()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.Parameter, "__deepcopy__", forbid_copy)
        copy_of_model = GatheredCopy(model, torch.device("cpu"), processes)
    average = copy.deepcopy(model).requires_grad_(False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.Parameter, "__deepcopy__", forbid_copy)
        copies = GatheredCopies(copy_of_model, GatheredCopy(average, torch.device("cpu"), processes))
    convolutions = nn.Sequential(nn.Conv2d(4, 4, 3), nn.GroupNorm(1, 4), nn.Conv2d(4, 4, 1))
    convolutions[0].weight.data = convolutions[0].weight.data.contiguous(memory_format=torch.channels_last)
    shard(convolutions, mesh_of(processes))
    assert convolutions(torch.ones(2, 4, 5, 5)).is_contiguous(memory_format=torch.channels_last)  # whatever comes
    seen = list(copies.model.module.parameters()) if processes.is_main else []
    for network in (model, average):
        shard(network, mesh_of(processes))
    # 5 x 3 + 5, 5 x 3 + 3 and 3 x 2 + 2 numbers of 4 bytes; 20 of them are the most in one.
    assert gathered_bytes(model, adds_up_gradients=False) == 3 * 20 * 4
    assert gathered_bytes(model, adds_up_gradients=True) == (3 * 20 + 46) * 4
    with torch.no_grad():
        loss_of(average, 5)
    loss_of(model, 5).backward()
    for network in (model, average):
        assert all(isinstance(parameter, DTensor) for parameter in network.parameters())  # nothing is put together
    with copies.model.filled(with_gradients=True):
        if processes.is_main:
            for (name, parameter), kept in zip(copies.model.module.named_parameters(), seen, strict=True):
                assert parameter is kept
                assert torch.equal(parameter, whole[name])
                assert parameter.grad is not None
                assert parameter.grad.shape == parameter.shape
                assert bool(copies.average.module.get_parameter(name).isnan().all())
    with copies.model.filled(), copies.average.filled():
        if processes.is_main:
            assert all(torch.equal(each, whole[name]) for name, each in copies.average.module.named_parameters())
            assert all(parameter.grad is None for parameter in seen)
    assert all(bool(each.isnan().all()) and each.untyped_storage().nbytes() == 4 for each in seen)


def saving(processes: Processes, folder: Path) -> None:
    """Saved once, told on all; a folder that one process cannot see is named; what was saved is restored."""
    model, average = Net(), Net()
    for network in (model, average):
        shard(network, mesh_of(processes))
    optimizer = build_adamw(Config(LEARNING_RATE=0.1, WEIGHT_DECAY=0.3), model)
    loss_of(model, processes.part.rank).backward()
    optimizer.step()
    tensors = {
        "model": model.state_dict(),
        "ema": average.state_dict(),
        "optimizer": optimizer_tensors(optimizer, model),
    }
    saver = ShardedSaver(
        checkpoints=folder / "checkpoints",
        describe=lambda state: TrainingState(
            **vars(state), config={}, config_file={}, symbols=("A",), schedule={}, world_size=3
        ),
        tensors=lambda: tensors,
        retention=Retention(2),
        processes=processes,
        group=dist.new_group(backend="gloo"),
        saved_step=0,
    )
    for step in (0, 1, 1):  # 0 was resumed from
        saver.save(RunState(step, 4, 0), wait=False)
    outcomes = saver.collect()
    assert len(outcomes) == 1, outcomes
    (saved,) = outcomes
    assert isinstance(saved, CheckpointRecord)
    assert saver.last_step == 1
    checkpoint = read_checkpoint(folder / "checkpoints" / "step_00000001")
    assert saved.folder == checkpoint.folder

    with pytest.MonkeyPatch.context() as patch:
        if processes.part.rank == 2:
            patch.setattr(Path, "is_dir", lambda path: False)
        saver.save(RunState(2, 8, 0), wait=True)
    (failed,) = saver.collect()
    assert isinstance(failed, FailedCheckpoint)
    assert "rank 2 does not see " in str(failed.error)
    assert "on a disk that all machines share" in str(failed.error)
    processes.wait()
    assert [each.name for each in (folder / "checkpoints").iterdir() if each.name.startswith(".tmp")] == []
    assert list_checkpoints(folder / "checkpoints") == [checkpoint.folder]

    other = Net()
    shard(other, mesh_of(processes))
    restored = build_adamw(Config(LEARNING_RATE=0.1, WEIGHT_DECAY=0.3), other)
    checkpoint.stored("model").fill(other.state_dict())
    load_optimizer_parts(restored, other, checkpoint.stored("optimizer"))
    for network, its_optimizer in ((model, optimizer), (other, restored)):
        network.zero_grad()
        loss_of(network, 9).backward()
        its_optimizer.step()
    for one, another in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(own_part(one), own_part(another))


CHECKS = {check.__name__: check for check in (gathering, reading, training, memory, saving)}


def main(arguments: list[str]) -> int:
    """Run one of them with the other processes."""
    name, folder = arguments
    with connected_processes(place_of_this_process(), torch.device("cpu")) as processes:
        CHECKS[name](processes, Path(folder))
        processes.wait()
    return 0
