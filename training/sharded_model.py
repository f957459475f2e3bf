"""A model of which every process has a part: FSDP2, `torch.distributed.fsdp.fully_shard`.

Every parameter is divided along its first dimension over the processes (ZeRO stage 3, Rajbhandari et al. 2020, arXiv
1910.02054; Zhao et al. 2023, PyTorch FSDP, arXiv 2304.11277). Just before a part of the network computes, the processes
put its weights together, and just after it they let go of them; its gradient goes to each process's part alone.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from training.shared_model import SharedModel


class ShardedModel(SharedModel):
    """Each process has a part of the weights, and after the backward pass that part's mean gradient over all."""

    @contextmanager
    def gradients_stay_here(self) -> Iterator[None]:
        """Within, gradients add up here, whole: as many bytes as all weights have."""
        sharded = self.model
        assert isinstance(sharded, FSDPModule)
        sharded.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            sharded.set_requires_gradient_sync(True)


def shard(model: nn.Module, mesh: DeviceMesh) -> None:
    """Divide a model, in place, over the processes; its parameters become DTensors on the mesh's device.

    What is put together by itself is each module that the model lists (stages and text layers), and last the rest.

    Weights stay float32, and autocast casts them where they are used, as in every other run here. A
    `MixedPrecisionPolicy(param_dtype=torch.bfloat16)` would cast before it sends and halve what is sent, but would also
    cast norms and gains, which autocast leaves alone: then "ddp" and "fsdp" would not train the same.

    Args:
        model: the same on every process, on the CPU or on the device; only one part at a time is on the device whole.
        mesh: of all processes, in one dimension.
    """
    for parameter in model.parameters():
        # Parts are runs of rows. Convolutions turn theirs round again where they compute, channels last.
        parameter.data = parameter.data.contiguous()
    listed = [child for module in model.modules() if isinstance(module, nn.ModuleList) for child in module]
    kinds = tuple({type(child) for child in listed})
    units = [module for module in model.modules() if isinstance(module, kinds)]
    for unit in [*units, model]:
        # Also the outermost one lets go of its weights: averaged weights change without a backward pass in between.
        fully_shard(unit, mesh=mesh, reshard_after_forward=True)
    model.to(mesh.device_type)  # what is no parameter, such as a frozen language model


def is_sharded(model: nn.Module) -> bool:
    """Say whether `shard` was called."""
    return isinstance(model, FSDPModule)


def gathered_bytes(model: nn.Module, *, adds_up_gradients: bool) -> int:
    """Return how many bytes of weights and gradients a process has at most beside its parts.

    In the backward pass that is a part of the network with its gradient, and the weights of the next one. Where
    gradients of several batches add up, all of them stay whole.
    """
    unit_of: dict[nn.Parameter, nn.Module] = {}
    for unit in filter(is_sharded, model.modules()):  # outermost first
        unit_of.update(dict.fromkeys(unit.parameters(), unit))
    of_unit: Counter[nn.Module] = Counter()
    for parameter, unit in unit_of.items():
        of_unit[unit] += parameter.numel() * parameter.element_size()
    return 3 * max(of_unit.values()) + (of_unit.total() if adds_up_gradients else 0)


def own_part(tensor: Tensor) -> Tensor:
    """Return what this process has of a tensor, sharing memory with it; all of one that is not divided."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def gathered(tensor: Tensor) -> Tensor:
    """Return a small tensor put together, on its device and on every process. Call on all of them."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
