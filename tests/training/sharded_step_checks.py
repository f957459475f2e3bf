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
from diffusion.loss import DiffusionObjective
from diffusion.schedule import build_noise_schedule
from distributed.gathering import gather_tensors
from distributed.models import ReplicatedModel, ShardedModel, gathered, own_part, shard
from distributed.processes import Processes, connected_processes
from models import fused
from tests.models.test_reference import SMALL, build, fast, inputs
from tests.training.step_rig import Rig, TinyNetwork, batch, part_of
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
        objective=DiffusionObjective(schedule, "v_prediction", "uniform", 5.0, 0.25, motion_weight=0.0),
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
        outcome = step.run(number, part_of(batch(), processes.part))
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
    outcome = step.run(4, part_of(batch(), processes.part))
    assert not bool(torch.isfinite(outcome.gradient_norm))
    assert (bool(outcome.overflowed), bool(outcome.skipped)) == (True, False)  # it is the scale alone
    assert scale.state()["scale"] == SCALE / 2
    assert all(torch.equal(tensor, before[name]) for name, tensor in own().items())

    scale.overflows = False
    outcome = step.run(5, part_of(batch(), processes.part))
    assert bool(torch.isfinite(outcome.gradient_norm))
    assert scale.state()["scale"] == SCALE / 2
    assert not torch.equal(own()["model.embedding.weight"], before["model.embedding.weight"])


def uneven(processes: Processes, folder: Path) -> None:
    """Of 11 clips two processes have 6 and 5, in micro-batches of 3 and 2: the step is that of one process."""
    for accumulation_steps, is_divided in ((1, False), (2, False), (2, True)):
        rig, alone = Rig(accumulation_steps), Rig()
        if is_divided:
            mesh = init_device_mesh("cpu", (processes.part.world_size,))
            for network in (rig.model, rig.ema.model):
                shard(network, mesh)
            rig.optimizer = build_adamw(Config(LEARNING_RATE=0.01, WEIGHT_DECAY=0.0), rig.model)
        step = TrainStep(
            shared=ShardedModel(rig.model) if is_divided else ReplicatedModel(rig.model, torch.device("cpu")),
            ema=rig.ema,
            optimizer=rig.optimizer,
            objective=rig.step._objective,
            compute=ComputeDevice(torch.device("cpu"), None),
            processes=processes,
            loss_scale=rig.loss_scale,
            config=rig.step._config,
        )
        for number in (1, 2, 3):
            found = step.run(number, part_of(batch(11), processes.part))
            right = alone.step.run(number, batch(11))
            torch.testing.assert_close(found.loss, right.loss)
            torch.testing.assert_close(found.gradient_norm, right.gradient_norm)
            for name, value in vars(right.samples).items():
                torch.testing.assert_close(getattr(found.samples, name), value)
        for tensor, wanted in zip(rig.model.parameters(), alone.model.parameters(), strict=True):
            torch.testing.assert_close(gathered(tensor), wanted, rtol=1e-4, atol=1e-6)


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
        gradients.append(
            {name: gathered(each.grad).flatten() for name, each in network.named_parameters() if each.grad is not None}
        )
    found, wanted = (torch.cat([gradient[name] for name in gradients[0]]) for gradient in reversed(gradients))
    assert functional.cosine_similarity(found, wanted, dim=0) > 0.999


CHECKS = {check.__name__: check for check in (loss_scale, uneven, casting)}


def main(arguments: list[str]) -> int:
    """Run one of them with the other processes."""
    name, folder = arguments
    with connected_processes(place_of_this_process(), torch.device("cpu")) as processes:
        CHECKS[name](processes, Path(folder))
        processes.wait()
    return 0
