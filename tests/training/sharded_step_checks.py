"""What test_sharded_model.py lets two processes check of whole steps: main(["name", "folder"])."""

import copy
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.nn import functional

from compute.device import ComputeDevice, place_of_this_process
from config import Config
from data.records import Batch
from diffusion.loss import DiffusionObjective
from diffusion.schedule import build_noise_schedule
from distributed.gathering import gather_tensors
from distributed.models import ShardedModel, gathered, own_part, shard
from distributed.processes import Processes, connected_processes
from models import fused
from tests.models.test_reference import SMALL, build, fast, inputs
from tests.training.step_rig import Rig, TinyNetwork, batch
from training.optimizer import DynamicLossScale, ExponentialMovingAverage, build_adamw, optimizer_tensors
from training.step import TrainStep

SCALE = 2.0**10


class Overflowing(DynamicLossScale):
    """Finds, where it is told to, an infinity in this process's part of a gradient."""

    def __init__(self) -> None:
        super().__init__("cpu", initial_scale=SCALE)
        self.overflows = False

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        if self.overflows:
            own_part(optimizer.param_groups[0]["params"][0].grad).flatten()[0] = torch.inf
        super().unscale(optimizer)


def part_of(whole: Batch, processes: Processes) -> Batch:
    mine = slice(processes.part.rank, None, processes.part.world_size)
    return Batch(whole.clips_BTHWC[mine], whole.tokens_BL[mine], whole.captions[mine], whole.ids[mine], whole.epoch, 0)


def loss_scale(processes: Processes, folder: Path) -> None:
    """A scaled step of parts is an unscaled one of the whole; one process's infinity is a lower scale for both."""
    torch.manual_seed(0)
    model = TinyNetwork()
    average = copy.deepcopy(model)
    for network in (model, average):
        shard(network, init_device_mesh("cpu", (processes.part.world_size,)))
    ema = ExponentialMovingAverage(model, 0.9, average)
    optimizer = build_adamw(Config(LEARNING_RATE=0.01, WEIGHT_DECAY=0.0), model)
    schedule = build_noise_schedule("cosine", num_timesteps=50, zero_terminal_snr=True)
    scale, plain = Overflowing(), Rig()
    step = TrainStep(
        shared=ShardedModel(model),
        ema=ema,
        optimizer=optimizer,
        objective=DiffusionObjective(schedule, "v_prediction", "uniform", 5.0, 0.25),
        compute=ComputeDevice(torch.device("cpu"), None),
        processes=processes,
        loss_scale=scale,
        config=Config(GRADIENT_ACCUMULATION_STEPS=2),
    )

    def everything() -> Mapping[str, Tensor]:
        state = {f"model.{name}": value for name, value in model.state_dict().items()}
        state |= {f"ema.{name}": value for name, value in average.state_dict().items()}
        return state | optimizer_tensors(optimizer, model)

    def own() -> dict[str, Tensor]:
        return {name: own_part(tensor).clone() for name, tensor in everything().items()}

    for number in (1, 2, 3):
        outcome = step.run(number, part_of(batch(), processes))
        alone = plain.step.run(number, batch())
        assert not bool(outcome.skipped)
        torch.testing.assert_close(outcome.gradient_norm, alone.gradient_norm)
    wanted = plain.everything()
    found = {name: tensor.clone() for name, tensor in gather_tensors(everything())}
    if processes.is_main:
        assert found.keys() == wanted.keys()
        for name, tensor in found.items():
            torch.testing.assert_close(tensor, wanted[name])

    before = own()
    scale.overflows = processes.part.rank == 1
    outcome = step.run(4, part_of(batch(), processes))
    assert not bool(torch.isfinite(outcome.gradient_norm))
    assert (bool(outcome.overflowed), bool(outcome.skipped)) == (True, False)  # it is the scale alone
    assert scale.state()["scale"] == SCALE / 2
    assert all(torch.equal(tensor, before[name]) for name, tensor in own().items())

    scale.overflows = False
    outcome = step.run(5, part_of(batch(), processes))
    assert bool(torch.isfinite(outcome.gradient_norm))
    assert scale.state()["scale"] == SCALE / 2
    assert not torch.equal(own()["model.embedding.weight"], before["model.embedding.weight"])


def casting(processes: Processes, folder: Path) -> None:
    """Weights that are cast together, as on CUDA, are cast after they were gathered, and train as undivided ones."""
    fused.casts_together = torch.is_autocast_enabled
    given = inputs(SMALL)
    networks = build(SMALL), build(SMALL)
    shard(networks[1], init_device_mesh("cpu", (processes.part.world_size,)))
    gradients = []
    for network in networks:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            prediction = fast(network, *given)
        functional.mse_loss(prediction, given[0]).backward()
        gradients.append({name: gathered(each.grad).flatten() for name, each in network.named_parameters()})
    found, wanted = (torch.cat([gradient[name] for name in gradients[0]]) for gradient in reversed(gradients))
    assert functional.cosine_similarity(found, wanted, dim=0) > 0.999


CHECKS = {check.__name__: check for check in (loss_scale, casting)}


def main(arguments: list[str]) -> int:
    """Run one of them with the other processes."""
    name, folder = arguments
    with connected_processes(place_of_this_process(), torch.device("cpu")) as processes:
        CHECKS[name](processes, Path(folder))
        processes.wait()
    return 0
