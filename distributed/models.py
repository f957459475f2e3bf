"""The model as a training step calls it: by one process, or by several whose gradients become one."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from compute.compiled import Forward, compile_network


class SharedModel:
    """The model of one process alone; subclasses share it, with the same weights and keys and another forward pass."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._network = model  # what a step calls
        self._forward: Forward = model

    def __call__(
        self, video_BCTHW: Tensor, timestep_B: Tensor, tokens_BL: Tensor, drop_caption_B: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Predict as `models.unet3d.TextToVideoModel` does, and return how long the clips are expected to last too."""
        prediction, log_seconds_B = self._forward(
            video_BCTHW, timestep_B, tokens_BL, drop_caption_B, with_duration=True
        )
        return prediction, log_seconds_B

    def compile(self) -> None:
        """Let the forward and backward passes of training steps run through torch.compile from now on."""
        self._forward = compile_network(self._network)

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Send no gradients in the ``with`` block, because more passes of the same step follow."""
        yield


class ReplicatedModel(SharedModel):
    """Each process has all weights, and the mean of the gradients over all of them after the backward pass.

    Li et al. 2020 (PyTorch Distributed, arXiv 2006.15704): gradients travel in buckets while the backward pass goes on.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        super().__init__(model)
        replicated = DistributedDataParallel(
            model,
            device_ids=None if device.type == "cpu" else [device],
            gradient_as_bucket_view=True,
        )
        self._network = self._forward = self._replicated = replicated

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        with self._replicated.no_sync():
            yield


class ShardedModel(SharedModel):
    """Each process has a part of the weights, and after the backward pass that part's mean gradient over all."""

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Let undivided gradients add up here, which takes as many bytes as all weights have."""
        sharded = self.model
        assert isinstance(sharded, FSDPModule)
        sharded.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            sharded.set_requires_gradient_sync(True)


def shard(model: nn.Module, mesh: DeviceMesh) -> None:
    """Divide a model, in place, over the processes; its parameters become DTensors on the mesh's device.

    FSDP2 refuses parameters in channels last and gathers contiguous ones (PyTorch 2.13). A convolution that gets its
    frames in channels last returns them so nonetheless, and therefore they are brought to it in that order.

    Each module in a ModuleList (stages and text layers) is gathered separately, and so is the rest.

    Weights stay float32, and autocast casts them where they are used, as in every other run here. A
    `MixedPrecisionPolicy(param_dtype=torch.bfloat16)` would cast before it sends and halve what is sent, but would also
    cast norms and gains, which autocast leaves alone: then "ddp" and "fsdp" would not train the same.

    Args:
        model: the same on every process, on the CPU or on the device; the device has room for one module at a time.
        mesh: of all processes, in one dimension.
    """
    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()  # parts are runs of rows
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(_bring_in_channels_last)
    listed = [child for module in model.modules() if isinstance(module, nn.ModuleList) for child in module]
    kinds = tuple({type(child) for child in listed})
    units = [module for module in model.modules() if isinstance(module, kinds)]
    for unit in [*units, model]:
        # Also the outermost one frees its gathered weights: averaged weights change without a backward pass in between.
        fully_shard(unit, mesh=mesh, reshard_after_forward=True)
    model.to(mesh.device_type)  # the rest, such as a frozen language model


def _bring_in_channels_last(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (inputs[0].contiguous(memory_format=torch.channels_last),)


def is_sharded(model: nn.Module) -> bool:
    """Return whether `shard` has divided it."""
    return isinstance(model, FSDPModule)


@contextmanager
def undivided(model: nn.Module) -> Iterator[None]:
    """Let a part of the model be called by itself; `shard` gathers most weights for the whole forward pass alone.

    Call on all processes. The model has done a forward pass before.
    """
    if not isinstance(model, FSDPModule):
        yield
        return
    model.unshard()
    try:
        yield
    finally:
        model.reshard()


def gathered_bytes(model: nn.Module, *, adds_up_gradients: bool) -> int:
    """Return how many bytes of gathered weights and gradients a process has at most, in addition to its parts.

    In the backward pass those are one module with its gradient, and the weights of the next one. If gradients of
    several batches add up, all gradients stay undivided.
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
    """Return a small tensor undivided, on its device and on every process. Call on all of them."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
